//! The sampling thread: opens NVML, samples, publishes, releases NVML on command, and retries when the driver is gone.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::events::Events;
use super::nvml::calls::{Costs, Running};
use super::nvml::{Kept, Library, OpenError, Options, Session};
use super::pci;
use super::sample::{Identity, Pass};
use super::xid::Xids;
use crate::config::resolved;
use crate::discovery::owners::Owners;
use crate::host::Roots;
use crate::slot::Slot;

/// Interval at which opening NVML is retried.
const REOPEN: Duration = Duration::from_secs(30);

/// Result of the thread.
#[derive(Debug)]
pub enum Report {
    /// A pass over the GPUs.
    Pass(Pass),
    /// NVML is closed by order.
    Released,
    /// This host has no NVIDIA GPU.
    Absent,
    /// There should be GPUs, but NVML does not answer; all known GPUs are in the sample as lost.
    Failed {
        /// The reason, and what to do.
        reason: String,
        /// The GPUs that answered before.
        known: Pass,
    },
}

/// A command for the thread.
pub(super) enum Order {
    /// Release NVML for this long, and report when that is done.
    Release(Duration, Sender<Result<(), String>>),
    /// Resume NVML immediately.
    Resume,
    /// Apply this configuration.
    Configure(Box<resolved::Gpu>),
    /// End.
    Stop,
}

/// State shared with the scrapes.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) report: Slot<Report>,
    pub(super) owners: Slot<Owners>,
    pub(super) costs: Arc<Costs>,
    pub(super) running: Arc<Running>,
    pub(super) xids: Arc<Xids>,
    pub(super) work: Arc<Work>,
}

/// Work of the sampling thread.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) passes: std::sync::atomic::AtomicU64,
    /// CPU time of the thread, nanoseconds.
    pub(super) cpu_ns: std::sync::atomic::AtomicU64,
}

pub(super) struct Worker {
    pub(super) config: resolved::Gpu,
    pub(super) roots: Roots,
    pub(super) shared: Shared,
    pub(super) orders: Receiver<Order>,
}

/// Why a session or a wait ended.
enum Next {
    /// Open NVML again.
    Open,
    /// Stay closed until this time.
    Closed(Instant),
    End,
}

impl Worker {
    /// Runs until stopped.
    pub(super) fn run(mut self) {
        let mut kept = Kept::default();
        let mut next = Next::Open;
        let mut complained = false;
        loop {
            next = match next {
                Next::End => return,
                Next::Closed(until) => {
                    self.shared.report.publish(Report::Released);
                    self.wait(until, true)
                }
                Next::Open if !self.config.enabled => {
                    self.shared.report.publish(Report::Absent);
                    self.wait(Instant::now() + REOPEN, false)
                }
                Next::Open => match Library::open(self.config.nvml_library.as_deref()) {
                    Ok(nvml) => {
                        complained = false;
                        self.session(Arc::new(nvml), &mut kept)
                    }
                    Err(error) => {
                        let report = self.no_nvml(&error, &kept);
                        if !std::mem::replace(&mut complained, true) {
                            match &report {
                                Report::Failed { reason, .. } => warn!(reason, "GPUs are not monitored"),
                                _ => info!("no NVIDIA GPU found"),
                            }
                        }
                        self.shared.report.publish(report);
                        self.wait(Instant::now() + REOPEN, false)
                    }
                },
            };
        }
    }

    /// What a failure to open NVML means: nothing on a host without a GPU, an error on one with.
    fn no_nvml(&self, error: &OpenError, kept: &Kept) -> Report {
        let gpus = pci::read_gpus(&self.roots.sys);
        self.shared.xids.know(gpus.iter().map(String::as_str));
        let reason = match error {
            OpenError::Failed(_) => error.to_string(),
            // The operator has configured it, so there should be a GPU.
            _ if self.config.nvml_library.is_some() => error.to_string(),
            _ if gpus.is_empty() => return Report::Absent,
            _ => format!("{error}; the host has NVIDIA GPUs ({}); install the driver's libraries", gpus.join(", ")),
        };
        let known = kept.lost(&reason);
        Report::Failed { reason, known }
    }

