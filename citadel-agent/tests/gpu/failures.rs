//! Drivers that fail, hang, lack things or sleep.

use std::fs;
use std::time::{Duration, Instant};

use citadel_agent::config::resolved;
use citadel_agent::gpu::{Gpu, View};
use citadel_agent::host::Roots;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{h100, host, uuid};
use fake_nvml::scenario::{Hang, Scenario};

use crate::host::{Builder, Host, set_pci, value};

fn two_gpus() -> Scenario {
    host(vec![h100(0, &[(101, 1024, 50)]), h100(1, &[(102, 2048, 25)])])
}

fn up(host: &Host, index: &str) -> Option<f64> {
    value(&host.parsed(Section::Gpu), "citadel_gpu_up", &[("index", index)])
}

#[test]
fn no_scrape_waits_for_a_driver_that_hangs() {
    let mut scenario = two_gpus();
    let host = Builder::new(&scenario).model("mixtral", 11400, [101]).start();
    host.after_passes(2);
    let name = "nvmlDeviceGetFieldValues";
    scenario.hang = Some(Hang { call: name.to_owned(), gpu: 1, seconds: 60 });
    host.fake.set(&scenario).unwrap();
    let hung = Instant::now();

    // From the first moment on, and not only once the hang is known.
    let mut slowest = Duration::ZERO;
    host.until("sign of the hang", || {
        for section in [Section::Models, Section::Gpu] {
            let begin = Instant::now();
            _ = host.page(section);
            slowest = slowest.max(begin.elapsed());
        }
        up(&host, "0") == Some(0.0)
    });
    // Had one scrape waited, the call would have come back before it.
    assert!(matches!(host.gpu.view(), View::Lost { .. }));
    assert!(slowest < Duration::from_secs(20) && hung.elapsed() < Duration::from_secs(50), "{slowest:?}");
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_source_success", &[("source", "gpu")]), Some(0.0));
    assert_eq!(value(&page, "citadel_gpu_memory_used_bytes", &[("index", "0")]), None, "nothing old is shown as new");
    let View::Lost { reason, .. } = host.gpu.view() else { panic!("not lost") };
    assert!(reason.contains(name), "{reason}");
    // A release cannot be had while a call is out, and says so.
    let refused = host.gpu.handle().release(Duration::from_secs(1)).unwrap_err();
    assert!(refused.contains(name), "{refused}");

    scenario.hang = None;
    host.fake.set(&scenario).unwrap();
    host.until("recovery", || up(&host, "0") == Some(1.0) && up(&host, "1") == Some(1.0));
}

#[test]
fn a_lost_gpu_that_comes_back_is_measured_again() {
    let mut scenario = two_gpus();
    let host = Builder::new(&scenario).model("mixtral", 11400, [102]).start();
    host.after_passes(3);
    scenario.gpus[1].lost = true;
    host.fake.set(&scenario).unwrap();
    host.until("loss", || up(&host, "1") == Some(0.0));
    assert_eq!(up(&host, "0"), Some(1.0), "the other goes on");
    scenario.gpus[1].lost = false;
    scenario.gpus[1].energy = Some([9_000_000_000, 0]);
    host.fake.set(&scenario).unwrap();
    host.until("return", || up(&host, "1") == Some(1.0));
    // The four megajoules of the time in which nobody looked.
    let labels = [("model", "mixtral"), ("gpu", &*uuid(1))];
    let charged = value(&host.parsed(Section::Models), "citadel_model_gpu_energy_joules_total", &labels);
    assert!(charged.is_some_and(|joules| joules > 0.0 && joules < 100_000.0), "{charged:?}");
}

#[test]
fn a_gpu_that_never_answered_is_said_without_its_name() {
    let mut scenario = two_gpus();
    scenario.gpus[0].lost = true;
    let host = Builder::new(&scenario).start();
    host.after_passes(1);
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_up", &[("gpu", ""), ("index", "0")]), Some(0.0));
    assert_eq!(value(&page, "citadel_gpu_up", &[("gpu", &uuid(1)), ("index", "1")]), Some(1.0));
}

#[test]
fn a_driver_that_is_not_loaded_yet_is_tried_again() {
    // NVML_ERROR_DRIVER_NOT_LOADED.
    let absent = Scenario { init: 9, ..two_gpus() };
    let host = Builder::new(&absent).start();
    host.until("failure", || matches!(host.gpu.view(), View::Lost { .. }));
    let View::Lost { reason, .. } = host.gpu.view() else { panic!("not lost") };
    assert!(reason.contains("modprobe nvidia"), "{reason}");
    host.fake.set(&two_gpus()).unwrap();
    // Before the half minute is over.
    host.gpu.handle().resume();
    host.until("driver", || up(&host, "0") == Some(1.0));
}

