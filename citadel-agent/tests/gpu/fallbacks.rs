//! Where a GPU lacks the best way to a number, and where something tells of a change.

use std::time::Duration;

use citadel_agent::config::resolved::DcgmRelease;
use citadel_agent::gpu::View;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{MISSING_IN_OLD, a100_mig, h100, host, old};
use fake_nvml::scenario::{Event, Gpu};

use crate::host::{Builder, Host, value};

fn pcie(host: &Host, direction: &str) -> Option<f64> {
    value(&host.parsed(Section::Gpu), "citadel_gpu_pcie_bytes_total", &[("direction", direction)])
}

#[test]
fn pcie_bytes_are_counted_by_the_gpu_where_it_can() {
    let host = Builder::new(&host(vec![h100(0, &[])])).start();
    host.after_passes(4);
    // A million bytes a pass, from the second pass on.
    let counted = pcie(&host, "transmit").unwrap();
    assert!(counted >= 3e6 && counted % 1e6 == 0.0, "{counted}");
}

#[test]
fn pcie_bytes_come_from_rates_where_the_gpu_has_no_counter() {
    let mut scenario = host(vec![h100(0, &[])]);
    scenario.gpus[0].fields.retain(|id, _| ![197, 198].contains(id));
    let host = Builder::new(&scenario).start();
    // A gibibyte and two a second: in the proportion of the rates, however much time has passed.
    host.until("PCIe bytes", || pcie(&host, "transmit") > Some(1e8));
    let page = host.parsed(Section::Gpu);
    let [sent, received] = ["transmit", "receive"]
        .map(|direction| value(&page, "citadel_gpu_pcie_bytes_total", &[("direction", direction)]).unwrap());
    // Whole bytes of each pass.
    assert!((received / sent - 2.0).abs() < 1e-6, "{sent} {received}");
}

#[test]
fn calls_that_block_are_made_only_if_asked_for() {
    const CALL: &str = "nvmlDeviceGetPcieThroughput";
    let quiet = Builder::new(&old()).without(&MISSING_IN_OLD).start();
    quiet.after_passes(3);
    assert_eq!(pcie(&quiet, "transmit"), None);
    assert!(!quiet.gpu.costs().contains_key(CALL));

    let asking =
        Builder::new(&old()).without(&MISSING_IN_OLD).configured(|config| config.gpu.pcie_throughput = true).start();
    // 100 KB a second.
    asking.until("PCIe bytes", || pcie(&asking, "transmit") > Some(1e4));
    let cost = &asking.gpu.costs()[CALL];
    assert!(cost.seconds.sum_ns() / cost.seconds.count() >= 20_000_000, "each blocks for 20 ms");
}

#[test]
fn an_ecc_event_has_the_counters_read_at_once() {
    let mut scenario = host(vec![h100(0, &[])]);
    let host = Builder::new(&scenario).start();
    let uncorrected = || {
        let labels = [("kind", "uncorrected"), ("location", "dram")];
        value(&host.parsed(Section::Gpu), "citadel_gpu_ecc_errors_total", &labels)
    };
    host.after_passes(2);
    assert_eq!(uncorrected(), Some(0.0));
    scenario.gpus[0].ecc.insert("1:2".to_owned(), 5);
    host.fake.set(&scenario).unwrap();
    let passes = host.gpu.work().0;
    host.after_passes(passes + 5);
    assert_eq!(uncorrected(), Some(0.0), "read every half minute, without an event");
    scenario.events = vec![Event { gpu: 0, kind: 2, data: 0 }];
    host.fake.set(&scenario).unwrap();
    host.until("new count", || uncorrected() == Some(5.0));
}

#[test]
fn an_xid_of_the_memory_has_the_counters_read_at_once() {
    let mut scenario = host(vec![h100(0, &[])]);
    let host = Builder::new(&scenario).start();
    let uncorrected = || {
        let labels = [("kind", "uncorrected"), ("location", "dram")];
        value(&host.parsed(Section::Gpu), "citadel_gpu_ecc_errors_total", &labels)
    };
    host.after_passes(2);
    scenario.gpus[0].ecc.insert("1:2".to_owned(), 5);
    // 31 says nothing of the memory.
    scenario.events = vec![Event { gpu: 0, kind: 8, data: 31 }];
    host.fake.set(&scenario).unwrap();
    let xids = |xid| value(&host.parsed(Section::Gpu), "citadel_gpu_xid_errors_total", &[("xid", xid)]);
    host.until("first Xid", || xids("31").is_some());
    let passes = host.gpu.work().0;
    host.after_passes(passes + 3);
    assert_eq!(uncorrected(), Some(0.0));
    scenario.events.push(Event { gpu: 0, kind: 8, data: 95 });
    host.fake.set(&scenario).unwrap();
    host.until("new count", || uncorrected() == Some(5.0));
    assert_eq!(xids("95"), Some(1.0));
}

