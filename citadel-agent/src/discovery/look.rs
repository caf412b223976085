//! Listening sockets -> servers: goes the way from socket to process to unit, and remembers what ended a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::command;
use super::engine::Engine;
use super::holders::{Blind, Holders};
use super::readers;
use super::server::Server;
use super::table::{MAX_TREE, Table};
use super::unit::Unit;
use crate::ebpf::readers::Reader;
use crate::host::pid::{MAX_PROCESSES, Pid, Process, read_command_line, read_command_name, read_executable};
use crate::host::process::ticks_per_second;
use crate::host::skipped::Skipped;
use crate::host::sock_diag::{Listener, Listeners, MAX_LISTENERS};
use crate::host::{Roots, cgroup, net_tcp};

/// Programs that hold a listening socket for others: systemd until the service starts that it belongs to
/// (`systemd.socket(5)`), Docker's proxy for as long as the container publishes the port.
const BROKERS: [&str; 2] = [SERVICE_MANAGER, "docker-proxy"];

/// The broker that a connection makes start the service.
const SERVICE_MANAGER: &str = "systemd";

/// Looks, and remembers.
#[derive(Debug)]
pub struct Looker {
    roots: Roots,
    /// Where cgroup v2 is mounted, if it is.
    mount: Option<PathBuf>,
    holders: Holders,
    servers: BTreeMap<u16, Known>,
    /// Units in which servers of several ports were seen side by side. Once is enough: after a restart they come up one by
    /// one, and their names must not change meanwhile.
    shared: BTreeSet<String>,
}

/// A server that was found.
#[derive(Debug)]
struct Known {
    server: Server,
    /// Since when it has neither listened nor had a connection open.
    gone: Option<Instant>,
}

/// Where to look, beside the listeners themselves.
pub struct Around<'a> {
    /// Which ports can be models'.
    pub wanted: &'a dyn Fn(u16) -> bool,
    /// Which of these ports have connections open.
    pub open: &'a dyn Fn(&BTreeSet<u16>) -> BTreeSet<u16>,
    /// Which processes have read requests.
    pub readers: &'a [Reader],
    /// How long a server is kept when it is gone: what it counted last must be scraped, and if it is only being restarted,
    /// its series go on.
    pub keep: Duration,
    /// The time.
    pub now: Instant,
}

/// What a look could not see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unseen {
    /// Ports on which somebody listens whom the agent cannot see.
    pub ports: BTreeSet<u16>,
    /// Why.
    pub blind: Blind,
    /// Readers that have ended: nothing is to be known of them any more.
    pub gone: Vec<Reader>,
    /// What there is more of than the agent looks at, so that numbers of models may be too low.
    pub more: BTreeSet<String>,
    /// What is not as the kernel documents it.
    pub skipped: Skipped,
}

impl Looker {
    /// One that knows nothing yet. `mount` is where cgroup v2 is mounted.
    #[must_use]
    pub fn new(roots: Roots, mount: Option<PathBuf>) -> Self {
        let (holders, servers, shared) = Default::default();
        Self { roots, mount, holders, servers, shared }
    }

