//! The remote-write thread: collects and spools samples, and releases acknowledged ones.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::client::Client;
use super::collector::{Collector, Told};
use super::destination::{Account, Destination, Shared};
use super::ledger::{self, Ledger};
use super::sender::SenderSettings;
use super::spool::{Spool, SpoolLimits};
use super::{Numbers, Prepared, folder, identity};
use crate::clock::wall_ms;
use crate::collector::{Collected, Pages};
use crate::config::Config;
use crate::slot::Slot;
use crate::state_file;

/// Interval at which collected samples and ledgers are synced to disk.
const SYNC: Duration = Duration::from_secs(1);

/// Maximum size of samples in memory while writing to disk fails.
const RING: usize = 4 << 20;

/// Collects and sends until `stopped` is triggered or dropped; returns the state for a reload.
pub(super) async fn run<P: Pages>(
    prepared: Prepared,
    numbers: Slot<Vec<Numbers>>,
    pages: impl FnOnce(Duration) -> P,
    mut stopped: oneshot::Receiver<()>,
) -> Option<Told> {
    let Prepared { config, clients, told } = prepared;
    let folder = folder(&config);
    let _lock = lock(&folder)?;
    let collector = Collector::new(identity(&config), told);
    let mut service = Service::open(&config, &folder, clients, collector, numbers);
    let mut pages = pages(config.write_interval());
    let mut sync = interval(SYNC);
    sync.set_missed_tick_behavior(MissedTickBehavior::Skip);
    info!(folder = %folder.display(), interval = ?config.write_interval(), "remote write started");
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(collected) = pages.next() => service.take(&collected, config.write_interval()),
            _ = sync.tick() => service.save(),
            () = service.shared.settled.notified() => service.publish(),
        }
    }
    service.save();
    Some(service.collector.told())
}

/// Two agents with the same spool would assign the same numbers twice. The lock is released when the process ends; on a
/// disk without space for the file there is nothing to share either.
fn lock(folder: &Path) -> Option<Option<File>> {
    match state_file::lock(folder) {
        Ok(Some(lock)) => Some(Some(lock)),
        Ok(None) => {
            error!(folder = %folder.display(), "another agent uses this spool; nothing is sent");
            None
        }
        Err(error) => {
            warn!(folder = %folder.display(), %error, "cannot write to the spool; samples are kept only in memory");
            Some(None)
        }
    }
}

/// An account and its file.
struct Kept {
    account: Rc<RefCell<Account>>,
    path: PathBuf,
    /// Content of the file; `None`: not written yet.
    saved: Option<Ledger>,
}

/// State of the thread.
struct Service {
    shared: Rc<Shared>,
    accounts: Vec<Kept>,
    collector: Collector,
    numbers: Slot<Vec<Numbers>>,
    /// Whether a disk error has been logged and is not over.
    failing: bool,
}

