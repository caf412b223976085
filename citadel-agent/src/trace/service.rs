//! Takes the records out of the kernel's ring buffer, and answers who asks for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use citadel_agent_common::trace::Tracing;
use tracing::warn;

use super::filter::Filter;
use super::request::{Kept, Request, Requests};
use super::running::{ModelRequests, Oldest};
use super::store::{Since, Store};
use crate::clock::{monotonic_ns, wall_ms};
use crate::ebpf::records::{FEW, RequestRecords};

/// How often records are taken while somebody traces: the ring buffer holds 2,000.
const TRACED: Duration = Duration::from_millis(40);

/// The same while nobody does.
const QUIET: Duration = Duration::from_secs(2);

/// Slowest requests of a model in an answer.
const SLOWEST: usize = 10;

/// For how long the page is answered the same.
const SHOWN: Duration = Duration::from_secs(1);

/// How long all requests are recorded after somebody has asked for them.
const LEASE: Duration = Duration::from_secs(10);

/// Single requests. Clones share them; a thread takes them from the kernel as long as one is left.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    records: RequestRecords,
    /// Whether clients' addresses are kept.
    addresses: AtomicBool,
    /// The models' names, by port.
    names: Mutex<BTreeMap<u16, String>>,
    kept: Mutex<State>,
    thread: OnceLock<Thread>,
    /// What the page was answered last, and when.
    shown: Mutex<Option<(Instant, Vec<ModelRequests>)>>,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    /// Until when all requests are recorded.
    traced_until: Option<Instant>,
}

impl Tracer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start(addresses: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            records: RequestRecords::default(),
            addresses: addresses.into(),
            names: Mutex::default(),
            kept: Mutex::default(),
            thread: OnceLock::new(),
            shown: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        let thread = thread::Builder::new().name("trace".to_owned()).spawn(move || run(&weak))?;
        _ = shared.thread.set(thread.thread().clone());
        Ok(Self(shared))
    }

    /// What the programs' maps are passed to.
    #[must_use]
    pub fn records(&self) -> &RequestRecords {
        &self.0.records
    }

    /// Learns the models' names, by port.
    pub fn know(&self, names: impl Iterator<Item = (u16, String)>) {
        *self.0.names() = names.collect();
    }

    /// Whether the addresses of clients are kept from now on; if not, those that were are forgotten.
    pub fn show_addresses(&self, show: bool) {
        self.0.addresses.store(show, Relaxed);
        if !show {
            self.0.kept().store.forget_addresses();
        }
    }

    /// Requests from number `since` on, of a port or all. All requests are recorded from now on, for some seconds. `None` if nothing
    /// records them.
    pub fn follow(&self, since: Option<u64>, port: Option<u16>, filter: &Filter) -> Option<Requests> {
        if !self.0.records.are_attached() {
            return None;
        }
        let mut state = self.0.kept();
        let was_traced = state.is_traced();
        state.traced_until = Some(Instant::now() + LEASE);
        if !was_traced {
            // What is in the ring buffer was recorded before.
            self.0.take(&mut state, false);
            self.0.records.collect_details(number_of_now());
            self.0.allow(&state);
            if let Some(thread) = self.0.thread.get() {
                thread.unpark();
            }
        } else {
            self.0.take(&mut state, true);
        }
        let Since { requests, next, missed } =
            state.store.since(since.unwrap_or_else(|| state.store.end()), port, filter);
        Some(self.answer(&requests, next, missed))
    }

    /// The newest `last` of the slowest and failed requests of the last hour. `None` if nothing records them.
    pub fn last(&self, last: usize, port: Option<u16>, filter: &Filter) -> Option<Requests> {
        if !self.0.records.are_attached() {
            return None;
        }
        let mut state = self.0.kept();
        let traced = state.is_traced();
        self.0.take(&mut state, traced);
        Some(self.answer(&state.store.last(last, port, filter), state.store.end(), 0))
    }

    /// Of each model, or of one port: the oldest requests in flight, read now, and the slowest ones of the last hour. `None` if nothing
    /// records them.
    ///
    /// # Errors
    /// The kernel refuses to list those in flight.
    pub fn of_models(&self, port: Option<u16>) -> io::Result<Option<Vec<ModelRequests>>> {
        if !self.0.records.are_attached() {
            return Ok(None);
        }
        let mut oldest: BTreeMap<u16, Oldest> = BTreeMap::new();
        let listed =
            self.0.records.running(|port, request| oldest.entry(port).or_default().add(request)).transpose()?;
        let addresses = self.0.addresses.load(Relaxed);
        let mut state = self.0.kept();
        let traced = state.is_traced();
        self.0.take(&mut state, traced);
        let names = self.0.names();
        let model = |port: u16| {
            let name = names.get(&port).map_or("", String::as_str);
            let running = oldest.remove(&port).unwrap_or_default();
            ModelRequests {
                model: name.to_owned(),
                port,
                in_flight: listed.map(|()| running.count()),
                running: running.requests(addresses),
                slowest: state.store.slowest(port, SLOWEST).iter().map(|kept| Request::of(kept, name)).collect(),
            }
        };
        let wanted = |measured: &u16| port.is_none_or(|port| port == *measured);
        Ok(Some(self.0.records.ports().into_iter().filter(wanted).map(model).collect()))
    }

    /// [`Self::of_models`] for everybody: without addresses and IDs, and read at most once a second however many ask. Empty if the
    /// kernel refuses.
    #[must_use]
    pub fn for_the_page(&self) -> Vec<ModelRequests> {
        let mut shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            Some((at, requests)) if at.elapsed() < SHOWN => requests.clone(),
            _ => {
                let requests =
                    self.of_models(None).inspect_err(|error| warn!(%error, "cannot list requests in flight"));
                let requests = requests.ok().flatten().unwrap_or_default();
                let requests: Vec<_> = requests.into_iter().map(ModelRequests::anonymous).collect();
                *shown = Some((Instant::now(), requests.clone()));
                requests
            }
        }
    }

    fn answer(&self, requests: &[Kept], next: u64, missed: u64) -> Requests {
        let names = self.0.names();
        let name = |port: u16| names.get(&port).map_or("", String::as_str);
        let requests = requests.iter().map(|kept| Request::of(kept, name(kept.port))).collect();
        Requests { requests, next, missed, lost: self.0.records.lost() }
    }
}

