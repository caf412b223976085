//! Logs: reads the systemd journal, counts what models log, and sends entries to every destination.
//!
//! ```text
//! journalctl --export--> entry --known--> model --select--> batch --encode--> POST --sender--> account (cursor)
//!                          `-----> counts: messages by severity, events
//! ```
//!
//! The journal is the queue: each destination has its own child process and cursor, the cursor moves only once the
//! receiver has answered, and nothing is stored twice. All of it runs on one thread. All modules but `reader`,
//! `destination`, `account` and this one are pure.

pub mod account;
mod child;
pub mod command;
pub mod counts;
mod destination;
pub mod encode;
pub mod entry;
pub mod events;
pub mod export;
pub mod known;
pub mod numbers;
pub mod reader;
pub mod select;
pub mod sender;
pub mod severity;
pub mod wire;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use regex_lite::Regex;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use self::counts::Counter;
use self::destination::{Destination, Parts};
use self::encode::Identity;
use self::known::Known;
use self::numbers::{Counts, DestinationNumbers, Numbers};
use self::reader::{Follower, Journal, Position};
use self::select::{Own, Selector};
use crate::config::Config;
use crate::config::resolved::Logs;
use crate::config::resolved::logs::Format;
use crate::discovery::unit::Unit;
use crate::host::{Roots, cgroup};
use crate::outbound::{Client, UrlError};
use crate::slot::Slot;
use crate::{remote_write, state_file, threads};

/// How often the metrics are published.
const PUBLISH: Duration = Duration::from_secs(1);

/// Pause before the journal is tried again if it cannot be read.
const AGAIN: Duration = Duration::from_secs(30);

/// A destination is misconfigured.
#[derive(Debug, thiserror::Error)]
#[error("logs to {name}: {error}")]
pub struct PrepareError {
    name: String,
    error: UrlError,
}

/// The configuration of logs, and the HTTP clients.
pub struct Prepared {
    config: Config,
    clients: Vec<(String, Format, Client)>,
}

/// Prepares everything that can fail; `None` if logs are not read.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(config: &Config) -> Result<Option<Prepared>, PrepareError> {
    let mut clients = Vec::new();
    for (name, destination) in &config.logs.destinations {
        let url = destination.url.as_deref().unwrap_or_default();
        let client = Client::new(url, &destination.access, destination.timeout)
            .map_err(|error| PrepareError { name: name.clone(), error })?;
        clients.push((name.clone(), destination.format, client));
    }
    Ok(config.logs.enabled.then(|| Prepared { config: config.clone(), clients }))
}

/// Whether a reload must restart them.
#[must_use]
pub fn differs(old: &Config, new: &Config) -> bool {
    old.logs != new.logs || identity(old) != identity(new)
}

/// Labels of all entries of this host: the same as those of the series that remote write sends.
#[must_use]
pub fn identity(config: &Config) -> Identity {
    let labels = remote_write::identity(config).labels;
    let label = |name: &str| labels.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    Identity { host: label("instance").unwrap_or_default(), job: label("job").unwrap_or_default() }
}

/// Folder of the cursors.
#[must_use]
pub fn folder(config: &Config) -> PathBuf {
    config.logs.directory.clone().unwrap_or_else(|| state_file::folder().join("logs"))
}

impl Journal {
    /// From the configuration.
    #[must_use]
    pub fn of(logs: &Logs, all_fields: bool) -> Self {
        Self { journalctl: logs.journalctl.clone(), directory: logs.journal.clone(), all_fields }
    }
}

/// The agent's log processing, running or not.
#[derive(Debug)]
pub struct Running {
    numbers: Slot<Numbers>,
    known: Known,
    handle: Option<Handle>,
}

#[derive(Debug)]
struct Handle {
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Not running yet; metrics will be stored in `numbers`, and `known` is what is known about models.
    #[must_use]
    pub fn new(numbers: Slot<Numbers>, known: Known) -> Self {
        Self { numbers, known, handle: None }
    }

    /// Stops what is running and starts `prepared`, if any. Counters continue.
    pub async fn replace(&mut self, prepared: Option<Prepared>) {
        if let Some(handle) = self.handle.take() {
            handle.stop().await;
        }
        let counts = self.numbers.newest().map(|newest| newest.value.counts.clone()).unwrap_or_default();
        self.numbers.publish(Numbers::default());
        self.handle = prepared.and_then(|prepared| {
            let started = start(prepared, self.numbers.clone(), self.known.clone(), counts);
            started.map_err(|error| error!(%error, "cannot start reading logs")).ok()
        });
    }

    /// Stops.
    pub async fn stop(self) {
        if let Some(handle) = self.handle {
            handle.stop().await;
        }
    }
}

impl Handle {
    async fn stop(mut self) {
        drop(self.stop.take());
        if !threads::ends(&self.thread).await {
            warn!("the disk with the journal cursors hangs; leaving its thread behind");
        }
    }
}

