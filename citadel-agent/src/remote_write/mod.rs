//! Remote write: what the pages hold goes to every destination, once, in order, and waits on disk until it has arrived.
//!
//! ```text
//! page -> collector (time, what ended) -> spool (disk) -> a destination each: sender (pure) + client (HTTP) -> ledger
//! ```
//!
//! A record is neither protocol's: `encode` makes a request of it when it goes out. One thread does all of it, apart from
//! the one that answers scrapes, because disks hang. `sources/remote_write.rs` exports what [`Numbers`] says.
//!
//! At every moment, for each destination: collected = acknowledged + rejected + dropped + pending (see `ledger.rs`).

pub mod client;
mod collector;
pub mod command;
mod dead_letter;
mod destination;
pub mod encode;
pub mod ledger;
pub mod record;
pub mod sender;
pub mod series;
pub mod spool;
pub mod stale;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::metrics::family::Page;
use crate::slot::Slot;
use crate::sources::remote_write::Numbers;
use client::{Client, ClientError};
use collector::Collector;
use destination::{Account, Destination, Shared, wall_ms};
use ledger::Ledger;
use record::Identity;
use sender::Settings;
use spool::{Limits, Spool};

/// Where the spool is when neither the configuration nor systemd says.
const DEFAULT_FOLDER: &str = "/var/lib/citadel-agent";

/// How often what was collected and what was answered is written through to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// Bytes of samples in memory while the disk refuses.
const RING: usize = 4 << 20;

/// How long the thread may take to end; a disk that hangs longer is left behind.
const GRACE: Duration = Duration::from_secs(3);

/// Why samples cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A destination cannot be spoken to.
    #[error("remote write to {name}: {error}")]
    Destination {
        /// Its name.
        name: String,
        /// Why.
        error: ClientError,
    },
    /// The thread cannot be started.
    #[error("cannot start the remote-write thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running remote write. Dropping it without [`Handle::stop`] ends it as well, at some time.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What must be configured for remote write to run, and the clients for it.
pub struct Prepared {
    config: Config,
    clients: Vec<(String, Client, Settings)>,
}

/// Checks that every destination can be spoken to: all that can fail of a start. `None`: there is no destination.
///
/// # Errors
/// See [`StartError`].
pub fn prepare(config: &Config) -> Result<Option<Prepared>, StartError> {
    let mut clients = Vec::new();
    for (name, destination) in config.destinations() {
        let client =
            Client::new(&destination).map_err(|error| StartError::Destination { name: name.clone(), error })?;
        let settings = Settings {
            protocol: destination.protocol,
            histograms: config.remote_write.histograms,
            denied: destination.denied,
        };
        clients.push((name, client, settings));
    }
    Ok((!clients.is_empty()).then(|| Prepared { config: config.clone(), clients }))
}

/// Starts collecting and sending. `collect` gives the page of everything, and `None` when it cannot; `numbers` is where
/// the figures are left.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    prepared: Prepared,
    numbers: Slot<Vec<Numbers>>,
    collect: impl FnMut() -> Option<Page> + Send + 'static,
) -> Result<Handle, StartError> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("remote-write".to_owned()).spawn(move || {
        let run = run(prepared, numbers, collect, stopped);
        LocalSet::new().block_on(&runtime, run);
        // Look-ups of names have threads of their own, which may hang.
        runtime.shutdown_background();
    })?;
    Ok(Handle { stop: Some(stop), thread: Some(thread) })
}

impl Handle {
    /// Ends it: what is in flight goes out again at the next start, and no series is marked as ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < GRACE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match thread.is_finished() {
            true => _ = thread.join(),
            false => warn!("the disk of the spool hangs: left behind"),
        }
    }
}

/// Remote write as the agent holds it: what runs, if anything does.
#[derive(Debug, Default)]
pub struct Running {
    numbers: Slot<Vec<Numbers>>,
    handle: Option<Handle>,
}

impl Running {
    /// Nothing yet, and where its figures will be.
    #[must_use]
    pub fn new(numbers: Slot<Vec<Numbers>>) -> Self {
        Self { numbers, handle: None }
    }

    /// Ends what runs and starts what was prepared, if anything was.
    pub async fn replace(
        &mut self,
        prepared: Option<Prepared>,
        collect: impl FnMut() -> Option<Page> + Send + 'static,
    ) {
        if let Some(handle) = self.handle.take() {
            handle.stop().await;
        }
        self.numbers.publish(Vec::new());
        self.handle = prepared.and_then(|prepared| {
            let started = start(prepared, self.numbers.clone(), collect);
            started.map_err(|error| error!(%error, "nothing is sent")).ok()
        });
    }

