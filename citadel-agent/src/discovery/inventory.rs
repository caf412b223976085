//! The result of discovery: the models of this host. Plain data, read by joins and sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::engine::Engine;
use super::name;
use super::server::Server;
use crate::config::resolved::Models;
pub use crate::host::pid::Pid;

/// The models of this host, sorted by port. Configured models are always included, others while they are listening, and
/// for a short time afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// One entry per port.
    pub models: Vec<Model>,
}

/// A model: a port, the name of its series, and the processes that serve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// Value of the `model` label.
    pub name: String,
    /// The TCP port.
    pub port: u16,
    /// Whether a server is listening on the port.
    pub listens: bool,
    /// The listening processes, and all processes of their unit or their descendants; empty while nothing is listening,
    /// or if access is denied.
    pub pids: BTreeSet<Pid>,
    /// The process that has been listening longest.
    pub main: Option<Pid>,
    /// The executable of the main process.
    pub exe: Option<PathBuf>,
    /// The systemd unit of the main process, such as `citadel-phi3.service`.
    pub unit: Option<String>,
    /// The cgroup that contains only this model, relative to the root of the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// The model name on the server's command line.
    pub served: Option<String>,
    /// Only the server's own answer could name it.
    pub unnamed: bool,
    /// systemd holds the socket, and a connection would start the service.
    pub dormant: bool,
    /// The engine, identified by the command line.
    pub engine: Option<Engine>,
}

impl Inventory {
    /// Names all discovered servers and configured ports. `answered` is the name that the server on a port has
    /// returned.
    #[must_use]
    pub fn of(models: &Models, servers: &[Server], answered: impl Fn(u16) -> Option<String>) -> Self {
        let mut found: BTreeMap<u16, Option<&Server>> = models.ports.keys().map(|&port| (port, None)).collect();
        // Servers found with an earlier configuration may not be models in this one.
        let wanted = |server: &&Server| models.measures(server.port);
        found.extend(servers.iter().filter(wanted).map(|server| (server.port, Some(server))));
        let model = |(port, server): (u16, Option<&Server>)| Model {
            name: name::choose(models.ports.get(&port).map(String::as_str), server, answered(port), port),
            port,
            listens: server.is_some_and(|server| server.listens),
            pids: server.map(|server| server.processes.iter().map(|process| process.pid).collect()).unwrap_or_default(),
            main: server.and_then(|server| Some(server.main?.pid)),
            exe: server.and_then(|server| server.exe.clone()),
            unit: server.and_then(|server| Some(server.unit.as_ref()?.name.clone())),
            cgroup: server.and_then(|server| server.cgroup.clone()),
            served: server.and_then(|server| server.named.clone()),
            unnamed: !models.ports.contains_key(&port) && server.is_some_and(name::must_be_asked),
            dormant: server.is_some_and(|server| server.dormant),
            engine: server.and_then(|server| server.engine),
        };
        Self { models: found.into_iter().map(model).collect() }
    }

    /// In the order of their series on a page, which then needs no sorting: by name.
    #[must_use]
    pub fn in_page_order(&self) -> Vec<&Model> {
        let mut models: Vec<_> = self.models.iter().collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// The model of a process; the first by port if several share it.
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