fn start(prepared: Prepared, numbers: Slot<Numbers>, known: Known, counts: Counts) -> std::io::Result<Handle> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("logs".to_owned()).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, run(prepared, numbers, known, counts, stopped));
        drop(local);
        // DNS lookups run on their own threads, which can hang.
        runtime.shutdown_background();
    })?;
    Ok(Handle { stop: Some(stop), thread })
}

/// State shared by the tasks.
#[derive(Default)]
struct Shared {
    counts: RefCell<Counts>,
    problem: RefCell<Option<String>>,
}

async fn run(prepared: Prepared, numbers: Slot<Numbers>, known: Known, counts: Counts, stopped: oneshot::Receiver<()>) {
    let Prepared { config, clients } = prepared;
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let shared = Rc::new(Shared { counts: RefCell::new(counts), ..Shared::default() });
    tasks.spawn_local(count(config.logs.clone(), known.clone(), Rc::clone(&shared), stopping.clone()));
    let folder = folder(&config);
    let lock = match state_file::lock(&folder) {
        _ if clients.is_empty() => None,
        Ok(Some(lock)) => Some(lock),
        Ok(None) => {
            error!(folder = %folder.display(), "another agent uses this directory; no logs are sent");
            None
        }
        Err(error) => {
            error!(folder = %folder.display(), %error, "cannot store journal cursors; no logs are sent");
            None
        }
    };
    let mut published = Vec::new();
    if lock.is_some() {
        let (identity, own) = (Rc::new(identity(&config)), own());
        for (name, format, client) in clients {
            let numbers = Rc::new(RefCell::new(DestinationNumbers { destination: name.clone(), ..Default::default() }));
            published.push(Rc::clone(&numbers));
            let selector = Selector::new(&config.logs, known.clone(), own.clone());
            let path = folder.join(format!("{name}.json"));
            let journal = Journal::of(&config.logs, format == Format::Journal);
            let (identity, mut stopping) = (Rc::clone(&identity), stopping.clone());
            tasks.spawn_local(async move {
                let begun = begun(&name, &path, &journal, &numbers);
                let account = tokio::select! { account = begun => account, _ = stopping.changed() => return };
                let follower = Follower::new(journal, account.position());
                info!(destination = name, "sending logs");
                let parts = Parts { name, format, identity, client, follower, selector, account, path, numbers };
                Destination::new(parts).run(stopping).await;
            });
        }
    }
    let publish = || {
        let destinations = published.iter().map(|numbers| numbers.borrow().clone()).collect();
        let problem = shared.problem.borrow().clone();
        numbers.publish(Numbers { destinations, counts: shared.counts.borrow().clone(), problem });
    };
    let mut ticks = interval(PUBLISH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stopped = stopped;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => publish(),
        }
    }
    _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    publish();
}

/// The account of a destination, once the journal can be read.
async fn begun(
    name: &str,
    path: &std::path::Path,
    journal: &Journal,
    numbers: &RefCell<DestinationNumbers>,
) -> account::Account {
    loop {
        match destination::begin(name, path, journal).await {
            Ok(account) => {
                numbers.borrow_mut().problem = None;
                return account;
            }
            Err(problem) => {
                if numbers.borrow_mut().problem.replace(problem.clone()).is_none() {
                    warn!(destination = name, error = problem, "cannot read the journal, retrying");
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// Counts what is logged from now on.
async fn count(logs: Logs, known: Known, shared: Rc<Shared>, mut stopping: watch::Receiver<bool>) {
    let own = logs.events.iter().filter_map(|(name, regex)| Some((name.clone(), Regex::new(regex).ok()?))).collect();
    let journal = Journal::of(&logs, false);
    let place = tokio::select! {
        place = end(&journal, &shared.problem) => place,
        _ = stopping.changed() => return,
    };
    let mut counter = Counter::new(known, own, shared.counts.take());
    let mut follower = Follower::new(journal, place);
    let mut ticks = interval(PUBLISH);
    loop {
        tokio::select! {
            entry = follower.next() => counter.take(&entry),
            _ = ticks.tick() => {
                shared.counts.replace(counter.counts().clone());
                shared.problem.replace(follower.problem().map(str::to_owned));
            }
            _ = stopping.changed() => {
                shared.counts.replace(counter.counts().clone());
                return;
            }
        }
    }
}

/// The place after the last entry, as soon as the journal can be read.
async fn end(journal: &Journal, problem: &RefCell<Option<String>>) -> Position {
    loop {
        match journal.end().await {
            Ok(place) => {
                problem.replace(None);
                return place;
            }
            Err(error) => {
                if problem.replace(Some(error.clone())).is_none() {
                    warn!(error, "the journal cannot be read: it is tried again");
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// How to recognise the agent's own entries.
fn own() -> Own {
    let pid = std::process::id();
    let cgroup = cgroup::read_cgroup(&Roots::default(), pid).ok().flatten();
    let unit = cgroup.and_then(|cgroup| Unit::of(&cgroup)).map(|unit| unit.name);
    Own { pid, unit: unit.filter(|name| name.ends_with(".service")) }
}