#[test]
fn a_temperature_comes_from_the_newer_call_where_there_is_one() {
    let mut scenario = host(vec![h100(0, &[])]);
    scenario.gpus[0].temperature = Some(-4);
    let newer = Builder::new(&scenario).start();
    newer.after_passes(2);
    let degrees =
        |host: &Host| value(&host.parsed(Section::Gpu), "citadel_gpu_temperature_celsius", &[("sensor", "gpu")]);
    assert_eq!(degrees(&newer), Some(-4.0));
    assert!(!newer.gpu.costs().contains_key("nvmlDeviceGetTemperature"));
    scenario.gpus[0].temperature = Some(61);
    let older = Builder::new(&scenario).without(&["nvmlDeviceGetTemperatureV"]).start();
    older.after_passes(2);
    assert_eq!(degrees(&older), Some(61.0));
}

#[test]
fn throttling_for_heat_is_one_counter_whichever_field_has_it() {
    let seconds = |host: &Host, reason| {
        value(&host.parsed(Section::Gpu), "citadel_gpu_throttle_seconds_total", &[("reason", reason)])
    };
    let mut scenario = host(vec![h100(0, &[])]);
    let newer = Builder::new(&scenario).start();
    newer.after_passes(2);
    assert_eq!((seconds(&newer, "sw_thermal_slowdown"), seconds(&newer, "thermal")), (Some(0.5), None));
    // Below the base clocks for any reason: not one of them.
    assert_eq!(seconds(&newer, "below_base_clocks"), None);
    let page = newer.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_below_base_clocks_seconds_total", &[]), Some(3.0));
    scenario.gpus[0].fields.remove(&251);
    scenario.gpus[0].fields.insert(75, [9_000_000_000, 0]);
    let older = Builder::new(&scenario).start();
    older.after_passes(2);
    assert_eq!(seconds(&older, "sw_thermal_slowdown"), Some(9.0));
}

#[test]
fn a_reload_changes_what_is_read() {
    let mut host = Builder::new(&host(vec![h100(0, &[])])).start();
    host.after_passes(1);
    let mut config = host.config.gpu.clone();
    config.dcgm_compat = Some(DcgmRelease::V4_8);
    host.gpu.configure(&config);
    host.config.gpu = config.clone();
    host.until("encoder", || value(&host.parsed(Section::Gpu), "DCGM_FI_DEV_ENC_UTIL", &[]) == Some(3.0));

    config.enabled = false;
    host.gpu.configure(&config);
    assert!(matches!(host.gpu.view(), View::Absent));
    host.until("closed library", || !host.fake.is_open());

    config.enabled = true;
    config.sampling_interval = Duration::from_millis(150);
    host.gpu.configure(&config);
    let passes = host.gpu.work().0;
    host.after_passes(passes + 2);
}

#[test]
fn hopper_tells_how_busy_a_mig_device_is_and_leaves_mig_mode_without_a_reset() {
    let mut scenario = host(vec![Gpu { mig: a100_mig(0).mig, ..h100(0, &[]) }]);
    let host = Builder::new(&scenario).start();
    host.after_passes(3);
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_mig_utilization_ratio", &[("gi", "1"), ("ci", "0")]), Some(0.8));
    assert_eq!(value(&page, "citadel_gpu_utilization_ratio", &[]), None);

    scenario.gpus[0].mig.clear();
    host.fake.set(&scenario).unwrap();
    // The GPU as a whole was asked in vain before, and is asked again.
    host.until("whole GPU", || value(&host.parsed(Section::Gpu), "citadel_gpu_utilization_ratio", &[]) == Some(0.87));
    assert_eq!(value(&host.parsed(Section::Gpu), "citadel_gpu_mig_info", &[]), None);
}
