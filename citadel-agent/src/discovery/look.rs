//! Finds servers: from listening sockets to processes and units. Remembers servers that ended recently.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::busiest::{Busiest, Busy};
use super::command;
use super::engine::Engine;
use super::holders::{Blind, Holders};
use super::readers::{self, Reader};
use super::server::Server;
use super::table::{MAX_TREE, Table};
use super::unit::Unit;
use crate::host::pid::{MAX_PROCESSES, Pid, Process, read_command_line, read_command_name, read_executable};
use crate::host::process::ticks_per_second;
use crate::host::skipped::Skipped;
use crate::host::sock_diag::{Listener, Listeners, MAX_LISTENERS};
use crate::host::{Roots, cgroup, net_tcp};

/// Programs that hold a listening socket for others: systemd until the service starts (`systemd.socket(5)`), Docker's
/// proxy while a container publishes the port.
const BROKERS: [&str; 2] = [SERVICE_MANAGER, "docker-proxy"];

/// The broker that starts a service on a connection.
const SERVICE_MANAGER: &str = "systemd";

/// Finds and remembers servers.
#[derive(Debug)]
pub struct Looker {
    roots: Roots,
    /// The mount point of cgroup v2, if mounted.
    mount: Option<PathBuf>,
    holders: Holders,
    servers: BTreeMap<u16, Known>,
    /// Units in which servers of several ports were seen. Remembered, because after a restart they start one by one,
    /// and their names must not change meanwhile.
    shared: BTreeSet<String>,
    busiest: Busiest,
}

/// A known server.
#[derive(Debug)]
struct Known {
    server: Server,
    /// Since when it has neither listened nor had an open connection.
    gone: Option<Instant>,
}

/// Inputs besides the listeners.
pub struct Around<'a> {
    /// Which ports can be models.
    pub wanted: &'a dyn Fn(u16) -> bool,
    /// Which of these ports have open connections.
    pub open: &'a dyn Fn(&BTreeSet<u16>) -> BTreeSet<u16>,
    /// The processes that have read requests.
    pub readers: &'a [Reader],
    /// How long an ended server is kept: its last counts must be scraped, and if it is only restarting, its series
    /// continue.
    pub keep: Duration,
    /// Current time.
    pub now: Instant,
}

/// What could not be seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unseen {
    /// Ports whose listening process is not visible.
    pub ports: BTreeSet<u16>,
    /// Why.
    pub blind: Blind,
    /// Readers that have exited and can be removed.
    pub gone: Vec<Reader>,
    /// Limits that were exceeded, so that values of models may be too low.
    pub more: BTreeSet<String>,
    /// Malformed input.
    pub skipped: Skipped,
}

impl Looker {
    /// Without any known servers. `mount` is the mount point of cgroup v2.
    #[must_use]
    pub fn new(roots: Roots, mount: Option<PathBuf>) -> Self {
        let (holders, servers, shared, busiest) = Default::default();
        Self { roots, mount, holders, servers, shared, busiest }
    }

    /// All servers, sorted by port.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().map(|known| &known.server)
    }

    /// The busiest processes that belong to no server.
    #[must_use]
    pub fn busiest(&self) -> &[Busy] {
        self.busiest.found()
    }

    /// Finds the servers of these listeners, and of those in other network namespaces.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub(crate) fn look(&mut self, listeners: &[Listener], around: &Around<'_>) -> io::Result<Unseen> {
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
            // The cgroup represents the server only if no process of it is elsewhere.
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
        let is_model = |pid| found.values().any(|server| server.processes.iter().any(|process| process.pid == pid));
        self.busiest.read(&self.roots, &table, is_model, around.now);
        self.forget_the_gone(&found, &trees, &table, around);
        for (port, server) in found {
            self.servers.insert(port, Known { server, gone: None });
        }
        let nobody = holders
            .iter()
            .filter(|(port, _)| inodes[port].iter().any(|&inode| self.holders.of(inode).next().is_none()));
        Ok(Unseen { ports: nobody.map(|(&port, _)| port).collect(), blind, gone, more, skipped })
    }

    /// The processes that hold one of the sockets for themselves, oldest first.
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

    /// The properties of a port's server that do not depend on other servers.
    fn server(&self, port: u16, holders: &[Process]) -> Server {
        let main = holders.first().copied();
        let mut server = Server { port, listens: true, main, ..Server::default() };
        if let Some(Process { pid, .. }) = main {
            // What cannot be read stays unknown: the process has exited, or access is denied.
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

    /// Determines the server's processes.
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

    /// Adds readers of the server's requests and their descendants, except those that listen for another server, and
    /// brokers. If one is outside, the cgroup no longer represents the server.
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
        // A process that has exited has no cgroup.
        matches!(cgroup::read_cgroup(&self.roots, pid), Ok(Some(own)) if !own.starts_with(group))
    }

    /// Keeps processes of the server, even if their parent has exited and they have been reparented.
    fn keep_members(&self, server: &mut Server, trees: &BTreeMap<u16, BTreeSet<Pid>>, table: &Table) {
        let Some(known) = self.servers.get(&server.port) else { return };
        let stays = |process: &&Process| table.lives(**process) && !is_anothers(process.pid, server.port, trees);
        server.processes.extend(known.server.processes.iter().filter(stays));
    }

    /// Keeps a server that no longer listens for a while, with its remaining processes, except those that serve another
    /// port by now.
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

/// Maximum number of other network namespaces examined: a user can create many.
const MAX_NAMESPACES: usize = 1024;

/// The listeners in all other visible network namespaces.
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
        // If the process has exited, another one in the same namespace is used.
        if net_tcp::read_listeners_of(roots, process.pid, wanted, skipped, &mut listeners).is_ok() {
            seen.insert(namespace);
        }
    }
    listeners.into_vec()
}