    /// All servers, in the order of their ports.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().map(|known| &known.server)
    }

    /// Looks who is behind these listeners, and behind those of other network namespaces.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn look(&mut self, listeners: &[Listener], around: &Around<'_>) -> io::Result<Unseen> {
        let mut skipped = Skipped::default();
        let table = Table::read(&self.roots, &mut skipped)?;
        let mut more = BTreeSet::new();
        if table.is_cut() {
            more.insert(format!("{MAX_PROCESSES} processes on this host"));
        }
        let mut inodes: BTreeMap<u16, BTreeSet<u32>> = BTreeMap::new();
        for listener in listeners.iter().chain(&elsewhere(&self.roots, &table, around.wanted, &mut more, &mut skipped))
        {
            inodes.entry(listener.port).or_default().insert(listener.inode);
        }
        let crowded = inodes.iter().filter(|(_, inodes)| inodes.len() >= MAX_LISTENERS);
        more.extend(crowded.map(|(port, _)| format!("{MAX_LISTENERS} sockets that listen on port {port}")));
        let blind = self.holders.find(&self.roots, &table, &inodes.values().flatten().copied().collect());
        let holders: BTreeMap<u16, Vec<Process>> =
            inodes.iter().map(|(&port, inodes)| (port, self.holders_of(inodes))).collect();
        let is_dormant = |port: u16| holders[&port].is_empty() && self.is_held_by_systemd(&inodes[&port]);
        let trees: BTreeMap<u16, BTreeSet<Pid>> = holders
            .iter()
            .map(|(&port, holders)| (port, table.trees_of(holders.iter().map(|process| process.pid))))
            .collect();

        let mut found: BTreeMap<u16, Server> =
            holders.iter().map(|(&port, holders)| (port, self.server(port, holders))).collect();
        found.iter_mut().for_each(|(&port, server)| server.dormant = is_dormant(port));
        self.note_shared_units(&found, &trees);
        let (readers, gone) = readers::living(around.readers, &table, (1e9 / ticks_per_second()) as u64);
        for (port, server) in &mut found {
            self.settle(server, &trees[port], &table, &mut more);
            let settled = server.processes.clone();
            if let Some(readers) = readers.get(port) {
                self.add_readers(server, readers, &trees, &table);
            }
            self.keep_members(server, &trees, &table);
            // The cgroup holds the server as a whole only where no process of it is elsewhere.
            let mut others = server.processes.difference(&settled);
            if let Some(cgroup) = &server.cgroup
                && others.any(|process| self.is_outside(process.pid, cgroup))
            {
                server.cgroup = None;
            }
            if server.processes.len() > MAX_TREE {
                more.insert(format!("{MAX_TREE} processes of the model on port {port}"));
                server.processes = server.processes.iter().take(MAX_TREE).copied().collect();
            }
        }
        self.forget_the_gone(&found, &trees, &table, around);
        for (port, server) in found {
            self.servers.insert(port, Known { server, gone: None });
        }
        let nobody = holders
            .iter()
            .filter(|(port, _)| inodes[port].iter().any(|&inode| self.holders.of(inode).next().is_none()));
        Ok(Unseen { ports: nobody.map(|(&port, _)| port).collect(), blind, gone, more, skipped })
    }

    /// The processes that hold one of the sockets for themselves, the oldest first.
    fn holders_of(&self, inodes: &BTreeSet<u32>) -> Vec<Process> {
        let all: BTreeSet<Process> = inodes.iter().flat_map(|&inode| self.holders.of(inode)).collect();
        let mut all: Vec<_> = all.into_iter().filter(|process| !self.is_broker(process.pid)).collect();
        all.sort_by_key(|process| (process.start_ticks, process.pid));
        all
    }

    fn is_held_by_systemd(&self, inodes: &BTreeSet<u32>) -> bool {
        let mut holders = inodes.iter().flat_map(|&inode| self.holders.of(inode));
        holders.any(|process| read_command_name(&self.roots, process.pid).is_ok_and(|name| name == SERVICE_MANAGER))
    }

    fn is_broker(&self, pid: Pid) -> bool {
        BROKERS.contains(&read_command_name(&self.roots, pid).unwrap_or_default().as_str())
    }

    /// What can be said of a port's server without a look at the others.
    fn server(&self, port: u16, holders: &[Process]) -> Server {
        let main = holders.first().copied();
        let mut server = Server { port, listens: true, main, ..Server::default() };
        if let Some(Process { pid, .. }) = main {
            // What cannot be read stays unknown: it has ended, or the agent may not.
            server.exe = read_executable(&self.roots, pid).ok();
            if let Ok(line) = read_command_line(&self.roots, pid) {
                (server.named, server.engine) = (command::model(&line), Engine::of_command(&line));
            }
            server.unit = cgroup::read_cgroup(&self.roots, pid).ok().flatten().and_then(|cgroup| Unit::of(&cgroup));
        }
        server
    }

    /// Two servers share a unit if neither descends from the other.
    fn note_shared_units(&mut self, found: &BTreeMap<u16, Server>, trees: &BTreeMap<u16, BTreeSet<Pid>>) {
        for (port, server) in found {
            for (other_port, other) in found.range(port + 1..) {
                let (Some(main), Some(other_main)) = (server.main, other.main) else { continue };
                let apart = !trees[other_port].contains(&main.pid) && !trees[port].contains(&other_main.pid);
                if let Some(unit) = server.unit.as_ref().filter(|_| server.unit == other.unit && apart) {
                    self.shared.insert(unit.name.clone());
                }
            }
        }
    }

    /// Which processes are the server's.
    fn settle(&self, server: &mut Server, tree: &BTreeSet<Pid>, table: &Table, more: &mut BTreeSet<String>) {
        let mut pids = tree.clone();
        if let Some(unit) = &server.unit {
            server.unit_is_shared = self.shared.contains(&unit.name);
            let own = unit.is_dedicated() && !server.unit_is_shared;
            if let (true, Some(mount)) = (own, &self.mount) {
                match cgroup::read_processes(mount, &unit.cgroup) {
                    Ok(all) => {
                        pids.extend(all);
                        server.cgroup = Some(unit.cgroup.clone());
                    }
                    Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                        more.insert(format!("processes or cgroups in {} than are looked at", unit.name));
                    }
                    Err(_) => {}
                }
            }
        }
        server.processes = pids.into_iter().filter_map(|pid| table.process(pid)).collect();
    }

    /// Who reads the server's requests serves them, and so do all below it; but one that listens for another server is that
    /// one's, and a broker only hands on. The server's cgroup holds it no longer as a whole if one is elsewhere.
    fn add_readers(
        &self,
        server: &mut Server,
        readers: &BTreeSet<Pid>,
        trees: &BTreeMap<u16, BTreeSet<Pid>>,
        table: &Table,
    ) {
        let serving = readers.iter().copied().filter(|&pid| !self.is_broker(pid));
        let tree = table.trees_of(serving).into_iter().filter(|&pid| !is_anothers(pid, server.port, trees));
        server.processes.extend(tree.filter_map(|pid| table.process(pid)));
    }

    fn is_outside(&self, pid: Pid, group: &Path) -> bool {
        // One that has ended meanwhile is nowhere.
        matches!(cgroup::read_cgroup(&self.roots, pid), Ok(Some(own)) if !own.starts_with(group))
    }

    /// A process that was the server's stays so, also when its parent has ended and another one's child it is now.
    fn keep_members(&self, server: &mut Server, trees: &BTreeMap<u16, BTreeSet<Pid>>, table: &Table) {
        let Some(known) = self.servers.get(&server.port) else { return };
        let stays = |process: &&Process| table.lives(**process) && !is_anothers(process.pid, server.port, trees);
        server.processes.extend(known.server.processes.iter().filter(stays));
    }

    /// What listens no longer keeps what lives of its processes for a while; but one that serves another port by now is that
    /// one's.
    fn forget_the_gone(
        &mut self,
        found: &BTreeMap<u16, Server>,
        trees: &BTreeMap<u16, BTreeSet<Pid>>,
        table: &Table,
        around: &Around<'_>,
    ) {
        let missing: BTreeSet<u16> = self.servers.keys().copied().filter(|port| !found.contains_key(port)).collect();
        if missing.is_empty() {
            return;
        }
        let open = (around.open)(&missing);
        self.servers.retain(|port, known| {
            if !missing.contains(port) {
                return true;
            }
            known.server.listens = false;
            let stays = |process: &Process| table.lives(*process) && !is_anothers(process.pid, *port, trees);
            known.server.processes.retain(stays);
            if !(around.wanted)(*port) {
                return false;
            }
            known.gone = if open.contains(port) { None } else { known.gone.or(Some(around.now)) };
            known.gone.is_none_or(|since| around.now.duration_since(since) < around.keep)
        });
    }
}

