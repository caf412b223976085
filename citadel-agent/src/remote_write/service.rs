//! The thread of remote write: it collects, keeps, and lets go of what is answered for.

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
use super::sender::Settings;
use super::spool::{Limits, Spool};
use super::{Numbers, Prepared, folder, identity};
use crate::collector::{Collected, Pages, wall_ms};
use crate::config::Config;
use crate::slot::Slot;
use crate::state_file;

/// How often what was collected and what was answered is written through to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// Bytes of samples in memory while the disk refuses.
const RING: usize = 4 << 20;

/// Collects and sends until `stopped` is dropped or told; gives what it told last.
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
    info!(folder = %folder.display(), interval = ?config.write_interval(), "remote write begins");
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

/// Two agents in one spool would give the same numbers twice. The lock goes with the process; on a disk that takes no
/// file there is nothing to share either.
fn lock(folder: &Path) -> Option<Option<File>> {
    match state_file::lock(folder) {
        Ok(Some(lock)) => Some(Some(lock)),
        Ok(None) => {
            error!(folder = %folder.display(), "another agent uses this spool: nothing is sent by this one");
            None
        }
        Err(error) => {
            warn!(folder = %folder.display(), %error, "the spool's disk refuses: samples are kept in memory alone");
            Some(None)
        }
    }
}

/// An account and its file.
struct Kept {
    account: Rc<RefCell<Account>>,
    path: PathBuf,
    /// What the file says; `None`: nothing yet.
    saved: Option<Ledger>,
}

/// What one thread keeps of it.
struct Service {
    shared: Rc<Shared>,
    accounts: Vec<Kept>,
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
        collector: Collector,
        numbers: Slot<Vec<Numbers>>,
    ) -> Self {
        let path = |name: &str| folder.join(format!("{name}.ledger"));
        let past: Vec<_> = clients.iter().map(|(name, ..)| Past::read(&path(name))).collect();
        let known = past.iter().map(Past::known).max().unwrap_or(0);
        let all_new = past.iter().all(|past| matches!(past, Past::New));
        let limits = Limits {
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
            info!(destination = name, pending = ledger.pending(shared.spool.borrow().end()), "remote write to");
            let account = Account { name, ledger, requests: BTreeMap::new(), oldest_ms: None, parked: false };
            let account = Rc::new(RefCell::new(account));
            let destination = Destination::new(Rc::clone(&shared), Rc::clone(&account), client, settings);
            tokio::task::spawn_local(destination.run());
            accounts.push(Kept { account, path, saved });
        }
        let mut service = Self { shared, accounts, collector, numbers, failing: false };
        // A ledger is there before the first sample that it is about, or a crash would make that one's destination new.
        service.save();
        service
    }

    /// Takes a page that was just collected.
    fn take(&mut self, collected: &Arc<Collected>, every: Duration) {
        let (samples, newest) = self.collector.take(collected, &mut self.shared.spool.borrow_mut());
        *self.shared.newest.borrow_mut() = newest.map(Rc::new);
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

/// What an earlier run left of a destination's account.
enum Past {
    /// Nothing: it is new. Beside others it gets what is collected from now on; where nobody has a ledger, what is in the
    /// spool waits for whoever comes first.
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
                warn!(file = %path.display(), %error, "this ledger cannot be trusted: put aside, and what waits is sent again");
                if let Err(error) = state_file::put_aside(path, "damaged") {
                    error!(file = %path.display(), %error, "it cannot be put aside: remove it, nothing is released until then");
                }
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
