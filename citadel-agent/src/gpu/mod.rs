//! GPUs, read with NVML.
//!
//! ```text
//! worker (a thread): nvml::Session::pass --> energy::Ledger --> Slot<Report> --> scrapes: sources::{gpu, gpu_models}
//! events (a thread), kmsg (a task) --> Xids --------------------------------^
//! ```
//!
//! A scrape never calls NVML, so a hung driver delays nobody: the report becomes old, and [`Gpu::view`] shows that. The
//! order of files: `sample` (plain data) <- `energy` (pure) <- `nvml` (all calls) <- `events`, `worker` <- this.

pub mod energy;
mod events;
mod kmsg;
mod nvml;
pub mod pci;
pub mod sample;
mod worker;
pub mod xid;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use self::nvml::calls::Cost;
use self::sample::Pass;
pub use self::worker::Report;
use self::worker::{Order, Shared, Worker, orders};
pub use self::xid::Xids;
use crate::config::resolved;
use crate::control::{self, Answer, LONGEST_RELEASE, Orders};
use crate::discovery::inventory::Inventory;
use crate::discovery::owners::Owners;
use crate::host::Roots;
use crate::slot::Published;

/// A report older than this, or than three intervals if that is longer, indicates a hung driver.
const STALE: Duration = Duration::from_secs(5);

/// Time limit for opening NVML: without persistence mode it has to initialize each GPU first.
const OPENING: Duration = Duration::from_secs(60);

/// How long the agent waits for NVML to be closed when it stops.
const STOPPING: Duration = Duration::from_secs(2);

/// How long a release command waits for NVML to be closed.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// The GPUs of this host, sampled by a separate thread until this is dropped.
#[derive(Debug)]
pub struct Gpu {
    config: resolved::Gpu,
    roots: Roots,
    shared: Shared,
    orders: Sender<Order>,
    /// Disconnected once the sampling thread has ended.
    ended: Receiver<()>,
    started: Instant,
    inventory: Option<Inventory>,
    kmsg: Option<JoinHandle<()>>,
}

/// The current state of the GPUs.
#[derive(Debug)]
pub enum View {
    /// The host has none, they are disabled, or nothing is known yet.
    Absent,
    /// NVML is closed by a command.
    Released,
    /// A recent sample.
    Fresh(Published<Report>),
    /// NVML does not answer.
    Lost {
        /// Why.
        reason: String,
        /// The last report, with the GPUs that answered then.
        known: Option<Published<Report>>,
    },
}

impl View {
    /// The sample in it, if any.
    #[must_use]
    pub fn pass(&self) -> Option<&Pass> {
        let report = match self {
            View::Absent | View::Released => None,
            View::Fresh(report) => Some(report),
            View::Lost { known, .. } => known.as_ref(),
        };
        match &*report?.value {
            Report::Pass(sample) | Report::Failed { known: sample, .. } => Some(sample),
            Report::Released | Report::Absent => None,
        }
    }
}