/// Whether the process is in the tree of another port's server.
fn is_anothers(pid: Pid, own: u16, trees: &BTreeMap<u16, BTreeSet<Pid>>) -> bool {
    trees.iter().any(|(&port, tree)| port != own && tree.contains(&pid))
}

/// Most other network namespaces that are looked into: any user may have many.
const MAX_NAMESPACES: usize = 1024;

/// The listeners of all other network namespaces that the agent can see.
fn elsewhere(
    roots: &Roots,
    table: &Table,
    wanted: &dyn Fn(u16) -> bool,
    more: &mut BTreeSet<String>,
    skipped: &mut Skipped,
) -> Vec<Listener> {
    let Ok(own) = net_tcp::read_namespace(roots, std::process::id()) else { return Vec::new() };
    let mut seen = BTreeSet::from([own]);
    let mut listeners = Listeners::default();
    for process in table.processes_from(0) {
        let Ok(namespace) = net_tcp::read_namespace(roots, process.pid) else { continue };
        if seen.contains(&namespace) {
            continue;
        }
        if seen.len() > MAX_NAMESPACES {
            more.insert(format!("{MAX_NAMESPACES} network namespaces"));
            break;
        }
        // A process that has ended meanwhile: another of its namespace will do.
        if net_tcp::read_listeners_of(roots, process.pid, wanted, skipped, &mut listeners).is_ok() {
            seen.insert(namespace);
        }
    }
    listeners.into_vec()
}