    /// Ends it.
    pub async fn stop(self) {
        if let Some(handle) = self.handle {
            handle.stop().await;
        }
    }
}

/// Whether remote write has to be started anew to go from one configuration to the other.
#[must_use]
pub fn differs(old: &Config, new: &Config) -> bool {
    old.remote_write != new.remote_write
        || old.destinations() != new.destinations()
        || old.write_interval() != new.write_interval()
}

/// Where the spool is.
#[must_use]
pub fn folder(config: &Config) -> PathBuf {
    config.remote_write.directory.clone().unwrap_or_else(|| {
        // A list, separated by colons, of which the first is the one that the unit names first.
        let systemd = env::var("STATE_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from));
        systemd.filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT_FOLDER.into()).join("remote-write")
    })
}

/// The labels that every series gets.
#[must_use]
pub fn identity(config: &Config) -> Identity {
    let remote_write = &config.remote_write;
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut labels = vec![
        ("job".to_owned(), remote_write.job.clone()),
        ("instance".to_owned(), remote_write.instance.clone().unwrap_or_else(host)),
    ];
    labels.extend(remote_write.external_labels.clone());
    Identity { labels }
}

async fn run(
    prepared: Prepared,
    numbers: Slot<Vec<Numbers>>,
    mut collect: impl FnMut() -> Option<Page>,
    mut stopped: oneshot::Receiver<()>,
) {
    let Prepared { config, clients } = prepared;
    let folder = folder(&config);
    let Some(_lock) = lock(&folder) else { return };
    let mut service = Service::open(&config, &folder, clients, numbers);
    let mut tick = interval(config.write_interval());
    // After a pause (a suspended machine, a hung disk) one collection is due, not all that were missed.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sync = interval(SYNC);
    sync.set_missed_tick_behavior(MissedTickBehavior::Skip);
    info!(folder = %folder.display(), interval = ?config.write_interval(), "remote write begins");
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = tick.tick() => {
                if let Some(page) = collect() {
                    service.take(page, config.write_interval());
                }
            }
            _ = sync.tick() => service.save(),
            () = service.shared.settled.notified() => service.publish(),
        }
    }
    service.save();
}

/// Two agents in one spool would give the same numbers twice. The lock goes with the process; on a disk that takes no
/// file there is nothing to share either.
fn lock(folder: &Path) -> Option<Option<File>> {
    let open = || {
        fs::create_dir_all(folder)?;
        File::options().create(true).truncate(false).write(true).open(folder.join("lock"))
    };
    let file = match open() {
        Ok(file) => file,
        Err(error) => {
            warn!(folder = %folder.display(), %error, "the spool's disk refuses: samples are kept in memory alone");
            return Some(None);
        }
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(Some(file)),
        Err(error) => {
            error!(folder = %folder.display(), %error, "another agent uses this spool: nothing is sent by this one");
            None
        }
    }
}

/// What one thread keeps of it.
struct Service {
    shared: Rc<Shared>,
    accounts: Vec<(Rc<RefCell<Account>>, PathBuf, Ledger)>,
    collector: Collector,
    numbers: Slot<Vec<Numbers>>,
    /// Whether an error of the disk was logged that is not over.
    failing: bool,
}

impl Service {
    /// Opens the spool and the ledgers, and sets every destination to work.
    fn open(
        config: &Config,
        folder: &Path,
        clients: Vec<(String, Client, Settings)>,
        numbers: Slot<Vec<Numbers>>,
    ) -> Self {
        let path = |name: &str| folder.join(format!("{name}.ledger"));
        let past: Vec<_> = clients.iter().map(|(name, ..)| Past::read(&path(name))).collect();
        let known = past.iter().map(Past::known).max().unwrap_or(0);
        let limits = Limits {
            max_bytes: config.remote_write.max_bytes,
            max_age: config.remote_write.max_age,
            min_free: config.remote_write.min_free_bytes,
            memory: RING,
        };
        let spool = Spool::open(folder, limits, known);
        let shared = Rc::new(Shared {
            spool: RefCell::new(spool),
            live: Cell::new(0.0),
            collected: Notify::new(),
            settled: Notify::new(),
            dead_letters: folder.join("dead-letter"),
        });
        let mut accounts = Vec::new();
        let urls = config.destinations();
        for ((name, client, settings), past) in clients.into_iter().zip(past) {
            let url = urls.get(&name).and_then(|destination| destination.url.clone()).unwrap_or_default();
            let path = path(&name);
            let ledger = past.ledger(&shared.spool.borrow(), url);
            let saved = ledger.clone();
            info!(destination = name, pending = ledger.pending(shared.spool.borrow().end()), "remote write to");
            let requests = Default::default();
            let account = Account { name, ledger, requests, oldest_ms: None, parked: false };
            let account = Rc::new(RefCell::new(account));
            let destination = Destination::new(Rc::clone(&shared), Rc::clone(&account), client, settings);
            tokio::task::spawn_local(destination.run());
            accounts.push((account, path, saved));
        }
        let service = Self { shared, accounts, collector: Collector::new(identity(config)), numbers, failing: false };
        service.publish();
        service
    }

