//! NVLinks that come and go.

use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{b200, gb200, h100, host, host_13};

use crate::host::{Builder, Host, value};

fn up(host: &Host, link: &str) -> Option<f64> {
    value(&host.parsed(Section::Gpu), "citadel_gpu_nvlink_up", &[("link", link)])
}

fn bytes(host: &Host, link: &str) -> Option<f64> {
    let labels = [("link", link), ("direction", "transmit")];
    value(&host.parsed(Section::Gpu), "citadel_gpu_nvlink_bytes_total", &labels)
}

#[test]
fn links_that_come_up_later_are_seen_and_one_that_flaps_returns() {
    let mut scenario = host(vec![h100(0, &[])]);
    // Nothing is trained yet when the agent starts.
    scenario.gpus[0].links_down = vec![0, 1];
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    assert_eq!((up(&host, "0"), up(&host, "1"), up(&host, "2")), (Some(0.0), Some(0.0), None));
    assert_eq!(bytes(&host, "0"), None);

    scenario.gpus[0].links_down = vec![1];
    host.fake.set(&scenario).unwrap();
    host.until("first link", || up(&host, "0") == Some(1.0) && bytes(&host, "0").is_some());
    assert_eq!(bytes(&host, "1"), None);

    // Down and up again, three times.
    for _ in 0..3 {
        scenario.gpus[0].links_down = vec![0, 1];
        host.fake.set(&scenario).unwrap();
        host.until("fall", || up(&host, "0") == Some(0.0) && bytes(&host, "0").is_none());
        scenario.gpus[0].links_down = Vec::new();
        host.fake.set(&scenario).unwrap();
        host.until("return", || {
            up(&host, "0") == Some(1.0) && bytes(&host, "0").is_some() && bytes(&host, "1").is_some()
        });
    }
}

#[test]
fn a_host_of_36_links_shows_all_of_them() {
    let mut scenario = host_13(vec![b200(0, &[])]);
    scenario.gpus[0].links = 36;
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    assert_eq!((up(&host, "35"), up(&host, "36")), (Some(1.0), None));
    assert!(bytes(&host, "35").is_some());
}

#[test]
fn blackwells_own_error_counters_are_used() {
    let host = Builder::new(&host_13(vec![b200(0, &[])])).start();
    host.after_passes(2);
    let page = host.parsed(Section::Gpu);
    let errors = |kind| value(&page, "citadel_gpu_nvlink_errors_total", &[("link", "17"), ("kind", kind)]);
    assert_eq!((errors("replay"), errors("receive"), errors("symbol")), (None, Some(3.0), Some(10.0)));
    let recoveries = [("link", "17"), ("result", "successful")];
    assert_eq!(value(&page, "citadel_gpu_nvlink_recoveries_total", &recoveries), Some(8.0));
    let ber = |kind| value(&page, "citadel_gpu_nvlink_bit_error_ratio", &[("link", "0"), ("kind", kind)]).unwrap();
    assert!((ber("effective") - 3e-12).abs() < 1e-20 && (ber("symbol") - 15e-254).abs() < 1e-260);
    assert_eq!(value(&page, "citadel_gpu_nvlink_version", &[("link", "0")]), Some(5.0));
    assert_eq!(value(&page, "citadel_gpu_nvlink_speed_bytes_per_second", &[("link", "0")]), Some(5e10));
    assert!(!page.samples.keys().any(|(name, _)| name == "citadel_gpu_nvlink_fec_errors_total"), "off by default");
}

/// At 100 GB/s, a link passes 2^56 bytes after eight days.
#[test]
fn bytes_of_a_link_are_read_after_a_year_at_full_speed() {
    let mut scenario = host_13(vec![b200(0, &[])]);
    let year = 3_153_600_000_000_000_000;
    // NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES and NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES.
    scenario.gpus[0].link_fields.extend([(202, [year, 0]), (204, [u64::MAX, 0])]);
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    let page = host.parsed(Section::Gpu);
    let bytes =
        |direction| value(&page, "citadel_gpu_nvlink_raw_bytes_total", &[("link", "17"), ("direction", direction)]);
    assert_eq!((bytes("transmit"), bytes("receive")), (Some(year as f64), None));
}

#[test]
fn chip_to_chip_links_are_read_without_any_nvlink() {
    let mut scenario = host_13(vec![gb200(0, &[])]);
    scenario.gpus[0].links = 0;
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_c2c_link_up", &[("link", "1")]), Some(1.0));
    assert_eq!(value(&page, "citadel_gpu_c2c_errors_total", &[("link", "0"), ("kind", "replay")]), Some(2.0));
    assert_eq!(value(&page, "citadel_gpu_module_power_watts", &[]), Some(1500.0));
}
