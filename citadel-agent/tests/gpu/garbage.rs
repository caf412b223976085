//! Drivers that answer what cannot be: it is left out and counted, never exported and never charged to anybody.

use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{h100, host, uuid};
use fake_nvml::scenario::{Gpu, Memory};

use crate::host::{Builder, sum, value};

const GARBAGE: u32 = u32::MAX;

/// Every family that the garbage below would show in.
const ABSENT: [&str; 15] = [
    "citadel_gpu_utilization_ratio",
    "citadel_gpu_memory_utilization_ratio",
    "citadel_gpu_power_watts",
    "citadel_gpu_power_limit_watts",
    "citadel_gpu_power_instant_watts",
    "citadel_gpu_temperature_celsius",
    "citadel_gpu_clock_hertz",
    "citadel_gpu_clock_max_hertz",
    "citadel_gpu_fan_ratio",
    "citadel_gpu_energy_joules_total",
    "citadel_gpu_memory_used_bytes",
    "citadel_gpu_sm_active_ratio",
    "citadel_gpu_pcie_link_width",
    "citadel_gpu_nvlink_bytes_total",
    "citadel_gpu_remap_banks",
];

fn garbage() -> Gpu {
    let mut gpu = h100(0, &[(101, 1024, 50)]);
    for id in [82, 142, 186, 189] {
        gpu.fields.insert(id, [GARBAGE.into(), 0]);
    }
    for growth in gpu.link_fields.values_mut() {
        *growth = [u64::MAX, 0];
    }
    gpu.gpm.insert(2, 2619.0);
    gpu.gpm.insert(10, -0.5);
    gpu.gpm.insert(20, -1.0);
    Gpu {
        utilization: Some([2619, 41]),
        power: Some([GARBAGE, GARBAGE]),
        temperature: Some(i32::MAX),
        margin: Some(i32::MIN),
        fans: vec![GARBAGE, 201],
        clocks: Some([GARBAGE; 4]),
        clocks_max: Some([GARBAGE; 4]),
        energy: Some([u64::MAX, 0]),
        memory: Some(Memory { total: 1 << 36, reserved: 0, used: 1 << 37 }),
        pcie_link: Some([0, 5, GARBAGE, 16]),
        remap_banks: Some([GARBAGE; 5]),
        ..gpu
    }
}

#[test]
fn impossible_values_are_absent_and_counted() {
    let scenario = host(vec![garbage(), h100(1, &[(102, 2048, 25)])]);
    let host = Builder::new(&scenario).start();
    host.after_passes(4);
    let page = host.parsed(Section::Gpu);
    for name in ABSENT {
        let of = |index| page.samples.keys().filter(|(other, own)| other == name && own["index"] == index).count();
        assert_eq!(of("0"), 0, "{name}");
        assert!(of("1") > 0 || name == "citadel_gpu_fan_ratio", "{name} of the GPU beside it");
    }
    // What is possible beside it stays.
    let first = [("index", "0")];
    assert_eq!(value(&page, "citadel_gpu_up", &first), Some(1.0));
    assert_eq!(value(&page, "citadel_gpu_pcie_link_max_width", &first), Some(16.0));
    assert_eq!(value(&page, "citadel_gpu_sm_occupancy_ratio", &first), Some(0.33));
    assert_eq!(value(&page, "citadel_gpu_remapped_rows", &[("index", "0"), ("kind", "uncorrectable")]), Some(1.0));
    for call in
        ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues", "nvmlGpmMetricsGet"]
    {
        let refused = value(&page, "citadel_gpu_nvml_values_refused_total", &[("call", call)]);
        assert!(refused >= Some(1.0), "{call}: {refused:?}");
    }
    assert_eq!(value(&page, "citadel_gpu_nvml_values_refused_total", &[("call", "nvmlDeviceGetName")]), Some(0.0));
}