    /// Takes a page that was just collected.
    fn take(&mut self, page: Page, every: Duration) {
        let samples = self.collector.take(page, wall_ms(), &mut self.shared.spool.borrow_mut());
        self.shared.live.set(f64::from(samples) / every.as_secs_f64());
        self.shared.collected.notify_waiters();
        self.publish();
    }

    /// Writes everything through to the disk, and then lets go of what every destination has answered for.
    fn save(&mut self) {
        let result = self.try_save();
        if let Err(error) = &result
            && !self.failing
        {
            warn!(%error, "the spool cannot be written through to its disk");
        }
        self.failing = result.is_err();
        self.publish();
    }

    fn try_save(&mut self) -> std::io::Result<()> {
        let mut spool = self.shared.spool.borrow_mut();
        if spool.memory() > 0 {
            spool.flush(wall_ms());
        }
        spool.sync()?;
        for (account, path, saved) in &mut self.accounts {
            let ledger = &mut account.borrow_mut().ledger;
            ledger.end = spool.end();
            if ledger != saved {
                ledger::write(path, ledger)?;
                saved.clone_from(ledger);
            }
        }
        if let Some(seq) = self.accounts.iter().map(|(_, _, saved)| saved.seq).min() {
            spool.release(seq);
        }
        Ok(())
    }

    fn publish(&self) {
        let spool = self.shared.spool.borrow();
        let now = wall_ms();
        let of = |(account, _, _): &(Rc<RefCell<Account>>, PathBuf, Ledger)| {
            let account = account.borrow();
            let ledger = &account.ledger;
            let end = spool.end();
            Numbers {
                destination: account.name.clone(),
                collected: ledger.collected(end),
                acknowledged: ledger.acknowledged,
                rejected: ledger.rejected,
                dropped: ledger.dropped.iter().map(|(reason, &count)| (reason.label(), count)).collect(),
                pending: ledger.pending(end),
                pending_bytes: if ledger.pending(end) > 0 { spool.bytes_from(ledger.seq) } else { 0 },
                memory_bytes: spool.memory() as u64,
                oldest_seconds: account.oldest_ms.map_or(0.0, |at| now.saturating_sub(at).max(0) as f64 / 1e3),
                requests: account.requests.iter().map(|(code, &count)| (code.clone(), count)).collect(),
                parked: account.parked,
            }
        };
        self.numbers.publish(self.accounts.iter().map(of).collect());
    }
}

/// What an earlier run left of a destination's account.
enum Past {
    /// Nothing: it is new, and gets what is collected from now on.
    New,
    /// It goes on.
    Known(Ledger),
    /// It is not to be trusted: everything that waits is sent again, which receivers take without harm.
    Damaged,
}

impl Past {
    /// Reads the ledger at `path`; a damaged one is put aside.
    fn read(path: &Path) -> Self {
        match ledger::read(path) {
            Ok(ledger) => ledger.map_or(Self::New, Self::Known),
            Err(error) => {
                warn!(file = %path.display(), %error, "this ledger is not to be trusted: put aside, and what waits is sent anew");
                _ = fs::rename(path, path.with_extension("damaged"));
                Self::Damaged
            }
        }
    }

    /// The highest number that it knows.
    fn known(&self) -> u64 {
        match self {
            Self::Known(ledger) => ledger.end.max(ledger.seq),
            Self::New | Self::Damaged => 0,
        }
    }

    /// The account to go on with, for the receiver at `url`.
    fn ledger(self, spool: &Spool, url: String) -> Ledger {
        let mut ledger = match self {
            Self::New => Ledger::new(spool.end()),
            Self::Damaged => Ledger::new(spool.begin()),
            Self::Known(ledger) => ledger,
        };
        if ledger.receiver.url != url {
            ledger.receiver = ledger::Receiver { url, ..Default::default() };
        }
        ledger
    }
}
