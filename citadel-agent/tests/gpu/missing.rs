//! GPUs that are lost, or that NVML does not have.

use citadel_agent::config::resolved::DcgmRelease;
use citadel_agent::gpu::View;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{h100, host, many, uuid};
use fake_nvml::scenario::Event;

use crate::host::{Builder, Host, set_pci, value};

fn success(host: &Host) -> Option<f64> {
    value(&host.parsed(Section::Gpu), "citadel_source_success", &[("source", "gpu")])
}

#[test]
fn all_gpus_lost_is_a_failure_and_one_is_named() {
    let mut scenario = many(8, 1);
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    assert_eq!((success(&host), host.gpu.status()["status"].as_str()), (Some(1.0), Some("ok")));

    scenario.gpus[3].lost = true;
    host.fake.set(&scenario).unwrap();
    host.until("loss", || host.gpu.status()["status"] == "partly");
    let status = host.gpu.status();
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("1 of 8 GPUs are lost") && reason.contains(&scenario.gpus[3].pci), "{reason}");
    assert_eq!(success(&host), Some(1.0), "the source is read; the GPU's own series says that it is lost");

    for gpu in &mut scenario.gpus {
        gpu.lost = true;
    }
    host.fake.set(&scenario).unwrap();
    host.until("loss of all", || success(&host) == Some(0.0));
    let status = host.gpu.status();
    assert_eq!(status["status"], "lost");
    assert!(status["reason"].as_str().unwrap().contains("8 of 8"), "{status}");
    let up = host.parsed(Section::Gpu);
    assert_eq!(crate::host::sum(&up, "citadel_gpu_up", &[]), 0.0);
    assert_eq!(up.samples.keys().filter(|(name, _)| name == "citadel_gpu_up").count(), 8);
}

#[test]
fn a_gpu_on_the_bus_that_nvml_does_not_have_is_reported() {
    let scenario = host(vec![h100(0, &[])]);
    let other = "0000:99:00.0";
    let passed_on = "0000:9a:00.0";
    let builder =
        Builder::new(&scenario).pci(&scenario.gpus[0].pci, "active").pci(other, "active").pci(passed_on, "active");
    let host = builder.start();
    let driver = host.folder().join("sys/bus/pci/devices").join(passed_on).join("driver");
    std::os::unix::fs::symlink("../../../../bus/pci/drivers/vfio-pci", driver).unwrap();
    host.until("missing GPU", || value(&host.parsed(Section::Gpu), "citadel_gpu_missing", &[]) == Some(1.0));
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_missing", &[("pci_bus_id", other)]), Some(1.0));
    let status = host.gpu.status();
    assert!(status["status"] == "partly" && status["reason"].as_str().unwrap().contains(other), "{status}");
}

#[test]
fn the_xid_of_a_lost_gpu_stays_under_dcgms_name() {
    let mut scenario = host(vec![h100(0, &[]), h100(1, &[])]);
    let host = Builder::new(&scenario).configured(|config| config.gpu.dcgm_compat = Some(DcgmRelease::V4_8)).start();
    host.after_passes(2);
    let xid = |host: &Host| {
        let labels = [("UUID", &*uuid(1)), ("err_code", "79"), ("err_msg", "GPU has fallen off the bus")];
        value(&host.parsed(Section::Gpu), "DCGM_FI_DEV_XID_ERRORS", &labels)
    };
    scenario.events = vec![Event { gpu: 1, kind: 8, data: 79 }];
    host.fake.set(&scenario).unwrap();
    host.until("Xid", || xid(&host) == Some(79.0));
    scenario.gpus[1].lost = true;
    host.fake.set(&scenario).unwrap();
    host.until("loss", || value(&host.parsed(Section::Gpu), "citadel_gpu_up", &[("index", "1")]) == Some(0.0));
    assert_eq!(xid(&host), Some(79.0));
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "DCGM_FI_DEV_SM_CLOCK", &[("gpu", "1")]), None);
    assert_eq!(value(&page, "DCGM_FI_DEV_SM_CLOCK", &[("DCGM_FI_DRIVER_VERSION", "550.54.15")]), Some(1965.0));
    // And when the driver is gone as a whole.
    scenario.gpus[0].lost = true;
    host.fake.set(&scenario).unwrap();
    host.until("loss of all", || matches!(host.gpu.view(), View::Lost { .. }));
    assert_eq!(xid(&host), Some(79.0));
}

#[test]
fn the_index_of_a_gpu_that_sleeps_is_no_others() {
    let mut scenario = host(vec![h100(0, &[]), h100(1, &[]), h100(2, &[])]);
    // The first sleeps, and the second does not answer.
    scenario.gpus[1].lost = true;
    let pci: Vec<_> = scenario.gpus.iter().map(|gpu| gpu.pci.clone()).collect();
    let builder = Builder::new(&scenario).pci(&pci[0], "suspended").pci(&pci[1], "active").pci(&pci[2], "active");
    let host = builder.start();
    host.after_passes(2);
    let up = |index| value(&host.parsed(Section::Gpu), "citadel_gpu_up", &[("index", index)]);
    assert_eq!((up("0"), up("1"), up("2")), (None, Some(0.0), Some(1.0)));
    set_pci(host.folder(), &pci[0], "active");
    host.until("awakening", || up("0") == Some(1.0));
    assert_eq!((up("1"), up("2")), (Some(0.0), Some(1.0)));
}
