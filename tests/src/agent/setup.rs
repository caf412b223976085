//! What an agent is started with.

use std::path::{Path, PathBuf};

use super::Agent;
use crate::fd_store::FdStore;

/// What an agent is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub(super) models: Vec<(String, u16)>,
    pub(super) discovers: bool,
    pub(super) discovered: Option<u16>,
    pub(super) asks: bool,
    pub(super) probes: bool,
    pub(super) bus: Option<String>,
    pub(super) relays: bool,
    pub(super) no_programs: bool,
    pub(super) nobody: bool,
    pub(super) nvml: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) kept: Option<FdStore>,
    pub(super) ebpf: Option<String>,
}

impl Setup {
    /// No model, no discovery.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a configured model.
    #[must_use]
    pub fn model(mut self, name: &str, port: u16) -> Self {
        self.models.push((name.to_owned(), port));
        self
    }

    /// Leaves the discovered range at its default, 11400-11500.
    #[must_use]
    pub fn discovering(mut self) -> Self {
        self.discovers = true;
        self
    }

    /// Discovers this port alone.
    #[must_use]
    pub fn discovering_on(mut self, port: u16) -> Self {
        self.discovered = Some(port);
        self
    }

    /// Lets the agent ask servers for their models' names; else it does not, because most servers here follow a script.
    #[must_use]
    pub fn asking(mut self) -> Self {
        self.asks = true;
        self
    }

    /// Lets the agent probe the models' health, several times a second; else it does not, for the same reason.
    #[must_use]
    pub fn probing(mut self) -> Self {
        self.probes = true;
        self
    }

    /// Lets the agent probe, and pass on the models' own metrics.
    #[must_use]
    pub fn relaying(mut self) -> Self {
        (self.probes, self.relays) = (true, true);
        self
    }

    /// Starts the agent in the cgroup of which this is `cgroup.procs`.
    #[must_use]
    pub fn within(mut self, procs: PathBuf) -> Self {
        self.cgroup = Some(procs);
        self
    }

    /// Gives the agent this store, with what another agent has left in it.
    #[must_use]
    pub fn kept_in(mut self, store: &FdStore) -> Self {
        self.kept = Some(store.clone());
        self
    }

    /// Adds keys to the section `ebpf`.
    #[must_use]
    pub fn ebpf(mut self, keys: &str) -> Self {
        self.ebpf = Some(keys.to_owned());
        self
    }

    /// Makes the agent expect GPUs, through the NVML at this path: so it follows the kernel's log for Xid errors.
    #[must_use]
    pub fn nvml_library(mut self, path: PathBuf) -> Self {
        self.nvml = Some(path);
        self
    }

    /// Leaves the kernel alone.
    #[must_use]
    pub fn without_programs(mut self) -> Self {
        self.no_programs = true;
        self
    }

    /// Gives the agent this bus in place of the system's.
    #[must_use]
    pub fn bus(mut self, address: &str) -> Self {
        self.bus = Some(address.to_owned());
        self
    }

    /// Runs the agent as nobody, without capabilities.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.nobody = true;
        self
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; the text holds its log.
    #[must_use]
    pub fn start(self) -> Agent {
        Agent::start(&self)
    }

    /// The configuration file, for an agent on these ports.
    pub(super) fn yaml(&self, metrics_port: u16, health_port: u16, control: &Path) -> String {
        let mut yaml = format!(
            "local_collection:\n  listen_address: \"127.0.0.1\"\n  metrics_port: {metrics_port}\n  \
             health_check_port: {health_port}\n  log_level: \"INFO\"\n  collection_interval: 1\n  \
             control_socket: \"{}\"\nmodel_monitoring:\n",
            control.display()
        );
        let ports: Vec<_> = self.models.iter().map(|(name, port)| format!("{name}: {port}")).collect();
        yaml += &format!("  ports: {{ {} }}\n", ports.join(", "));
        match self.discovered {
            Some(port) => yaml += &format!("  discover: \"{port}\"\n"),
            None if self.discovers => {}
            None => yaml += "  discover: none\n",
        }
        yaml += if self.probes { "  health_interval: 200ms\n" } else { "  health_endpoints: []\n" };
        yaml += &format!("  ask_for_names: {}\n  relay: {}\n", self.asks, self.relays);
        // Asked for, because not every machine that runs the tests takes fentry.
        yaml += &if self.no_programs {
            "ebpf: { net: false, recvq: false, sched: false, syscalls: false }\n".to_owned()
        } else {
            format!(
                "ebpf: {{ {} }}\n",
                ["syscall_form: raw_tp"].into_iter().chain(self.ebpf.as_deref()).collect::<Vec<_>>().join(", ")
            )
        };
        if let Some(path) = &self.nvml {
            yaml += &format!("gpu: {{ nvml_library: \"{}\" }}\n", path.display());
        }
        yaml
    }
}