#[test]
fn another_processs_garbage_takes_nothing_from_a_model() {
    // Half of the SMs' time is the model's, and the other process says that it had 26 times all.
    let mut scenario = host(vec![h100(0, &[(101, 1024, 50), (900, 512, 2619)])]);
    scenario.gpus[0].energy = Some([1_000_000, 1000]);
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(8);
    let page = host.parsed(Section::Models);
    let energy = |model| value(&page, "citadel_model_gpu_energy_joules_total", &[("model", model)]).unwrap();
    let counter = sum(&page, "citadel_model_gpu_energy_joules_total", &[("gpu", &uuid(0))]);
    // All but the first two passes are split: the first has no earlier one, and owners may come after it.
    let passes = counter - 1000.0;
    assert!(energy("mixtral") >= 0.5 * (passes - 3.0), "{} of {passes}", energy("mixtral"));
    assert!((energy("mixtral") + energy("") - counter).abs() < 1e-6);
    assert_eq!(value(&page, "citadel_model_gpu_sm_ratio", &[("model", "mixtral")]), Some(0.5));
    assert_eq!(value(&page, "citadel_model_gpu_sm_ratio", &[("model", "")]), None, "unknown, not 1");
}

#[test]
fn a_models_own_garbage_is_no_share_of_anything() {
    let mut scenario = host(vec![h100(0, &[(101, 1024, 50), (102, 512, 2619)])]);
    scenario.gpus[0].processes[1].memory = Some(1 << 62);
    let host = Builder::new(&scenario).model("mixtral", 11400, [101, 102]).start();
    host.after_passes(4);
    let page = host.parsed(Section::Models);
    for name in ["citadel_model_gpu_sm_ratio", "citadel_model_gpu_memory_bytes"] {
        assert_eq!(value(&page, name, &[("model", "mixtral")]), None, "{name}: a sum with an unknown part");
    }
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_process_memory_bytes", &[("pid", "102")]), None);
    assert_eq!(value(&page, "citadel_gpu_process_memory_bytes", &[("pid", "101")]), Some(1073741824.0));
}

#[test]
fn an_energy_counter_that_jumps_is_believed_once_it_repeats_itself() {
    let mut scenario = host(vec![h100(0, &[(101, 1024, 100)])]);
    scenario.gpus[0].energy = Some([1_000_000, 0]);
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(4);
    let energy = || value(&host.parsed(Section::Gpu), "citadel_gpu_energy_joules_total", &[]);
    assert_eq!(energy(), Some(1000.0));
    // Grows by a gigajoule with each reading: never twice the same.
    scenario.gpus[0].energy = Some([1_000_000_000_000, 1_000_000_000_000]);
    host.fake.set(&scenario).unwrap();
    host.until("refusal", || energy().is_none());
    let model =
        || value(&host.parsed(Section::Models), "citadel_model_gpu_energy_joules_total", &[("model", "mixtral")]);
    assert!(model().unwrap_or(0.0) < 1.0, "{:?}", model());
    // The counter was set: a reset.
    scenario.gpus[0].energy = Some([5_000, 0]);
    host.fake.set(&scenario).unwrap();
    host.until("new count", || energy() == Some(5.0));
}

#[test]
fn encoders_and_mps_are_named() {
    let mut scenario = host(vec![
        h100(0, &[(101, 1024, 50), (102, 512, 10)]),
        h100(1, &[(103, 1, 1), (104, 1, 1)]),
        h100(2, &[(105, 1, 1)]),
    ]);
    scenario.gpus[0].processes[0].codecs = [12, 0];
    for process in &mut scenario.gpus[1].processes {
        process.mps = true;
    }
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(3);
    let page = host.parsed(Section::Gpu);
    let codec = |pid, engine| value(&page, "citadel_gpu_process_codec_ratio", &[("pid", pid), ("engine", engine)]);
    assert_eq!((codec("101", "encoder"), codec("101", "decoder"), codec("102", "encoder")), (Some(0.12), None, None));
    for (index, sharing) in [("0", "time_slicing"), ("1", "mps"), ("2", "none")] {
        assert_eq!(value(&page, "citadel_gpu_sharing_info", &[("index", index), ("sharing", sharing)]), Some(1.0));
    }
}
