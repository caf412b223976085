//! Hosts that tests and benchmarks begin with. Their numbers are made up, but all different, so that a mix-up shows.

use std::collections::BTreeMap;

use crate::scenario::{Gpu, Memory, Mig, Process, Scenario, Vgpu};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// NVML's event types.
const ECC_EVENTS: u64 = 1 | 2;
const XID_EVENTS: u64 = 8;

/// A driver of the R550 branch and `gpus`.
#[must_use]
pub fn host(gpus: Vec<Gpu>) -> Scenario {
    Scenario { driver: "550.54.15".to_owned(), cuda: 12_040, gpus, ..Scenario::default() }
}

/// The UUID of the GPU at an index.
#[must_use]
pub fn uuid(index: usize) -> String {
    format!("GPU-00000000-0000-4000-8000-{index:012x}")
}

/// An H100 at a place of the bus of its own, with the given processes: pid, MiB, percent of the SMs' time.
#[must_use]
pub fn h100(index: usize, processes: &[(u32, u64, u32)]) -> Gpu {
    let used: u64 = processes.iter().map(|(_, memory, _)| memory * MIB).sum();
    let process = |&(pid, memory, sm): &(u32, u64, u32)| Process {
        pid,
        memory: Some(memory * MIB),
        sm: Some(sm),
        ..Process::default()
    };
    Gpu {
        uuid: uuid(index),
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        serial: Some(format!("165012345678{index}")),
        vbios: Some("96.00.74.00.01".to_owned()),
        pci: format!("0000:{:02x}:00.0", 0x1b + 0x10 * (index % 14)),
        // The driver holds some that is no process's.
        memory: Some(Memory { total: 80 * GIB, reserved: 500 * MIB, used: used + 17 * MIB }),
        utilization: Some([87, 41]),
        codecs: Some([3, 5]),
        power: Some([612_345, 700_000]),
        energy: Some([5_000_000_123, 612_000]),
        temperature: Some(61),
        margin: Some(26),
        clocks: Some([1980, 1965, 2619, 1545]),
        // Software power cap, and a bit that no header names yet.
        reasons: Some(0x4 | 0x1000),
        fields: fields(&[
            (3, 21, 0),
            (4, 1, 0),
            (74, 30_000_000_000, 250_000_000),
            // The older number of the counter 251.
            (75, 500_000_000, 0),
            (76, 0, 0),
            (77, 0, 0),
            (78, 0, 0),
            (79, 0, 0),
            (80, 2_000_000_000, 0),
            (81, 3_000_000_000, 0),
            (82, 71, 0),
            (94, 12, 0),
            (142, 2, 0),
            (143, 1, 0),
            (144, 0, 0),
            (145, 0, 0),
            (169, 4, 0),
            (173, 8, 0),
            (174, 1, 0),
            (175, 2, 0),
            (176, 3, 0),
            (177, 5, 0),
            (178, 6, 0),
            (179, 7, 0),
            (180, 0, 0),
            (181, 9, 0),
            (182, 10, 0),
            (186, 598_000, 0),
            (187, 200_000, 0),
            (188, 700_500, 0),
            (189, 700_250, 0),
            (192, 650_000, 0),
            (193, negative(8), 0),
            (194, negative(5), 0),
            (195, negative(2), 0),
            (196, 0, 0),
            (230, 0, 0),
            (197, 9_000_000_000, 1_000_000),
            (198, 8_000_000_000, 2_000_000),
            (251, 500_000_000, 0),
            (252, 600_000_000, 0),
            (253, 700_000_000, 0),
        ]),
        links: 2,
        link_version: Some(6),
        link_fields: fields(&[
            (138, 1_000, 10),
            (139, 2_000, 20),
            (161, 4, 0),
            (162, 5, 0),
            (163, 6, 0),
            (164, 26_562, 0),
        ]),
        clocks_max: Some([1985, 1980, 2620, 1550]),
        performance_state: Some(0),
        // It trained with half of its lanes.
        pcie_link: Some([4, 5, 8, 16]),
        remap_banks: Some([2555, 4, 1, 0, 0]),
        sram: Some([1, 2, 9, 3, 4, 5, 6, 7, 0]),
        repair: Some([0, 1]),
        unrepairable: Some(0),
        // Complete and healthy: no problem of the four, the right configuration.
        fabric: Some([3, 0, 0b0001_1010_1010, 1]),
        modes: Some([0, 0, 1, 1, 1]),
        // Corrected and uncorrected, in DRAM and SRAM.
        ecc: BTreeMap::from(
            [("0:2", 7), ("1:2", 0), ("0:7", 9), ("1:7", 1)].map(|(key, count)| (key.to_owned(), count)),
        ),
        gpm: BTreeMap::from([
            (1, 86.5),
            (2, 80.0),
            (3, 33.0),
            (4, 12.0),
            (5, 43.25),
            (6, 1.0),
            (7, 40.0),
            (8, 2.0),
            (9, 0.25),
            (10, 55.5),
            (11, 3.0),
            (12, 21.0),
            (13, 4.0),
            (20, 1024.0),
            (21, 2048.0),
            (60, 3072.0),
            (61, 4096.0),
        ]),
        licensed: Some(index == 0),
        event_types: ECC_EVENTS | XID_EVENTS,
        processes: processes.iter().map(process).collect(),
        ..Gpu::default()
    }
}

