//! Golden scrapes: the whole page of each kind of host.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use citadel_agent::config::resolved::DcgmRelease;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{MISSING_IN_OLD, a100_mig, b200, gb200, h100, host, host_13, l40s, old};
use fake_nvml::scenario::{Event, Scenario};

use crate::host::{Builder, Host, value};

/// What pages are about here; other sources put more on them.
const OURS: [&str; 4] = ["citadel_gpu_", "citadel_model_gpu_", "citadel_source_success{source=\"gpu", "DCGM_"];

/// What differs from run to run: times, and how many passes there were.
const MOVING: [&str; 5] = [
    "citadel_gpu_nvml_call_seconds",
    "citadel_gpu_nvml_errors_total",
    "citadel_gpu_nvml_values_refused_total",
    "citadel_gpu_samples_total",
    "citadel_gpu_sampler_cpu_seconds_total",
];

/// Our part of a page, without what moves.
fn still(page: &str) -> String {
    let kept = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        OURS.iter().any(|ours| name.starts_with(ours)) && !MOVING.iter().any(|moving| name.starts_with(moving))
    };
    page.lines().filter(kept).map(|line| format!("{line}\n")).collect()
}

fn assert_golden(name: &str, host: &Host) {
    let page = still(&host.page(Section::Gpu)) + "\n" + &still(&host.page(Section::Models));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpu").join(name);
    if env::var_os("UPDATE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        golden == page,
        "{name} is not what is exposed now, first at {differs:#?}\n\
         if that is meant: UPDATE_FIXTURES=1 cargo test -p citadel-agent --test gpu"
    );
}

/// Counters that grow with each pass stand still, so that the page does not depend on when it is taken.
fn frozen(mut scenario: Scenario) -> Scenario {
    for gpu in &mut scenario.gpus {
        gpu.energy = gpu.energy.map(|[start, _]| [start, 0]);
        for growth in gpu.fields.values_mut().chain(gpu.link_fields.values_mut()) {
            growth[1] = 0;
        }
    }
    scenario
}

#[test]
fn h100s_with_models_and_strangers() {
    let scenario = frozen(host(vec![
        h100(0, &[(101, 40_960, 60), (102, 20_480, 20), (900, 512, 3)]),
        h100(1, &[(103, 10_240, 45)]),
    ]));
    let host = Builder::new(&scenario).model("mixtral", 11400, [101, 103]).model("phi3", 11403, [102]).start();
    host.after_passes(3);
    assert_golden("h100.prom", &host);
}

#[test]
fn the_same_under_dcgm_exporters_names() {
    let scenario = frozen(host(vec![h100(0, &[(101, 40_960, 60)]), a100_mig(1)]));
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_8)).start();
    host.after_passes(3);
    let page = still(&host.page(Section::Gpu));
    let dcgm: String = page.lines().filter(|line| line.contains("DCGM_")).map(|line| format!("{line}\n")).collect();
    assert!(dcgm.contains("# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter"), "{dcgm}");
    assert_golden("dcgm.prom", &host);
}

#[test]
fn the_same_under_the_names_of_dcgm_exporter_4_9() {
    let scenario = frozen(host(vec![h100(0, &[(101, 40_960, 60)]), a100_mig(1)]));
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_9)).start();
    host.after_passes(3);
    let parsed = host.parsed(Section::Gpu);
    let of_gpu = |name| value(&parsed, name, &[("gpu", "0"), ("DCGM_FI_SYSTEM_DRIVER_VERSION", "550.54.15")]);
    assert_eq!(of_gpu("DCGM_FI_DEV_SM_CLOCK_HERTZ"), Some(1.965e9));
    assert_eq!(of_gpu("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL"), Some(5_000_000.0), "whole joules");
    assert_eq!(of_gpu("DCGM_FI_DEV_GPU_UTIL_RATIO"), Some(0.87));
    assert_eq!(of_gpu("DCGM_FI_DEV_FB_CAPACITY_BYTES"), Some(80.0 * 1024.0 * 1048576.0));
    assert_golden("dcgm49.prom", &host);
}

#[test]
fn a_b200_with_everything_on() {
    let mut scenario = frozen(host_13(vec![b200(0, &[(101, 40_960, 60)])]));
    // The page is long enough.
    scenario.gpus[0].links = 3;
    scenario.gpus[0].links_down = vec![1];
    let host = Builder::new(&scenario).configured(|config| config.gpu.nvlink_fec = true).start();
    host.after_passes(3);
    assert_golden("b200.prom", &host);
}

#[test]
fn a_gb200_whose_memory_is_the_operating_systems() {
    let mut scenario = frozen(host_13(vec![gb200(0, &[(101, 40_960, 60), (102, 1024, 5)])]));
    scenario.confidential = Some(1);
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(3);
    assert_golden("gb200.prom", &host);
}

#[test]
fn an_l40s_with_guests() {
    let host = Builder::new(&frozen(host_13(vec![l40s(0)]))).start();
    host.after_passes(3);
    assert_golden("l40s.prom", &host);
}

#[test]
fn an_a100_in_mig_mode() {
    let scenario = frozen(host(vec![a100_mig(0)]));
    let host = Builder::new(&scenario).model("mixtral", 11400, [301]).start();
    host.after_passes(3);
    assert_golden("mig.prom", &host);
}

