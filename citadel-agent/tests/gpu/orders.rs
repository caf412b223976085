//! Letting go of NVML and taking it back; and Xids that only the kernel's log tells of.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use citadel_agent::gpu::View;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{h100, host, uuid};
use fake_nvml::scenario::Event;
use rustix::io::ioctl_fionread;

use crate::host::{Builder, PATIENCE, sum, value};

#[test]
fn a_release_closes_nvml_and_the_time_or_an_order_opens_it_again() {
    let host = Builder::new(&host(vec![h100(0, &[(101, 1024, 50)])])).model("mixtral", 11400, [101]).start();
    host.after_passes(2);
    assert!(host.fake.is_open());

    host.gpu.handle().release(Duration::from_secs(3600)).unwrap();
    assert!(!host.fake.is_open(), "the GPU can be reset from here on");
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_released", &[]), Some(1.0));
    assert_eq!(value(&page, "citadel_gpu_up", &[]), None, "neither up nor lost");
    assert_eq!(value(&page, "citadel_source_success", &[("source", "gpu")]), Some(1.0), "it is as ordered");

    host.gpu.handle().resume();
    host.until("reopening", || host.fake.is_open() && matches!(host.gpu.view(), View::Fresh(_)));

    host.gpu.handle().release(Duration::from_secs(1)).unwrap();
    assert!(!host.fake.is_open());
    host.until("reopening by itself", || host.fake.is_open() && matches!(host.gpu.view(), View::Fresh(_)));
}

#[test]
fn energy_of_a_time_that_nobody_saw_is_nobodys() {
    let mut scenario = host(vec![h100(0, &[(101, 1024, 100)])]);
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(2);
    host.gpu.handle().release(Duration::from_secs(3600)).unwrap();
    // A megajoule, while nobody looked; and nothing more.
    scenario.gpus[0].energy = Some([6_000_000_000, 0]);
    host.fake.set(&scenario).unwrap();
    host.gpu.handle().resume();
    host.until("reopening", || matches!(host.gpu.view(), View::Fresh(_)));
    let page = host.parsed(Section::Models);
    let energy = |model| value(&page, "citadel_model_gpu_energy_joules_total", &[("model", model)]).unwrap();
    assert!(energy("mixtral") < 100_000.0, "{}", energy("mixtral"));
    assert!(energy("") > 5_900_000.0, "{}", energy(""));
    let counter = value(&host.parsed(Section::Gpu), "citadel_gpu_energy_joules_total", &[]).unwrap();
    assert!((sum(&page, "citadel_model_gpu_energy_joules_total", &[("gpu", &uuid(0))]) - counter).abs() < 1e-3);
}

#[test]
fn xids_that_nvml_cannot_deliver_come_from_the_kernels_log_and_none_counts_twice() {
    let mut scenario = host(vec![h100(0, &[])]);
    let pci = scenario.gpus[0].pci.clone();
    scenario.events = vec![Event { gpu: 0, kind: 8, data: 31 }];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let builder = Builder::new(&scenario).pci(&pci, "active");
    // A pipe stands in for the log: records come one by one, and it can be waited for.
    let log = builder.kmsg();
    let host = builder.start();
    let mut log = OpenOptions::new().read(true).write(true).open(log).unwrap();
    let mut tell = |sequence: u32, text: &str| {
        log.write_all(format!("4,{sequence},1,-;{text}\n").as_bytes()).unwrap();
        // Two records in a pipe would be read as one.
        let begin = Instant::now();
        while ioctl_fionread(&log).unwrap() != 0 {
            assert!(begin.elapsed() < PATIENCE, "record {sequence} is not read");
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    };
    let place = pci.trim_end_matches(".0");
    tell(1, &format!("NVRM: Xid (PCI:{place}): 31, pid=1, MMU fault"));
    tell(2, "usb 1-1: new device");
    tell(3, &format!("NVRM: Xid (PCI:{place}): 79, pid=1, GPU has fallen off the bus."));
    tell(4, &format!("NVRM: Xid (PCI:{place}): 119, Timeout waiting for RPC from GSP0!"));
    tell(5, &format!("NVRM: Xid (PCI:{place}): 119, Timeout waiting for RPC from GSP0!"));
    let xids = |xid| value(&host.parsed(Section::Gpu), "citadel_gpu_xid_errors_total", &[("xid", xid)]);
    host.until("Xids", || host.gpu.xids().all().len() == 3 && xids("31").is_some());
    // Of MIG instances, and lines that are not the driver's.
    tell(6, &format!("NVRM: Xid (PCI:{place} GPU-I:05 GPU-CI:00): 94, Contained: SM"));
    tell(7, &format!("tmpfs: Unknown parameter 'NVRM: Xid (PCI:{place}): 79, pid=1'"));
    tell(8, "NVRM: Xid (PCI:0000:99:00): 79, pid=1, GPU has fallen off the bus.");
    tell(9, &format!("NVRM: Xid (PCI:{place}): 123456, no such error"));
    tell(10, &format!("NVRM: GPU {pci}: GPU has fallen off the bus."));
    let page = |name, labels: &[(&str, &str)]| value(&host.parsed(Section::Gpu), name, labels);
    host.until("last line", || page("citadel_gpu_fallen_off_bus_total", &[("gpu", &uuid(0))]) == Some(1.0));
    assert_eq!((xids("94"), xids("other")), (Some(1.0), Some(1.0)));
    for (reason, count) in [("not_at_start", 1.0), ("not_a_gpu", 1.0)] {
        assert_eq!(page("citadel_gpu_xid_lines_refused_total", &[("reason", reason)]), Some(count), "{reason}");
    }
    // Both reported 31.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((xids("31"), xids("79"), xids("119")), (Some(1.0), Some(1.0), Some(2.0)));
    fs::remove_dir_all(host.folder().join("dev")).unwrap();
}