    /// Samples until a command or the driver ends it. NVML is then closed, unless it hangs.
    fn session(&mut self, nvml: Arc<Library>, kept: &mut Kept) -> Next {
        let sys: PathBuf = self.roots.sys.clone();
        let mut events: Option<Events> = None;
        let mut watched: Vec<Arc<Identity>> = Vec::new();
        let mut failure = None;
        let mut released: Option<(Duration, Sender<Result<(), String>>)> = None;
        let next = {
            let xids = Arc::clone(&self.shared.xids);
            let counters = (Arc::clone(&self.shared.costs), Arc::clone(&self.shared.running));
            let mut session = Session::new(&nvml, &sys, kept, &xids, counters);
            let mut due = Instant::now();
            loop {
                let options = Options {
                    compat: self.config.dcgm_compat.is_some(),
                    pcie_throughput: self.config.pcie_throughput,
                    fec: self.config.nvlink_fec,
                    interval: self.config.sampling_interval,
                };
                let owners = self.shared.owners.newest().map(|newest| newest.value).unwrap_or_default();
                match session.pass(&options, &owners) {
                    Ok(sample) => self.publish(sample),
                    Err(reason) => {
                        failure = Some(reason);
                        break Next::Open;
                    }
                }
                // A GPU that was added or came back must be registered too.
                let gpus: Vec<_> = session.devices().map(|(id, _)| Arc::clone(id)).collect();
                if watched != gpus {
                    if let Some(old) = events.take() {
                        old.stop();
                    }
                    let (xids, costs) = (Arc::clone(&self.shared.xids), Arc::clone(&self.shared.costs));
                    events = Events::start(&nvml, gpus.clone(), xids, costs);
                    watched = gpus;
                }
                // A steady rhythm, without catching up on missed passes.
                due = (due + self.config.sampling_interval).max(Instant::now());
                match self.orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) | Ok(Order::Resume) => {}
                    Err(RecvTimeoutError::Disconnected) | Ok(Order::Stop) => break Next::End,
                    Ok(Order::Release(time, done)) => {
                        let until = Instant::now() + time;
                        released = Some((time, done));
                        break Next::Closed(until);
                    }
                    Ok(Order::Configure(config)) => {
                        let same = config.enabled && config.nvml_library == self.config.nvml_library;
                        self.config = *config;
                        due = Instant::now();
                        if !same {
                            break Next::Open;
                        }
                    }
                }
            }
        };
        let ended = events.is_none_or(Events::stop);
        // Closes NVML, which the event thread has released.
        drop(nvml);
        if let Some((time, done)) = released {
            let result = if ended {
                info!(seconds = time.as_secs(), "NVML released");
                // Before the command is answered.
                self.shared.report.publish(Report::Released);
                Ok(())
            } else {
                Err("the wait for NVML events has not returned, so NVML stays open".to_owned())
            };
            _ = done.send(result);
        }
        if let Some(reason) = failure {
            warn!(reason, "the NVIDIA driver does not answer, retrying every 30 s");
            self.shared.report.publish(Report::Failed { known: kept.lost(&reason), reason });
            return self.wait(Instant::now() + REOPEN, false);
        }
        next
    }

    fn publish(&self, sample: Pass) {
        use std::sync::atomic::Ordering::Relaxed;
        self.shared.work.passes.fetch_add(1, Relaxed);
        self.shared.work.cpu_ns.store(thread_cpu_ns(), Relaxed);
        self.shared.report.publish(Report::Pass(sample));
    }

    /// Waits with NVML closed. If `released` by a command, only a command or the timeout ends it.
    fn wait(&mut self, until: Instant, released: bool) -> Next {
        match self.orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) | Ok(Order::Resume) => {
                if released {
                    info!("NVML resumed");
                }
                Next::Open
            }
            Err(RecvTimeoutError::Disconnected) | Ok(Order::Stop) => Next::End,
            Ok(Order::Release(time, done)) => {
                self.shared.report.publish(Report::Released);
                _ = done.send(Ok(()));
                Next::Closed(Instant::now() + time)
            }
            Ok(Order::Configure(config)) => {
                self.config = *config;
                if released { Next::Closed(until) } else { Next::Open }
            }
        }
    }
}

/// CPU time of the calling thread in nanoseconds; 0 if unknown.
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the argument points to a valid struct.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return 0;
    }
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A channel for orders.
pub(super) fn orders() -> (Sender<Order>, Receiver<Order>) {
    mpsc::channel()
}
