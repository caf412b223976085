//! 64 GPUs with 200 processes each.

use std::time::Duration;

use citadel_agent::config::Config;
use citadel_agent::metrics::catalogue::Section;
use fake_nvml::hosts::{many, uuid};

use crate::host::{Builder, sum, value};

const GPUS: usize = 64;
const PROCESSES: u32 = 200;

#[test]
fn sums_over_models_are_the_devices() {
    let mut scenario = many(GPUS, PROCESSES);
    for (index, gpu) in scenario.gpus.iter_mut().enumerate() {
        // 0.5 % each is below what NVML can say, so a few have some percent.
        for process in gpu.processes.iter_mut().take(index % 5) {
            process.sm = Some(17);
        }
        // What was counted and what was split are read in the same pass, but shown by two pages.
        gpu.energy = Some([1_000_000_000 + index as u64, 1_000_003]);
    }
    // Every other process is a model's, over all GPUs; the rest are strangers.
    let all = GPUS as u32 * PROCESSES;
    let of = |remainder: u32| (1..=all).filter(move |pid| pid % 4 == remainder);
    // Two pages of one pass are wanted, and each has some ten thousand lines.
    let slowly = |config: &mut Config| config.gpu.sampling_interval = Duration::from_secs(4);
    let host =
        Builder::new(&scenario).configured(slowly).model("mixtral", 11400, of(0)).model("phi3", 11403, of(1)).start();
    host.after_passes(3);

    // The pages are two reads: until both are of one pass.
    let mut of_one_pass = None;
    host.until("two pages of one pass", || {
        let before = host.gpu.work().0;
        let pages = (host.parsed(Section::Gpu), host.parsed(Section::Models));
        of_one_pass = (host.gpu.work().0 == before).then_some(pages);
        of_one_pass.is_some()
    });
    let (page, models) = of_one_pass.unwrap();
    let processes = page.samples.keys().filter(|(name, _)| name == "citadel_gpu_process_memory_bytes").count();
    assert_eq!(processes, GPUS * PROCESSES as usize, "every process is there");
    for index in 0..GPUS {
        let uuid = uuid(index);
        let gpu = [("gpu", uuid.as_str())];
        let used = value(&page, "citadel_gpu_memory_used_bytes", &gpu).unwrap();
        assert_eq!(sum(&models, "citadel_model_gpu_memory_bytes", &gpu), used, "{uuid}");
        let energy = value(&page, "citadel_gpu_energy_joules_total", &gpu).unwrap();
        let split = sum(&models, "citadel_model_gpu_energy_joules_total", &gpu);
        assert!((split - energy).abs() < 1e-3, "{uuid}: {split} of {energy}");
        let of_model = |model| {
            let labels = [("gpu", uuid.as_str()), ("model", model)];
            (
                value(&models, "citadel_model_gpu_memory_bytes", &labels).unwrap(),
                value(&models, "citadel_model_gpu_energy_joules_total", &labels).unwrap(),
            )
        };
        assert!(of_model("mixtral").0 > 0.0 && of_model("phi3").0 > 0.0 && of_model("").0 > of_model("phi3").0);
        // Pid 1 of each hundred is phi3's, and the first of those that had the SMs where any had.
        assert_eq!(of_model("phi3").1 > 0.0, index % 5 > 0, "{uuid}");
    }
}
