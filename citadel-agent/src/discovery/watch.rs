//! Runs discovery on its own thread, because reading `/proc` can block.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::debug;

use super::busiest::Busy;
use super::look::{Around, Looker, Unseen};
use super::readers::NotedReaders;
use super::server::Server;
use super::usage::{Usage, Usages};
use crate::config::resolved::{Config, Models};
use crate::host::skipped::{Skipped, Tally};
use crate::host::sock_diag::{self, Listener, Listeners};
use crate::host::{Roots, mountinfo, net_tcp};
use crate::slot::Slot;

/// How often listeners are listed and CPU time is read, unless the collection interval is shorter. It takes a fraction
/// of a millisecond; the full discovery runs once per interval, and when a listener appears or disappears.
const TICK: Duration = Duration::from_secs(2);

/// The result of discovery.
#[derive(Debug, Default)]
pub struct Discovered {
    /// The servers, sorted by port.
    pub servers: Vec<Server>,
    /// The resource usage of each port's server.
    pub usage: BTreeMap<u16, Usage>,
    /// The busiest processes that belong to no server, the busiest first.
    pub busiest: Vec<Busy>,
    /// Why something is missing, if it is.
    pub problem: Option<String>,
    /// How much malformed input was skipped so far.
    pub skipped: u64,
}

/// The running discovery; dropping it stops it.
#[derive(Debug)]
pub struct Discovery {
    newest: Slot<Discovered>,
    settings: Option<Sender<DiscoverySettings>>,
    thread: Option<JoinHandle<()>>,
}

/// The relevant part of the configuration.
#[derive(Clone, PartialEq, Debug)]
struct DiscoverySettings {
    models: Models,
    interval: Duration,
}

impl DiscoverySettings {
    fn of(config: &Config) -> Self {
        Self { models: config.models.clone(), interval: config.local.collection_interval }
    }
}

impl Discovery {
    /// Runs discovery once, then continues on a thread. `readers` are the processes that read requests.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: &Config, roots: &Roots, readers: impl NotedReaders + 'static) -> io::Result<Self> {
        let newest = Slot::default();
        let mut watcher = Watcher::new(DiscoverySettings::of(config), roots, Box::new(readers), newest.clone());
        watcher.tick();
        let (settings, changes) = mpsc::channel();
        let thread = thread::Builder::new().name("discovery".to_owned()).stack_size(256 << 10).spawn(move || {
            loop {
                match changes.recv_timeout(watcher.pause()) {
                    Ok(settings) => watcher.configure(settings),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                watcher.tick();
            }
        })?;
        Ok(Self { newest, settings: Some(settings), thread: Some(thread) })
    }

    /// The newest result.
    #[must_use]
    pub fn newest(&self) -> Arc<Discovered> {
        self.newest.newest().map(|published| published.value).unwrap_or_default()
    }

