//! What discovery found: the models of this host. Pure data, which joins and sources read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::engine::Engine;
use super::name;
use super::server::Server;
use crate::config::resolved::Models;
pub use crate::host::pid::Pid;

/// The models of this host, in the order of their ports. A configured model is in it whether or not it runs; any other
/// is while it listens, and a little longer.
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
    /// A server listens on the port now.
    pub listens: bool,
    /// The listening processes and all processes of their unit or below them; empty while nothing listens, or where the
    /// agent may not look.
    pub pids: BTreeSet<Pid>,
    /// The process that has listened longest.
    pub main: Option<Pid>,
    /// The file that the main process executes.
    pub exe: Option<PathBuf>,
    /// The systemd unit that the main process runs in, such as `citadel-phi3.service`.
    pub unit: Option<String>,
    /// The cgroup that holds this model and nothing else, relative to the root of the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// What the server calls its model on its command line.
    pub served: Option<String>,
    /// Nothing but the server's own answer could name it.
    pub unnamed: bool,
    /// systemd holds the socket, and a connection would start the service.
    pub dormant: bool,
    /// Which engine it is, by its command line.
    pub engine: Option<Engine>,
}

impl Inventory {
    /// Gives each server that was found, and each configured port, its name. `answered` is what the server on a port has
    /// answered.
    #[must_use]
    pub fn of(models: &Models, servers: &[Server], answered: impl Fn(u16) -> Option<String>) -> Self {
        let mut found: BTreeMap<u16, Option<&Server>> = models.ports.keys().map(|&port| (port, None)).collect();
        // What was found under another configuration may be none of this one's models.
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