impl State {
    fn is_traced(&self) -> bool {
        self.traced_until.is_some()
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, BTreeMap<u16, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, State> {
        // Consistent between statements.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the records out of the ring buffer; `traced`: somebody wants all of them.
    fn take(&self, state: &mut State, traced: bool) {
        let (now_ns, now_ms) = (monotonic_ns(), wall_ms());
        let addresses = self.addresses.load(Relaxed);
        self.records.take(|port, record| {
            let age_ms = i64::try_from(now_ns.saturating_sub(record.ended_ns) / 1_000_000).unwrap_or(i64::MAX);
            let kept = Kept { record, port, ended_ms: now_ms.saturating_sub(age_ms) };
            state.store.add(if addresses { kept } else { kept.without_client() }, traced);
        });
    }

    /// Says which requests are recorded until the next look.
    fn allow(&self, state: &State) {
        let now_ms = wall_ms();
        for port in self.records.ports() {
            let (from_ns, most) = match state.is_traced() {
                true => (0, u64::MAX),
                false => (state.store.threshold_ns(port, now_ms), FEW),
            };
            self.records.record(port, from_ns, most);
        }
    }

    /// One look; returns when the next one is due.
    fn look(&self) -> Duration {
        let mut state = self.kept();
        let was_traced = state.is_traced();
        self.take(&mut state, was_traced);
        if state.traced_until.is_some_and(|until| until <= Instant::now()) {
            state.traced_until = None;
            self.records.collect_details(0);
            state.store.forget_recent();
        }
        self.allow(&state);
        if state.is_traced() { TRACED } else { QUIET }
    }
}

fn run(shared: &Weak<Shared>) {
    while let Some(alive) = shared.upgrade() {
        let pause = alive.look();
        drop(alive);
        thread::park_timeout(pause);
    }
}

/// A number that no tracing before had, not even one of another process: it begins in another second.
fn number_of_now() -> Tracing {
    ((monotonic_ns() / 1_000_000_000) as Tracing).max(1)
}
