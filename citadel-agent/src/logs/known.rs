//! Attributes entries to models: discovery knows the units of models while they are listening; this remembers them,
//! because a model's last messages are written when it no longer is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{Entry, Origin};
use crate::discovery::inventory::{Inventory, Pid};
use crate::discovery::owners::Owners;
use crate::discovery::unit::Unit;
use crate::gpu::sample::{Identity, Pass};

/// Maximum number of remembered units; a host has fewer.
const MOST: usize = 1024;

/// A model, as labelled in its series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    /// The label `model`.
    pub model: String,
    /// The label `port`.
    pub port: u16,
}

/// What is known about models. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The current models by port.
    models: BTreeMap<u16, Arc<Label>>,
    /// Ports of the models of a unit, including units that have stopped.
    units: BTreeMap<String, BTreeSet<u16>>,
    /// The processes that last served a port.
    pids: BTreeMap<u16, BTreeSet<Pid>>,
    /// GPUs by their address on the PCI bus, those that are gone among them.
    gpus: BTreeMap<String, Arc<Identity>>,
    /// The GPUs that the model of a port used last, by their address.
    used: BTreeMap<u16, BTreeSet<String>>,
}

/// A GPU as an entry names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedGpu {
    /// Its address on the PCI bus, as sysfs spells it.
    pub pci: String,
    /// What NVML says that it is; `None`: nothing, so far.
    pub id: Option<Arc<Identity>>,
}

/// The model of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Of {
    /// This model.
    Model(Arc<Label>),
    /// One of several models of a unit, but it is unknown which.
    Some,
    /// No model.
    None,
}

impl Of {
    /// The model.
    #[must_use]
    pub fn label(&self) -> Option<&Arc<Label>> {
        match self {
            Self::Model(label) => Some(label),
            Self::Some | Self::None => None,
        }
    }
}

impl Known {
    /// Updates it with the results of discovery.
    pub fn learn(&self, inventory: &Inventory) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let label = |model: &crate::discovery::inventory::Model| Label { model: model.name.clone(), port: model.port };
        inner.models = inventory.models.iter().map(|model| (model.port, Arc::new(label(model)))).collect();
        for model in &inventory.models {
            if !model.pids.is_empty() {
                inner.pids.insert(model.port, model.pids.clone());
            }
        }
        let mut units: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
        for model in &inventory.models {
            if let Some(unit) = model.unit.as_deref().filter(|unit| is_dedicated(unit)) {
                units.entry(unit).or_default().insert(model.port);
            }
        }
        for (unit, ports) in units {
            if inner.units.len() < MOST || inner.units.contains_key(unit) {
                inner.units.insert(unit.to_owned(), ports);
            }
        }
    }

    /// Takes what NVML has found: which GPUs there are, and whose processes use them.
    pub fn learn_gpus(&self, sample: &Pass, owners: &Owners) {
        let mut used: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
        for gpu in &sample.gpus {
            let processes = gpu.reading.iter().flat_map(|reading| &reading.processes);
            for owner in processes.filter_map(|process| owners.of(process.pid)) {
                used.entry(owner.port).or_default().insert(gpu.id.pci.clone());
            }
        }
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A model's last words come when it no longer uses any.
        inner.used.extend(used);
        for gpu in &sample.gpus {
            if inner.gpus.get(&gpu.id.pci) != Some(&gpu.id) && inner.gpus.len() < MOST {
                inner.gpus.insert(gpu.id.pci.clone(), Arc::clone(&gpu.id));
            }
        }
    }

    /// The GPU at this address.
    #[must_use]
    pub fn gpu(&self, pci: &str) -> NamedGpu {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        NamedGpu { pci: pci.to_owned(), id: inner.gpus.get(pci).cloned() }
    }

    /// The GPU of the model of a port; `None`: it uses several, or none is known.
    #[must_use]
    pub fn only_gpu(&self, port: u16) -> Option<NamedGpu> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = inner.used.get(&port).filter(|used| used.len() == 1)?;
        let pci = used.first()?.clone();
        Some(NamedGpu { id: inner.gpus.get(&pci).cloned(), pci })
    }

    /// The current models.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<Label>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).models.values().cloned().collect()
    }

    /// The model of an entry.
    #[must_use]
    pub fn of(&self, entry: &Entry) -> Of {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entry.origin() {
            Origin::Unit(unit) => inner.of_unit(unit, entry.pid()),
            Origin::Container(name, id) => inner.of_container(name, id, entry.pid()),
            Origin::Kernel | Origin::None => Of::None,
        }
    }

    /// The model to which a process killed by the kernel belonged.
    #[must_use]
    pub fn of_process(&self, cgroup: &str, pid: Option<u32>) -> Of {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = pid.and_then(|pid| inner.of_pid(pid, |_| true)) {
            return Of::Model(label);
        }
        let unit = Unit::of(Path::new(cgroup.trim_start_matches('/')));
        unit.map_or(Of::None, |unit| inner.of_unit(&unit.name, pid))
    }
}