#[test]
fn a_lost_gpu_beside_a_good_one() {
    let mut scenario = frozen(host(vec![h100(0, &[(101, 1024, 10)]), h100(1, &[(102, 1024, 10)])]));
    let host = Builder::new(&scenario).model("mixtral", 11400, [101, 102]).start();
    host.after_passes(2);
    scenario.gpus[1].lost = true;
    host.fake.set(&scenario).unwrap();
    host.until("lost GPU", || value(&host.parsed(Section::Gpu), "citadel_gpu_up", &[("index", "1")]) == Some(0.0));
    assert_golden("lost.prom", &host);
}

#[test]
fn an_old_driver_with_what_it_has() {
    let host = Builder::new(&frozen(old())).without(&MISSING_IN_OLD).model("phi3", 11403, [401]).start();
    host.after_passes(3);
    assert_golden("old.prom", &host);
}

#[test]
fn a_library_that_lacks_functions() {
    let missing =
        ["nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetProcessUtilization", "nvmlGpmMetricsGet"];
    let scenario = frozen(host(vec![h100(0, &[(101, 40_960, 60)])]));
    let host = Builder::new(&scenario).without(&missing).model("mixtral", 11400, [101]).start();
    host.after_passes(3);
    assert_golden("missing.prom", &host);
}

#[test]
fn xids_of_a_gpu() {
    let mut scenario = frozen(host(vec![h100(0, &[]), h100(1, &[])]));
    let xid = |gpu, data| Event { gpu, kind: 8, data };
    scenario.events = vec![xid(0, 31), xid(1, 94), xid(0, 31), Event { gpu: 1, kind: 2, data: 0 }];
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_8)).start();
    host.until("second Xid", || {
        value(&host.parsed(Section::Gpu), "citadel_gpu_xid_errors_total", &[("xid", "31")]) == Some(2.0)
    });
    host.after_passes(3);
    assert_golden("xid.prom", &host);
}

/// What the panels of Grafana's dashboard 12239 ask for (`grafana/dcgm-exporter-dashboard.json` of dcgm-exporter 4.8), and what a
/// panel makes of the value: all filter by `instance`, which Prometheus adds, and `gpu`.
const DASHBOARD_12239: [(&str, f64, std::ops::RangeInclusive<f64>); 6] = [
    ("DCGM_FI_DEV_GPU_TEMP", 1.0, 1.0..=110.0),
    ("DCGM_FI_DEV_POWER_USAGE", 1.0, 1.0..=1000.0),
    // It shows Hz.
    ("DCGM_FI_DEV_SM_CLOCK", 1e6, 1e8..=3e9),
    ("DCGM_FI_DEV_GPU_UTIL", 1.0, 0.0..=100.0),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 1.0, 0.0..=1.0),
    // In MiB.
    ("DCGM_FI_DEV_FB_USED", 1.0, 40_960.0..=81_920.0),
];

#[test]
fn dashboard_12239_fills_on_the_names_of_4_8() {
    let scenario = frozen(host(vec![h100(0, &[(101, 40_960, 60)]), h100(1, &[(102, 40_960, 60)])]));
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_8)).start();
    host.after_passes(3);
    let parsed = host.parsed(Section::Gpu);
    for (name, factor, range) in DASHBOARD_12239 {
        for gpu in ["0", "1"] {
            let shown = value(&parsed, name, &[("gpu", gpu)]).map(|value| value * factor);
            assert!(shown.is_some_and(|shown| range.contains(&shown)), "{name} of GPU {gpu}: {shown:?}");
        }
    }
}

/// `etc/default-counters.csv` of dcgm-exporter 4.8.2, without its comments and labels; since 4.8.3 the NVLink total is a gauge.
const DEFAULT_4_8: &str = "
    SM_CLOCK gauge, MEM_CLOCK gauge, MEMORY_TEMP gauge, GPU_TEMP gauge, POWER_USAGE gauge,
    TOTAL_ENERGY_CONSUMPTION counter, PCIE_REPLAY_COUNTER counter, GPU_UTIL gauge, MEM_COPY_UTIL gauge, ENC_UTIL gauge,
    DEC_UTIL gauge, XID_ERRORS gauge, FB_FREE gauge, FB_USED gauge, FB_RESERVED gauge, NVLINK_BANDWIDTH_TOTAL gauge,
    VGPU_LICENSE_STATUS gauge, UNCORRECTABLE_REMAPPED_ROWS counter, CORRECTABLE_REMAPPED_ROWS counter,
    ROW_REMAP_FAILURE gauge, PROF_GR_ENGINE_ACTIVE gauge, PROF_PIPE_TENSOR_ACTIVE gauge, PROF_DRAM_ACTIVE gauge,
    PROF_PCIE_TX_BYTES gauge, PROF_PCIE_RX_BYTES gauge";

#[test]
fn the_defaults_of_4_8_are_there_and_nothing_else() {
    let scenario = frozen(host(vec![h100(0, &[(101, 40_960, 60)])]));
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_8)).start();
    host.after_passes(3);
    let expected: BTreeMap<String, String> = (DEFAULT_4_8.split(','))
        .map(|entry| {
            let (field, kind) = entry.trim().split_once(' ').unwrap();
            let prefix = if field.starts_with("PROF_") { "DCGM_FI_" } else { "DCGM_FI_DEV_" };
            (format!("{prefix}{field}"), kind.to_owned())
        })
        .collect();
    let mut there = host.parsed(Section::Gpu).kind;
    there.retain(|name, _| name.starts_with("DCGM_"));
    assert_eq!(there, expected);
}