    /// Applies another configuration.
    pub fn configure(&self, config: &Config) {
        if let Some(settings) = &self.settings {
            // Without a receiver the thread has panicked, which has been logged.
            _ = settings.send(DiscoverySettings::of(config));
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.settings = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// The thread's state.
struct Watcher {
    settings: DiscoverySettings,
    roots: Roots,
    readers: Box<dyn NotedReaders>,
    looker: Looker,
    usages: Usages,
    listeners: Vec<Listener>,
    looked: Option<Instant>,
    problem: Option<String>,
    skipped: Tally,
    newest: Slot<Discovered>,
}

impl Watcher {
    fn new(
        settings: DiscoverySettings,
        roots: &Roots,
        readers: Box<dyn NotedReaders>,
        newest: Slot<Discovered>,
    ) -> Self {
        let mount = mountinfo::read_cgroup2_mount(roots).ok().flatten();
        Self {
            settings,
            roots: roots.clone(),
            readers,
            looker: Looker::new(roots.clone(), mount.clone()),
            usages: Usages::new(roots.clone(), mount),
            listeners: Vec::new(),
            looked: None,
            problem: None,
            skipped: Tally::default(),
            newest,
        }
    }

    fn pause(&self) -> Duration {
        TICK.min(self.settings.interval)
    }

    fn configure(&mut self, settings: DiscoverySettings) {
        self.settings = settings;
        self.looked = None;
    }

    /// Lists the listeners, runs the full discovery if something can have changed, and publishes.
    fn tick(&mut self) {
        match self.look() {
            Ok(Some(unseen)) => {
                self.problem = complaint(&unseen);
                self.skipped.add("discovery", &unseen.skipped);
            }
            Ok(None) => {}
            Err(error) => self.problem = Some(format!("cannot list listening sockets: {error}")),
        }
        let mut skipped = Skipped::default();
        self.usages.read_cpu(self.looker.servers(), &mut skipped);
        self.skipped.add("discovery", &skipped);
        self.publish();
    }

    /// What could not be seen; `None` if there was no need to look.
    fn look(&mut self) -> io::Result<Option<Unseen>> {
        let models = &self.settings.models;
        let wanted = |port| models.measures(port);
        let mut skipped = Skipped::default();
        let listeners = listeners(&self.roots, wanted, &mut skipped)?;
        let now = Instant::now();
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= self.settings.interval);
        if !due && listeners == self.listeners {
            return Ok(None);
        }
        let around = Around {
            wanted: &wanted,
            open: &|ports| open_among(&self.roots, ports),
            readers: &self.readers.all(),
            keep: self.settings.interval,
            now,
        };
        let mut unseen = self.looker.look(&listeners, &around)?;
        unseen.skipped.append(skipped);
        self.readers.forget(&unseen.gone);
        self.listeners = listeners;
        self.looked = Some(now);
        self.usages.read_memory(self.looker.servers(), now, &mut unseen.skipped);
        debug!(servers = self.looker.servers().count(), took = ?now.elapsed(), "looked");
        Ok(Some(unseen))
    }

    fn publish(&self) {
        let servers = self.looker.servers().cloned().collect();
        let (usage, problem) = (self.usages.all(), self.problem.clone());
        let busiest = self.looker.busiest().to_vec();
        self.newest.publish(Discovered { servers, usage, busiest, problem, skipped: self.skipped.total() });
    }
}

/// The listeners in the agent's network namespace: from sock_diag, or on a kernel without it from `/proc`, which is
/// slow with many sockets.
fn listeners(roots: &Roots, wanted: impl Fn(u16) -> bool, skipped: &mut Skipped) -> io::Result<Vec<Listener>> {
    sock_diag::read_listeners(&wanted).or_else(|error| {
        let mut found = Listeners::default();
        net_tcp::read_listeners_of(roots, std::process::id(), wanted, skipped, &mut found).map_err(|_| error)?;
        Ok(found.into_vec().into_iter().map(|listener| Listener { reachable: true, ..listener }).collect())
    })
}

/// Which of these ports have open connections; also from sock_diag or `/proc`.
fn open_among(roots: &Roots, ports: &BTreeSet<u16>) -> BTreeSet<u16> {
    match sock_diag::read_open_connections(|port| ports.contains(&port)) {
        Ok(open) => open.into_iter().map(|socket| socket.local_port).collect(),
        Err(_) => &net_tcp::read_open_ports_of(roots, std::process::id()).unwrap_or_default() & ports,
    }
}

/// A message about what could not be seen.
fn complaint(unseen: &Unseen) -> Option<String> {
    let Unseen { ports, blind, more, .. } = unseen;
    let mut complaints = Vec::new();
    if !ports.is_empty() && (blind.refused > 0 || blind.too_many) {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        let why = match blind.refused {
            0 => "the host has more open files than one search examines".to_owned(),
            refused => format!(
                "the open files of {refused} processes are not readable; this needs CAP_SYS_PTRACE and \
                 CAP_DAC_READ_SEARCH, which the shipped unit grants"
            ),
        };
        complaints.push(format!("cannot determine which process owns port {}: {why}", ports.join(", ")));
    }
    if !more.is_empty() {
        let more: Vec<_> = more.iter().take(5).map(String::as_str).collect();
        complaints.push(format!("values of some models may be too low: there are more than {}", more.join(", ")));
    }
    (!complaints.is_empty()).then(|| complaints.join("; "))
}