#[test]
fn a_driver_that_goes_takes_its_gpus_with_it_and_no_counter_back() {
    let scenario = two_gpus();
    let host = Builder::new(&scenario).start();
    host.after_passes(2);
    // All GPUs, and the driver itself: what a driver's removal looks like.
    host.fake.set(&Scenario { gpus: Vec::new(), ..scenario.clone() }).unwrap();
    host.until("loss", || up(&host, "0") == Some(0.0) && up(&host, "1") == Some(0.0));
    let energy = |host: &Host| {
        let labels = [("model", ""), ("gpu", &*uuid(0))];
        value(&host.parsed(Section::Models), "citadel_model_gpu_energy_joules_total", &labels)
    };
    host.fake.set(&scenario).unwrap();
    host.until("return", || up(&host, "0") == Some(1.0));
    assert!(energy(&host) > Some(5_000_000.0));
}

#[test]
fn a_library_that_cannot_be_closed_panics_nowhere() {
    let missing = ["nvmlShutdown", "nvmlEventSetFree", "nvmlGpmSampleFree"];
    let host = Builder::new(&two_gpus()).without(&missing).start();
    host.after_passes(2);
    assert_eq!(up(&host, "0"), Some(1.0));
    // Closing is what the wrapper panics in.
    host.gpu.handle().release(Duration::from_secs(60)).unwrap();
    host.gpu.handle().resume();
    let passes = host.gpu.work().0;
    host.after_passes(passes + 2);
}

#[test]
fn processes_that_come_while_they_are_counted_are_not_missed() {
    let mut scenario = two_gpus();
    scenario.gpus[0].races = 3;
    let host = Builder::new(&scenario).start();
    host.after_passes(5);
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_process_memory_bytes", &[("pid", "101")]), Some(1024.0 * 1048576.0));
    // The second attempt found them; the first was said to be too small.
    let errors = value(&page, "citadel_gpu_nvml_errors_total", &[("call", "nvmlDeviceGetComputeRunningProcesses_v3")]);
    assert!(errors >= Some(1.0), "{errors:?}");
}

#[test]
fn newer_drivers_number_their_fields_otherwise() {
    let mut scenario = host(vec![h100(0, &[])]);
    scenario.driver = "580.95.05".to_owned();
    let fields = &mut scenario.gpus[0].fields;
    // 251 is about power smoothing there, and what it was is 269.
    let moved = fields.remove(&251).unwrap();
    fields.insert(269, moved);
    fields.insert(251, [123, 0]);
    let host = Builder::new(&scenario).start();
    host.after_passes(1);
    let labels = [("reason", "sw_thermal_slowdown")];
    assert_eq!(value(&host.parsed(Section::Gpu), "citadel_gpu_throttle_seconds_total", &labels), Some(0.5));
}

#[test]
fn a_gpu_that_sleeps_is_left_alone_until_it_wakes() {
    let mut scenario = two_gpus();
    let asleep = scenario.gpus[1].pci.clone();
    // Whatever touched it would not come back.
    scenario.hang = Some(Hang { call: "*".to_owned(), gpu: 1, seconds: 600 });
    let host = Builder::new(&scenario).pci(&scenario.gpus[0].pci, "active").pci(&asleep, "suspended").start();
    host.after_passes(5);
    let page = host.parsed(Section::Gpu);
    assert_eq!(value(&page, "citadel_gpu_up", &[]), Some(1.0), "the one that is awake");
    assert_eq!(value(&page, "citadel_gpu_suspended", &[("pci_bus_id", &asleep)]), Some(1.0));

    scenario.hang = None;
    host.fake.set(&scenario).unwrap();
    set_pci(host.folder(), &asleep, "active");
    host.until("awakening", || up(&host, "1") == Some(1.0));
    assert_eq!(value(&host.parsed(Section::Gpu), "citadel_gpu_suspended", &[]), None);
}

#[test]
fn a_host_without_gpus_has_no_series_and_one_without_the_library_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let roots = Roots::below(folder.path());
    // The name by which the loader looks on its own; this machine may have one, and then it is another test's business.
    let named = resolved::Gpu { nvml_library: Some(at("libnvidia-ml.so.1")), ..resolved::Gpu::default() };
    let wait = |gpu: &Gpu| {
        let begin = Instant::now();
        loop {
            match gpu.view() {
                View::Lost { reason, .. } => return reason,
                _ => assert!(begin.elapsed() < crate::host::PATIENCE),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let gpu = Gpu::start(&named, &roots).unwrap();
    let reason = wait(&gpu);
    assert!(reason.contains("libnvidia-ml.so.1"), "{reason}");

    let disabled = resolved::Gpu { enabled: false, ..named };
    let gpu = Gpu::start(&disabled, &roots).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(matches!(gpu.view(), View::Absent));
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is made");
}