impl Inner {
    fn of_unit(&self, unit: &str, pid: Option<u32>) -> Of {
        let ports = match self.units.get(unit) {
            Some(ports) => ports.iter().copied().collect(),
            None => self.by_name(Unit { name: unit.to_owned(), cgroup: PathBuf::new() }.model().as_deref()),
        };
        self.one_of(&ports, pid)
    }

    fn of_container(&self, name: &str, id: &str, pid: Option<u32>) -> Of {
        // Names of container scopes of Docker, Podman, containerd and others.
        let scopes = ["docker", "libpod", "nerdctl", "cri-containerd", "crio"].map(|kind| format!("{kind}-{id}.scope"));
        let found = scopes.iter().find_map(|scope| self.units.get(scope));
        let ports = found.map_or_else(|| self.by_name(Some(name)), |ports| ports.iter().copied().collect());
        self.one_of(&ports, pid)
    }

    /// Ports of the models with this name.
    fn by_name(&self, name: Option<&str>) -> Vec<u16> {
        let same = |label: &&Arc<Label>| name == Some(label.model.as_str());
        self.models.values().filter(same).map(|label| label.port).collect()
    }

    fn one_of(&self, ports: &[u16], pid: Option<u32>) -> Of {
        let known: Vec<_> = ports.iter().filter_map(|port| self.models.get(port)).collect();
        match known.as_slice() {
            [] if ports.is_empty() => Of::None,
            [one] => Of::Model(Arc::clone(one)),
            _ => pid.and_then(|pid| self.of_pid(pid, |port| ports.contains(&port))).map_or(Of::Some, Of::Model),
        }
    }

    fn of_pid(&self, pid: u32, among: impl Fn(u16) -> bool) -> Option<Arc<Label>> {
        let port = self.pids.iter().find(|(port, pids)| among(**port) && pids.contains(&pid)).map(|(port, _)| *port)?;
        self.models.get(&port).cloned()
    }
}

