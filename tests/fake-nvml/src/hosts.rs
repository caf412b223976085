//! Hosts that tests and benchmarks begin with. Their numbers are made up, but all different, so that a mix-up shows.

use std::collections::BTreeMap;

use crate::scenario::{Gpu, Memory, Mig, Process, Scenario};

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
            (74, 30_000_000_000, 250_000_000),
            (75, 1_000_000_000, 0),
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
            (197, 9_000_000_000, 1_000_000),
            (198, 8_000_000_000, 2_000_000),
            (251, 500_000_000, 0),
            (252, 600_000_000, 0),
            (253, 700_000_000, 0),
        ]),
        links: 2,
        link_fields: fields(&[(138, 1_000, 10), (139, 2_000, 20), (161, 4, 0), (162, 5, 0), (163, 6, 0)]),
        // Corrected and uncorrected, in DRAM and SRAM.
        ecc: BTreeMap::from(
            [("0:2", 7), ("1:2", 0), ("0:7", 9), ("1:7", 1)].map(|(key, count)| (key.to_owned(), count)),
        ),
        gpm: BTreeMap::from([(1, 86.5), (2, 80.0), (5, 43.25), (10, 55.5), (20, 1024.0), (21, 2048.0)]),
        licensed: Some(index == 0),
        event_types: ECC_EVENTS | XID_EVENTS,
        processes: processes.iter().map(process).collect(),
        ..Gpu::default()
    }
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
        // No GPM, no cumulative PCIe counters, no margin temperature before Hopper.
        gpm: BTreeMap::new(),
        margin: None,
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
        fields: fields(&[(74, 1_000_000_000, 0), (94, 3, 0)]),
        pcie_throughput: Some([100, 200]),
        ..h100(0, &[(401, 1000, 30), (402, 300, 0)])
    };
    // On both lists, with the same memory: one process all the same.
    gpu.processes[0].graphics = true;
    // The driver does not say.
    gpu.processes[1].memory = None;
    Scenario { driver: "470.57.02".to_owned(), cuda: 11_040, ..host(vec![gpu]) }
}

/// The functions that [`old`]'s driver lacks.
pub const MISSING_IN_OLD: [&str; 7] = [
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMarginTemperature",
    "nvmlGpmQueryDeviceSupport",
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
