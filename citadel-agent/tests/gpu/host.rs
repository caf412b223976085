//! A host with a fake driver, sampled within this process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
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
use fake_nvml::install::Installed;
use fake_nvml::scenario::Scenario;
use tempfile::TempDir;

use crate::support::origin::{Nothing, text};
use crate::support::text::{Parsed, parse};

/// Longer than anything here should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A host whose GPUs are sampled.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) roots: Roots,
    pub(crate) inventory: Inventory,
    pub(crate) gpu: Gpu,
    pub(crate) fake: Installed,
    folder: TempDir,
}

/// What makes a [`Host`].
pub(crate) struct Builder {
    scenario: Scenario,
    missing: Vec<&'static str>,
    config: Config,
    inventory: Inventory,
    folder: TempDir,
}

impl Builder {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut config = Config::default();
        config.gpu.sampling_interval = Duration::from_millis(100);
        Self {
            scenario: scenario.clone(),
            missing: Vec::new(),
            config,
            inventory: Inventory::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A library without these functions.
    pub(crate) fn without(mut self, missing: &[&'static str]) -> Self {
        self.missing = missing.to_vec();
        self
    }

    /// A model with these processes.
    pub(crate) fn model(mut self, name: &str, port: u16, pids: impl IntoIterator<Item = u32>) -> Self {
        let pids: BTreeSet<u32> = pids.into_iter().collect();
        self.inventory.models.push(Model {
            name: name.to_owned(),
            port,
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
        });
        self
    }

    pub(crate) fn configured(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// A GPU in sysfs, awake or not.
    pub(crate) fn pci(self, address: &str, status: &str) -> Self {
        set_pci(self.folder.path(), address, status);
        self
    }

    /// A pipe in the place of the kernel's log; where it is.
    pub(crate) fn kmsg(&self) -> PathBuf {
        let path = self.folder.path().join("dev/kmsg");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    pub(crate) fn start(self) -> Host {
        let Builder { scenario, missing, mut config, inventory, folder } = self;
        let fake = Installed::new(folder.path(), &scenario, &missing).unwrap();
        config.gpu.nvml_library = Some(fake.library());
        // A tree of our own, so that no GPU of the machine is seen.
        let roots = Roots::below(folder.path());
        fs::create_dir_all(roots.proc.join("sys/kernel")).unwrap();
        fs::write(roots.proc.join("sys/kernel/hostname"), "host-1\n").unwrap();
        let mut gpu = Gpu::start(&config.gpu, &roots).unwrap();
        gpu.know(&inventory);
        Host { config, roots, inventory, gpu, fake, folder }
    }
}

pub(crate) fn set_pci(folder: &Path, address: &str, status: &str) {
    let folder = folder.join("sys/bus/pci/devices").join(address);
    fs::create_dir_all(folder.join("power")).unwrap();
    fs::write(folder.join("vendor"), "0x10de\n").unwrap();
    fs::write(folder.join("class"), "0x030200\n").unwrap();
    fs::write(folder.join("power/runtime_status"), format!("{status}\n")).unwrap();
}

impl Host {
    /// The text of a section's page now.
    pub(crate) fn page(&self, section: Section) -> String {
        let mut nothing = Nothing::default();
        let mut origin = Origin {
            config: &self.config,
            roots: &self.roots,
            inventory: &self.inventory,
            gpu: Some(&self.gpu),
            ..nothing.origin()
        };
        let page = sources::collect(Some(section), &mut origin, &mut Health::default());
        text(page, Format::Text)
    }

    pub(crate) fn parsed(&self, section: Section) -> Parsed {
        parse(&self.page(section))
    }

    /// Waits until so many passes are done since the agent started.
    pub(crate) fn after_passes(&self, passes: u64) -> &Self {
        self.until("passes over the GPUs", || self.gpu.work().0 >= passes && matches!(self.gpu.view(), View::Fresh(_)))
    }

    /// Waits until `met`.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut met: impl FnMut() -> bool) -> &Self {
        let begin = Instant::now();
        while !met() {
            assert!(
                begin.elapsed() < PATIENCE,
                "no {what} within {PATIENCE:?}; the page:\n{}",
                self.page(Section::Gpu)
            );
            thread::sleep(Duration::from_millis(10));
        }
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A value by a name and some of its labels; the labels must leave one series.
#[track_caller]
pub(crate) fn value(parsed: &Parsed, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = (parsed.samples.iter()).filter(|((other, own), _)| {
        other == name && labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v))
    });
    let value = found.next().map(|(_, value)| *value);
    assert_eq!(found.next(), None, "{name}{labels:?} is more than one series");
    value
}

/// The sum of the series with these labels.
pub(crate) fn sum(parsed: &Parsed, name: &str, labels: &[(&str, &str)]) -> f64 {
    let found = (parsed.samples.iter()).filter(|((other, own), _)| {
        other == name && labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v))
    });
    found.map(|(_, value)| value).sum()
}
