//! A discovered server on a port. Plain data, independent of configured names.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::engine::Engine;
use super::unit::Unit;
use crate::host::pid::Process;

/// A server that is listening on a port, or has stopped recently.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// The port.
    pub port: u16,
    /// Whether it is listening now.
    pub listens: bool,
    /// The process that has held the listening socket longest; `None` if access is denied, or if only a service manager
    /// holds it.
    pub main: Option<Process>,
    /// Its executable.
    pub exe: Option<PathBuf>,
    /// All processes that serve the port.
    pub processes: BTreeSet<Process>,
    /// The main process's unit.
    pub unit: Option<Unit>,
    /// Whether servers of several ports run in the unit, so that its name is not that of a model.
    pub unit_is_shared: bool,
    /// The cgroup that contains only this server.
    pub cgroup: Option<PathBuf>,
    /// The model name on the main process's command line.
    pub named: Option<String>,
    /// The engine, identified by the main process's command line.
    pub engine: Option<Engine>,
    /// Only systemd holds the listening socket, for a service that it starts on the first connection.
    pub dormant: bool,
}

impl Server {
    /// The model that the unit is named after, if only this server runs in it.
    #[must_use]
    pub fn unit_model(&self) -> Option<String> {
        self.unit.as_ref().filter(|_| !self.unit_is_shared)?.model()
    }
}