/// A negative number as [`Gpu::fields`] has it.
fn negative(number: i64) -> u64 {
    number.wrapping_neg().cast_unsigned()
}

fn fields(table: &[(u32, u64, u64)]) -> BTreeMap<u32, [u64; 2]> {
    table.iter().map(|&(id, start, step)| (id, [start, step])).collect()
}

/// An A100 cut into two MIG devices, a process in each and one that the driver cannot place.
#[must_use]
pub fn a100_mig(index: usize) -> Gpu {
    let process = |pid, memory, mig| Process { pid, memory: Some(memory), mig, ..Process::default() };
    let mig = |gi, ci, used| Mig {
        uuid: format!("MIG-00000000-0000-4000-8000-{gi:012x}"),
        name: "NVIDIA A100-SXM4-40GB MIG 3g.20gb".to_owned(),
        gi,
        ci,
        memory: Memory { total: 20 * GIB, reserved: 30 * MIB, used },
    };
    Gpu {
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        memory: Some(Memory { total: 40 * GIB, reserved: 600 * MIB, used: 14 * GIB }),
        clocks: Some([1410, 1410, 1215, 1275]),
        power: Some([250_500, 400_000]),
        // No GPM, no cumulative PCIe counters, no margin temperature, no fabric before Hopper.
        gpm: BTreeMap::new(),
        margin: None,
        fabric: None,
        unrepairable: None,
        clocks_max: Some([1410, 1410, 1215, 1290]),
        pcie_link: Some([4, 4, 16, 16]),
        link_version: Some(5),
        thresholds: BTreeMap::from([(0, 92), (1, 89), (2, 95), (3, 85)]),
        fields: fields(&[
            (74, 4_000_000_000, 0),
            (82, 55, 0),
            (94, 0, 0),
            (142, 0, 0),
            (143, 0, 0),
            (144, 0, 0),
            (145, 0, 0),
        ]),
        mig: vec![mig(1, 0, 9 * GIB), mig(2, 0, 5 * GIB)],
        processes: vec![
            process(301, 8 * GIB, Some([1, 0])),
            process(302, 5 * GIB, Some([2, 0])),
            process(303, GIB / 2, None),
        ],
        ..h100(index, &[])
    }
}

/// A driver of CUDA 13 and `gpus`: fields 251 to 273 have other numbers there.
#[must_use]
pub fn host_13(gpus: Vec<Gpu>) -> Scenario {
    Scenario { driver: "580.95.05".to_owned(), cuda: 13_000, confidential: Some(0), ..host(gpus) }
}

/// A B200: NVLink 5 with counters of its own, power smoothing.
#[must_use]
pub fn b200(index: usize, processes: &[(u32, u64, u32)]) -> Gpu {
    let mut gpu = h100(index, processes);
    for (old, new) in [(251, 269), (252, 270), (253, 271)] {
        let moved = gpu.fields.remove(&old).unwrap_or_default();
        gpu.fields.insert(new, moved);
    }
    // Power smoothing: on, ceiling and floor in watts. EDPp in percent.
    gpu.fields.extend([(251, [1, 0]), (254, [990, 0]), (255, [400, 0]), (274, [110, 0])]);
    gpu.link_fields = fields(&[
        (138, 1_000, 10),
        (139, 2_000, 20),
        (164, 50_000, 0),
        (202, 1_100_000, 0),
        (204, 2_100_000, 0),
        (206, 1, 0),
        (207, 2, 0),
        (208, 3, 0),
        (209, 4, 0),
        (210, 5, 0),
        (211, 6, 0),
        (212, 7, 0),
        (213, 8, 0),
        (214, 0, 0),
        (219, 9, 0),
        // 3e-12 and 15e-254.
        (220, 0x30c, 0),
        (221, 10, 0),
        (222, 0xffe, 0),
        (294, 1_000_000, 0),
        (295, 11, 0),
    ]);
    gpu.link_fields.extend((235..=250).map(|id| (id, [u64::from(1000 - 4 * (id - 200)), 0])));
    Gpu {
        name: "NVIDIA B200".to_owned(),
        power: Some([902_000, 1_000_000]),
        memory: Some(Memory {
            total: 179 * GIB,
            reserved: 500 * MIB,
            used: gpu.memory.map_or(0, |memory| memory.used),
        }),
        link_version: Some(7),
        links: 18,
        pcie_link: Some([5, 5, 16, 16]),
        // One series a kind of trouble: degraded bandwidth, and too few links.
        fabric: Some([3, 0, 0b0101_1010_1001, 3]),
        ..gpu
    }
}