impl Service {
    /// Opens the spool and the ledgers, and starts all destinations.
    fn open(
        config: &Config,
        folder: &Path,
        clients: Vec<(String, Client, SenderSettings)>,
        collector: Collector,
        numbers: Slot<Vec<Numbers>>,
    ) -> Self {
        let path = |name: &str| folder.join(format!("{name}.ledger"));
        let past: Vec<_> = clients.iter().map(|(name, ..)| Past::read(&path(name))).collect();
        let known = past.iter().map(Past::known).max().unwrap_or(0);
        let all_new = past.iter().all(|past| matches!(past, Past::New));
        let limits = SpoolLimits {
            max_bytes: config.remote_write.max_bytes,
            max_age: config.remote_write.max_age,
            min_free: config.remote_write.min_free_bytes,
            memory: RING,
        };
        let spool = Spool::open(folder, limits, known);
        let shared = Rc::new(Shared {
            spool: RefCell::new(spool),
            newest: RefCell::default(),
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
            let saved = if let Past::Known(ledger) = &past { Some(ledger.clone()) } else { None };
            let ledger = past.ledger(&shared.spool.borrow(), all_new, url);
            info!(destination = name, pending = ledger.pending(shared.spool.borrow().end()), "sending samples");
            let account = Account { name, ledger, requests: BTreeMap::new(), oldest_ms: None, parked: false };
            let account = Rc::new(RefCell::new(account));
            let destination = Destination::new(Rc::clone(&shared), Rc::clone(&account), client, settings);
            tokio::task::spawn_local(destination.run());
            accounts.push(Kept { account, path, saved });
        }
        let mut service = Self { shared, accounts, collector, numbers, failing: false };
        // A ledger must exist before its first sample, or after a crash the destination would be new.
        service.save();
        service
    }

    /// Adds a collected page.
    fn take(&mut self, collected: &Arc<Collected>, every: Duration) {
        let (samples, newest) = self.collector.take(collected, &mut self.shared.spool.borrow_mut());
        *self.shared.newest.borrow_mut() = newest.map(Rc::new);
        self.shared.live.set(f64::from(samples) / every.as_secs_f64());
        self.shared.collected.notify_waiters();
        self.publish();
    }

    /// Syncs everything to disk, then releases what all destinations have acknowledged.
    fn save(&mut self) {
        let result = self.try_save();
        if let Err(error) = &result
            && !self.failing
        {
            warn!(%error, "cannot sync the spool to disk");
        }
        self.failing = result.is_err();
        self.publish();
    }

    fn try_save(&mut self) -> io::Result<()> {
        let mut spool = self.shared.spool.borrow_mut();
        if spool.memory() > 0 {
            spool.flush(wall_ms());
        }
        spool.sync()?;
        for Kept { account, path, saved } in &mut self.accounts {
            let ledger = &mut account.borrow_mut().ledger;
            ledger.end = spool.end();
            if saved.as_ref() != Some(&*ledger) {
                ledger::write(path, ledger)?;
                *saved = Some(ledger.clone());
            }
        }
        if let Some(seq) = self.accounts.iter().filter_map(|kept| Some(kept.saved.as_ref()?.seq)).min() {
            spool.release(seq);
        }
        Ok(())
    }

    fn publish(&self) {
        let spool = self.shared.spool.borrow();
        let now = wall_ms();
        let of = |kept: &Kept| {
            let account = kept.account.borrow();
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
                oldest_seconds: (account.oldest_ms.filter(|_| ledger.pending(end) > 0))
                    .map_or(0.0, |at| now.saturating_sub(at).max(0) as f64 / 1e3),
                requests: account.requests.iter().map(|(code, &count)| (code.clone(), count)).collect(),
                parked: account.parked,
            }
        };
        self.numbers.publish(self.accounts.iter().map(of).collect());
    }
}

/// State of a destination from a previous run.
enum Past {
    /// None: it is new. If other destinations have ledgers, it gets samples collected from now on; otherwise the
    /// spool's samples are kept for the first destination.
    New,
    /// A valid ledger.
    Known(Ledger),
    /// A damaged ledger: all pending samples are sent again, which receivers tolerate.
    Damaged,
}

impl Past {
    /// Reads the ledger at `path`; a damaged one is set aside.
    fn read(path: &Path) -> Self {
        match ledger::read(path) {
            Ok(ledger) => ledger.map_or(Self::New, Self::Known),
            Err(error) => {
                warn!(file = %path.display(), %error, "the ledger is damaged and was set aside; pending samples are sent again");
                if let Err(error) = state_file::put_aside(path, "damaged") {
                    error!(file = %path.display(), %error, "cannot set the file aside; remove it, or the spool is never freed");
                }
                Self::Damaged
            }
        }
    }

    /// The highest sequence number in it.
    fn known(&self) -> u64 {
        match self {
            Self::Known(ledger) => ledger.end.max(ledger.seq),
            Self::New | Self::Damaged => 0,
        }
    }

    /// The ledger to continue with, for the receiver at `url`.
    fn ledger(self, spool: &Spool, all_new: bool, url: String) -> Ledger {
        let mut ledger = match self {
            Self::New if !all_new => Ledger::new(spool.end()),
            Self::New | Self::Damaged => Ledger::new(spool.begin()),
            Self::Known(ledger) => ledger,
        };
        if ledger.receiver.url != url {
            ledger.receiver = ledger::Receiver { url, ..Default::default() };
        }
        ledger
    }
}
