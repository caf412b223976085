//! What discovery found: the models of this host. Pure data, which joins and sources read.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// A process id in the agent's own pid namespace.
pub type Pid = u32;

/// The models of this host, in the order of their ports. A configured model is in it whether or not it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// One entry a port.
    pub models: Vec<Model>,
}

/// One model: a port, the name that its series carry, and, while a server listens, whose processes serve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// Value of the `model` label.
    pub name: String,
    /// The TCP port.
    pub port: u16,
    /// The listening processes and all processes of their unit or below them; empty while nothing listens, or where the
    /// agent may not look.
    pub pids: BTreeSet<Pid>,
    /// The systemd unit that the listener runs in, such as `citadel-phi3.service`.
    pub unit: Option<String>,
    /// The listener's cgroup, relative to the root of the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
}

impl Inventory {
    /// The model that a process belongs to; the first by port where several share a process.
    #[must_use]
    pub fn model_of(&self, pid: Pid) -> Option<&Model> {
        self.models.iter().find(|model| model.pids.contains(&pid))
    }

    /// The model on a port.
    #[must_use]
    pub fn model_at(&self, port: u16) -> Option<&Model> {
        self.models.iter().find(|model| model.port == port)
    }
}
