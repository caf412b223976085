//! What was found behind one port. Pure data, which no configuration has named yet.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::engine::Engine;
use super::unit::Unit;
use crate::host::pid::Process;

/// A server that listens on a port, or has just ceased to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// The port.
    pub port: u16,
    /// It listens now.
    pub listens: bool,
    /// The process that has held the listening socket longest; `None` where the agent may not look, or where only a service
    /// manager holds it.
    pub main: Option<Process>,
    /// The file that it executes.
    pub exe: Option<PathBuf>,
    /// All processes that serve the port.
    pub processes: BTreeSet<Process>,
    /// The main process's unit.
    pub unit: Option<Unit>,
    /// Servers of several ports run in the unit, side by side: its name is none of a model.
    pub unit_is_shared: bool,
    /// The cgroup that holds this server and nothing else.
    pub cgroup: Option<PathBuf>,
    /// The model's name by the main process's command line.
    pub named: Option<String>,
    /// The engine by the main process's command line.
    pub engine: Option<Engine>,
    /// Only systemd holds the listening socket, for a service that it starts with the first connection.
    pub dormant: bool,
}

impl Server {
    /// The model that the unit is named after, if it is this server's alone.
    #[must_use]
    pub fn unit_model(&self) -> Option<String> {
        self.unit.as_ref().filter(|_| !self.unit_is_shared)?.model()
    }
}
