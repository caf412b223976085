//! The machine's own GPUs and driver: `cargo xtask test --gpu` runs this where there are any. What the agent reads is held
//! against `nvidia-smi` in the same second, and a load of ours must be found on the GPU under its model's name.

mod cuda;

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::discovery::inventory::{Inventory, Model};
use citadel_agent::gpu::{Gpu, View};
use citadel_agent::host::Roots;
use citadel_agent::metrics::catalogue::Section;
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::{self, Health, Origin};
use support::origin::{Nothing, text};
use support::text::{Parsed, parse};

const PATIENCE: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;

struct Host {
    config: Config,
    roots: Roots,
    inventory: Inventory,
    gpu: Gpu,
}

impl Host {
    /// Samples the GPUs; this process is a model.
    fn start() -> Self {
        let mut config = Config::default();
        config.gpu.sampling_interval = Duration::from_millis(500);
        let roots = Roots::default();
        let pids = [std::process::id()].into();
        let model = Model {
            name: "burner".to_owned(),
            port: 11400,
            listens: true,
            pids,
            main: None,
            exe: None,
            unit: None,
            cgroup: None,
            served: None,
            unnamed: false,
            dormant: false,
            engine: None,
        };
        let inventory = Inventory { models: vec![model] };
        let mut gpu = Gpu::start(&config.gpu, &roots).unwrap();
        gpu.know(&inventory);
        let host = Self { config, roots, inventory, gpu };
        host.until("sample", |_| matches!(host.gpu.view(), View::Fresh(_)));
        host
    }

    fn parsed(&self) -> Parsed {
        let mut parsed = Parsed::default();
        for section in [Section::Gpu, Section::Models] {
            let mut nothing = Nothing::default();
            let mut origin = Origin {
                config: &self.config,
                roots: &self.roots,
                inventory: &self.inventory,
                gpu: Some(&self.gpu),
                ..nothing.origin()
            };
            let page = sources::collect(Some(section), &mut origin, &mut Health::default());
            let text = text(page, Format::Text);
            parsed.samples.extend(parse(&text).samples);
        }
        parsed
    }

    #[track_caller]
    fn until(&self, what: &str, met: impl Fn(&Parsed) -> bool) {
        let begin = Instant::now();
        while !met(&self.parsed()) {
            assert!(begin.elapsed() < PATIENCE, "no {what}: {:?}", self.gpu.view());
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The sum of the series with these labels.
fn sum(parsed: &Parsed, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |own: &support::text::Labels| labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v));
    parsed.samples.iter().filter(|((other, own), _)| other == name && fits(own)).map(|(_, value)| value).sum()
}

/// What `nvidia-smi` says of each GPU: its UUID and the numbers of `fields`; `[N/A]` is none.
fn nvidia_smi(fields: &str) -> Vec<(String, Vec<Option<f64>>)> {
    let output = Command::new("nvidia-smi")
        .arg(format!("--query-gpu=uuid,{fields}"))
        .arg("--format=csv,noheader,nounits")
        .output()
        .expect("nvidia-smi is part of the driver");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let mut fields = line.split(", ");
        let uuid = fields.next().unwrap().to_owned();
        (uuid, fields.map(|field| field.trim().parse().ok()).collect())
    };
    text.lines().map(row).collect()
}

#[test]
fn readings_are_those_of_nvidia_smi_in_the_same_second() {
    let host = Host::start();
    /// Labels beside the GPU's.
    type Labels = [(&'static str, &'static str)];
    // Name, factor to nvidia-smi's unit, and by how much two readings a second apart may differ.
    let compared: [(&str, &Labels, f64, f64); 6] = [
        ("citadel_gpu_memory_total_bytes", &[], 1.0 / 1048576.0, 1.0),
        ("citadel_gpu_memory_used_bytes", &[], 1.0 / 1048576.0, 64.0),
        ("citadel_gpu_power_limit_watts", &[], 1.0, 0.01),
        ("citadel_gpu_power_watts", &[], 1.0, 60.0),
        ("citadel_gpu_temperature_celsius", &[("sensor", "gpu")], 1.0, 3.0),
        ("citadel_gpu_clock_hertz", &[("clock", "memory")], 1e-6, 1.0),
    ];
    let fields = "memory.total,memory.used,enforced.power.limit,power.draw,temperature.gpu,clocks.mem";
    let smi = nvidia_smi(fields);
    thread::sleep(Duration::from_millis(600));
    let page = host.parsed();
    for (uuid, values) in smi {
        for ((name, labels, factor, tolerance), theirs) in compared.iter().zip(values) {
            let Some(theirs) = theirs else { continue };
            let labels: Vec<_> = labels.iter().copied().chain([("gpu", uuid.as_str())]).collect();
            let ours = sum(&page, name, &labels) * factor;
            println!("{uuid} {name}: ours {ours}, nvidia-smi {theirs}");
            assert!((ours - theirs).abs() <= *tolerance, "{uuid} {name}: ours {ours}, nvidia-smi {theirs}");
        }
    }
}

#[test]
fn a_load_is_found_under_its_models_name() {
    let host = Host::start();
    let burn = cuda::burn(GIB, Duration::from_secs(20));
    let burner = [("model", "burner")];
    host.until("memory of the load", |page| sum(page, "citadel_model_gpu_memory_bytes", &burner) >= GIB as f64);
    host.until("SM time of the load", |page| sum(page, "citadel_model_gpu_sm_ratio", &burner) >= 0.5);
    host.until("energy of the load", |page| sum(page, "citadel_model_gpu_energy_joules_total", &burner) > 50.0);
    burn.join().unwrap();

    // Two pages are read one after the other, so a pass may lie between them.
    host.until("equal sums", |page| {
        let counter = sum(page, "citadel_gpu_energy_joules_total", &[]);
        let split = sum(page, "citadel_model_gpu_energy_joules_total", &[]);
        let used = sum(page, "citadel_gpu_memory_used_bytes", &[]);
        let shares = sum(page, "citadel_model_gpu_memory_bytes", &[]);
        (counter - split).abs() < 1e-3 * 8.0 && (used - shares).abs() < 1.0
    });
    for (call, cost) in host.gpu.costs() {
        let count = cost.seconds.count();
        println!(
            "{call}: {count} calls, {:.1} us each, {} failed",
            cost.seconds.sum_ns() as f64 / 1e3 / count as f64,
            cost.errors
        );
    }
    let (passes, cpu) = host.gpu.work();
    println!("{passes} passes, {:.3} ms of CPU each", cpu * 1e3 / passes as f64);
}