/// A login session contains whatever was started in it.
fn is_dedicated(unit: &str) -> bool {
    Unit { name: unit.to_owned(), cgroup: PathBuf::new() }.is_dedicated()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::entry::tests::entry;
    use super::*;
    use crate::config::resolved::Models;
    use crate::discovery::inventory::Model;
    use crate::gpu::sample::{Gpu, Process, Reading};

    /// A model with these properties.
    pub(in crate::logs) fn model(name: &str, port: u16, unit: Option<&str>, pids: &[Pid]) -> Model {
        let models = Models { ports: [(port, name.to_owned())].into(), ..crate::config::Config::default().models };
        let mut model = Inventory::of(&models, &[], |_| None).models.remove(0);
        (model.unit, model.pids) = (unit.map(str::to_owned), pids.iter().copied().collect());
        model
    }

    fn name(of: &Of) -> &str {
        match of {
            Of::Model(label) => &label.model,
            Of::Some => "some",
            Of::None => "none",
        }
    }

    #[test]
    fn a_unit_is_its_models_also_after_it_ended() {
        let known = Known::default();
        let models = |phi3: Option<&str>| Inventory {
            models: vec![
                model("phi3", 11403, phi3, &[7]),
                model("a", 1, Some("two.service"), &[8]),
                model("b", 2, Some("two.service"), &[9]),
                model("c", 3, Some("session-1.scope"), &[10]),
                model("d", 4, Some("docker-0123.scope"), &[11]),
            ],
        };
        let of = |fields: &[(&str, &str)]| name(&known.of(&entry(fields))).to_owned();
        assert_eq!(of(&[("_SYSTEMD_UNIT", "vllm.service")]), "none");
        known.learn(&models(Some("vllm.service")));
        for _ in 0..2 {
            assert_eq!(of(&[("_SYSTEMD_UNIT", "vllm.service"), ("_PID", "99")]), "phi3");
            assert_eq!(of(&[("_PID", "1"), ("_UID", "0"), ("UNIT", "vllm.service")]), "phi3");
            assert_eq!(of(&[("_SYSTEMD_UNIT", "two.service"), ("_PID", "9")]), "b");
            assert_eq!(of(&[("_SYSTEMD_UNIT", "two.service"), ("_PID", "99")]), "some");
            assert_eq!(of(&[("_SYSTEMD_UNIT", "session-1.scope"), ("_PID", "10")]), "none");
            // A unit's and a container's name may be the model's.
            assert_eq!(of(&[("_SYSTEMD_UNIT", "citadel-phi3.service")]), "phi3");
            assert_eq!(of(&[("_UID", "0"), ("CONTAINER_NAME", "x"), ("CONTAINER_ID_FULL", "0123")]), "d");
            assert_eq!(of(&[("_UID", "0"), ("CONTAINER_NAME", "c"), ("CONTAINER_ID_FULL", "99")]), "c");
            assert_eq!(of(&[("_SYSTEMD_UNIT", "sshd.service")]), "none");
            assert_eq!(name(&known.of_process("/system.slice/vllm.service", Some(99))), "phi3");
            assert_eq!(name(&known.of_process("/user.slice/user-0.slice/session-1.scope", Some(10))), "c");
            assert_eq!(name(&known.of_process("/", None)), "none");
            // It has ended.
            known.learn(&models(None));
        }
    }

    #[test]
    fn a_line_has_the_gpu_that_it_names_and_a_model_with_one_gpu_has_that() {
        let known = Known::default();
        let inventory =
            Inventory { models: vec![model("phi3", 11403, None, &[7]), model("mixtral", 11400, None, &[8, 9])] };
        let gpu = |index: u32, pids: &[u32]| {
            let process = |pid: &u32| Process { pid: *pid, memory: None, sm: None, codecs: None, mig: None };
            let reading = Reading { processes: pids.iter().map(process).collect(), ..Reading::default() };
            let id = Identity {
                uuid: format!("GPU-{index}"),
                index,
                pci: format!("0000:{index:02x}:00.0"),
                ..Identity::default()
            };
            Gpu { id: Arc::new(id), reading: Ok(Box::new(reading)), energy: Vec::new() }
        };
        let learn = |gpus| known.learn_gpus(&Pass { gpus, ..Pass::default() }, &Owners::new(&inventory));
        assert_eq!(known.gpu("0000:01:00.0"), NamedGpu { pci: "0000:01:00.0".to_owned(), id: None });
        learn(vec![gpu(0, &[8]), gpu(1, &[9, 99]), gpu(2, &[7])]);
        assert_eq!(known.gpu("0000:01:00.0").id.unwrap().uuid, "GPU-1");
        assert_eq!(known.only_gpu(11400), None, "it has two");
        assert_eq!(known.only_gpu(11403).unwrap().id.unwrap().index, 2);
        // Its process has ended, and GPU 2 no longer answers.
        learn(vec![gpu(0, &[8])]);
        assert_eq!(known.only_gpu(11403).unwrap().id.unwrap().index, 2);
    }

    #[test]
    fn units_are_bounded() {
        let known = Known::default();
        for i in 0..2 * MOST {
            let one = model("m", 1, Some(&format!("run-{i}.service")), &[]);
            known.learn(&Inventory { models: vec![one] });
        }
        assert_eq!(known.0.lock().unwrap().units.len(), MOST);
    }
}