/// A GB200: a module with a CPU, to which chip-to-chip links go, and whose operating system has the GPU's memory.
#[must_use]
pub fn gb200(index: usize, processes: &[(u32, u64, u32)]) -> Gpu {
    let mut gpu = b200(index, processes);
    gpu.fields.insert(170, [2, 0]);
    gpu.gpm.extend([(100, 5120.0), (101, 6144.0)]);
    Gpu {
        name: "NVIDIA GB200".to_owned(),
        links: 2,
        module_fields: fields(&[(186, 1_500_000, 0), (190, 2_700_000, 0)]),
        c2c_fields: fields(&[(171, 1, 0), (172, 450_000, 0), (231, 1, 0), (232, 2, 0), (233, 3, 0)]),
        numa_node: Some(2),
        fabric: Some([2, 0, 0, 0]),
        ..gpu
    }
}

/// An L40S: Ada, without NVLink and GPM, shared by virtual machines.
#[must_use]
pub fn l40s(index: usize) -> Gpu {
    let mut gpu = h100(index, &[]);
    gpu.fields.retain(|id, _| ![142, 143, 144, 145, 197, 198].contains(id));
    let guest = |number: u64| Vgpu {
        uuid: format!("VGPU-{number}"),
        vm: format!("vm-{number}"),
        profile: "NVIDIA L40S-12Q".to_owned(),
        used: number * GIB,
    };
    Gpu {
        name: "NVIDIA L40S".to_owned(),
        links: 0,
        link_fields: BTreeMap::new(),
        gpm: BTreeMap::new(),
        fabric: None,
        unrepairable: None,
        pcie_link: Some([1, 4, 16, 16]),
        modes: Some([3, 0, 1, 1, 0]),
        vgpus: vec![guest(1), guest(2)],
        ..gpu
    }
}

/// A driver from before R510, which lacks what came later, and a card of its time: a fan, a graphics process.
#[must_use]
pub fn old() -> Scenario {
    let mut gpu = Gpu {
        name: "Tesla T4".to_owned(),
        serial: None,
        fans: vec![33],
        energy: None,
        margin: None,
        gpm: BTreeMap::new(),
        links: 0,
        link_fields: BTreeMap::new(),
        event_types: 0,
        fields: fields(&[
            (29, 2, 0),
            (30, 1, 0),
            (31, 1, 0),
            (74, 1_000_000_000, 0),
            (75, 7_000_000_000, 0),
            (94, 3, 0),
        ]),
        pcie_throughput: Some([100, 200]),
        pcie_link: Some([3, 3, 16, 16]),
        clocks_max: Some([1590, 1590, 5001, 1470]),
        thresholds: BTreeMap::from([(0, 96), (1, 93), (3, 89)]),
        performance_state: Some(32),
        remap_banks: None,
        sram: None,
        repair: None,
        unrepairable: None,
        fabric: None,
        ..h100(0, &[(401, 1000, 30), (402, 300, 0)])
    };
    // On both lists, with the same memory: one process all the same.
    gpu.processes[0].graphics = true;
    // The driver does not say.
    gpu.processes[1].memory = None;
    Scenario { driver: "470.57.02".to_owned(), cuda: 11_040, ..host(vec![gpu]) }
}

/// The functions that [`old`]'s driver lacks.
pub const MISSING_IN_OLD: [&str; 9] = [
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMarginTemperature",
    "nvmlGpmQueryDeviceSupport",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetGpuFabricInfoV",
];

/// `gpus` H100s with `processes` processes each, pids from 1 on without gaps.
#[must_use]
pub fn many(gpus: usize, processes: u32) -> Scenario {
    let gpu = |index: usize| {
        let first = index as u32 * processes + 1;
        // 64 GiB among them, and no more of the SMs' time than there is.
        let each = 65_536 / u64::from(processes.max(1));
        let sm = 100 / processes.max(1);
        h100(index, &(first..first + processes).map(|pid| (pid, each, sm)).collect::<Vec<_>>())
    };
    host((0..gpus).map(gpu).collect())
}

/// As [`many`], of GPUs that have everything that the agent asks for: NVLink 5 on 18 links, GPM, chip-to-chip links.
#[must_use]
pub fn everything(gpus: usize, processes: u32) -> Scenario {
    let mut scenario = host_13(many(gpus, processes).gpus);
    for (index, gpu) in scenario.gpus.iter_mut().enumerate() {
        let full = Gpu { links: 18, ..gb200(index, &[]) };
        let (memory, processes) = (gpu.memory, std::mem::take(&mut gpu.processes));
        *gpu = Gpu { memory, processes, ..full };
    }
    scenario
}