impl Gpu {
    /// Starts sampling. Within a tokio runtime, the kernel log is read too.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: &resolved::Gpu, roots: &Roots) -> io::Result<Self> {
        let shared = Shared::default();
        let (send, receive) = orders();
        let worker = Worker { config: config.clone(), roots: roots.clone(), shared: shared.clone(), orders: receive };
        let (alive, ended) = mpsc::channel::<()>();
        let body = move || {
            // Dropped when the thread ends.
            let _alive = alive;
            worker.run();
        };
        // Not joined: a thread that hangs in the driver must not delay the agent's exit.
        thread::Builder::new().name("gpu-sampler".to_owned()).spawn(body)?;
        let mut gpu = Self {
            config: config.clone(),
            roots: roots.clone(),
            shared,
            orders: send,
            ended,
            started: Instant::now(),
            inventory: None,
            kmsg: None,
        };
        gpu.follow_kmsg();
        Ok(gpu)
    }

    /// Reads the kernel log if it can contain messages about GPUs.
    fn follow_kmsg(&mut self) {
        let gpus = pci::read_gpus(&self.roots.sys);
        self.shared.xids.know(gpus.iter().map(String::as_str));
        let expected = self.config.nvml_library.is_some() || !gpus.is_empty();
        if self.kmsg.is_some() || !self.config.enabled || !expected || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let path = self.roots.dev.join("kmsg");
        match kmsg::open(&path) {
            Ok(log) => self.kmsg = Some(tokio::spawn(kmsg::follow(log, Arc::clone(&self.shared.xids)))),
            Err(error) => warn!(
                %error, path = %path.display(),
                "cannot read the kernel log (CAP_SYSLOG); Xid errors after which NVML stops answering (79, 119, 120) are missed"
            ),
        }
    }

    /// Applies a new configuration.
    pub fn configure(&mut self, config: &resolved::Gpu) {
        if self.config == *config {
            return;
        }
        self.config = config.clone();
        _ = self.orders.send(Order::Configure(Box::new(config.clone())));
        if !config.enabled
            && let Some(kmsg) = self.kmsg.take()
        {
            kmsg.abort();
        }
        self.follow_kmsg();
    }

    /// Sets the newest inventory, used for attributing energy from the next pass on.
    pub fn know(&mut self, inventory: &Inventory) {
        if self.inventory.as_ref() != Some(inventory) {
            self.shared.owners.publish(Owners::new(inventory));
            self.inventory = Some(inventory.clone());
        }
    }

    /// Which processes belong to which model.
    #[must_use]
    pub fn owners(&self) -> Arc<Owners> {
        self.shared.owners.newest().map(|newest| newest.value).unwrap_or_default()
    }

    /// The current state. Never blocks.
    #[must_use]
    pub fn view(&self) -> View {
        if !self.config.enabled {
            return View::Absent;
        }
        let stale = STALE.max(self.config.sampling_interval * 3);
        let Some(newest) = self.shared.report.newest() else {
            let waited = self.started.elapsed();
            if waited <= OPENING {
                return View::Absent;
            }
            let reason = format!("NVML has not answered for {} s, since the agent started", waited.as_secs());
            return View::Lost { reason, known: None };
        };
        match &*newest.value {
            Report::Absent => View::Absent,
            Report::Released => View::Released,
            Report::Failed { reason, .. } => View::Lost { reason: reason.clone(), known: Some(newest) },
            Report::Pass(sample) if newest.age() <= stale && sample.all_lost() => {
                View::Lost { reason: sample.trouble().unwrap_or_default(), known: Some(newest) }
            }
            Report::Pass(_) if newest.age() <= stale => View::Fresh(newest),
            Report::Pass(_) => View::Lost { reason: self.silence(newest.age()), known: Some(newest) },
        }
    }

    fn silence(&self, age: Duration) -> String {
        match self.shared.running.now() {
            Some((call, running)) => {
                format!("{call} has not returned for {} s: the driver hangs (see the kernel log)", running.as_secs())
            }
            None => format!("no sample of the GPUs for {} s", age.as_secs()),
        }
    }

    /// For `/status`: how the GPUs are read, and their number.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        let view = self.view();
        let (state, reason) = match &view {
            View::Absent => ("absent", None),
            View::Released => ("released", None),
            View::Fresh(_) => match view.pass().and_then(Pass::trouble) {
                None => ("ok", None),
                Some(trouble) => ("partly", Some(trouble)),
            },
            View::Lost { reason, .. } => ("lost", Some(reason.clone())),
        };
        let gpus = view.pass().map(|sample| sample.gpus.len());
        let driver = view.pass().map(|sample| &sample.driver.version).filter(|version| !version.is_empty());
        serde_json::json!({ "status": state, "reason": reason, "gpus": gpus, "driver": driver })
    }

    /// Xid errors.
    #[must_use]
    pub fn xids(&self) -> &Xids {
        &self.shared.xids
    }

    /// Statistics of NVML calls, by function.
    #[must_use]
    pub fn costs(&self) -> BTreeMap<&'static str, Cost> {
        self.shared.costs.all()
    }

    /// Number of passes over the GPUs so far, and the CPU seconds of the sampling thread.
    #[must_use]
    pub fn work(&self) -> (u64, f64) {
        let work = &self.shared.work;
        (work.passes.load(Ordering::Relaxed), work.cpu_ns.load(Ordering::Relaxed) as f64 * 1e-9)
    }

    /// A handle for sending commands.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { orders: self.orders.clone(), shared: self.shared.clone() }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        _ = self.orders.send(Order::Stop);
        // It is better not to unload a library at exit while one of its calls is running.
        _ = self.ended.recv_timeout(STOPPING);
        if let Some(kmsg) = &self.kmsg {
            kmsg.abort();
        }
    }
}

impl Orders for Handle {
    fn carry_out(&self, order: &control::Order) -> Answer {
        match *order {
            control::Order::GpuRelease { seconds } if seconds > LONGEST_RELEASE.as_secs() => {
                Answer::Failed(format!("not released: {seconds} s is more than 24h"))
            }
            control::Order::GpuRelease { seconds } => match self.release(Duration::from_secs(seconds)) {
                Ok(()) => Answer::Done(format!("NVML released for {seconds} s; the GPUs can be reset now")),
                Err(reason) => Answer::Failed(format!("not released: {reason}")),
            },
            control::Order::GpuResume {} => {
                self.resume();
                Answer::Done("resuming NVML".to_owned())
            }
            _ => Answer::Failed("the sampling thread does not handle this order".to_owned()),
        }
    }
}

/// Sends commands to the sampling thread.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: Sender<Order>,
    shared: Shared,
}

impl Handle {
    /// Releases NVML for `time`, so that a GPU can be reset. Blocks until that is done, at most some seconds.
    ///
    /// # Errors
    /// It is not done yet, because an NVML call hangs. It will be done when the call returns.
    pub fn release(&self, time: Duration) -> Result<(), String> {
        let (send, done) = mpsc::channel();
        let ended = || "the sampling thread has ended; see the agent's log".to_owned();
        self.orders.send(Order::Release(time, send)).map_err(|_| ended())?;
        match done.recv_timeout(RELEASE_PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => Err(match self.shared.running.now() {
                Some((call, running)) => {
                    format!(
                        "{call} has not returned for {} s; NVML will be released as soon as it does",
                        running.as_secs()
                    )
                }
                None => "NVML is not released yet; it will be released after the current sampling pass".to_owned(),
            }),
        }
    }

    /// Ends the release early.
    pub fn resume(&self) {
        info!("resuming NVML");
        _ = self.orders.send(Order::Resume);
    }
}
