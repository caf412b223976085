//! NVML events: Xid and ECC errors as they occur. On a separate thread, because waiting for them blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use tracing::{info, warn};

use super::nvml::Library;
use super::nvml::calls::Costs;
use super::sample::Identity;
use super::xid::{Reporter, UNKNOWN, Xids};

/// Maximum time of a wait, which closing NVML may have to wait for.
const WAIT_MS: u32 = 500;

/// Additional time that closing waits for the thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread that waits for events.
#[derive(Debug)]
pub(super) struct Events {
    stop: Arc<AtomicBool>,
    /// Disconnected once the thread has released NVML.
    done: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Waits for events of `gpus`. `None` if neither they nor this library support any.
    pub(super) fn start(
        nvml: &Arc<Library>,
        gpus: Vec<Arc<Identity>>,
        xids: Arc<Xids>,
        costs: Arc<Costs>,
    ) -> Option<Self> {
        if gpus.is_empty() || !nvml.has_events() {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (held, done) = mpsc::channel();
        let own = Watch { nvml: Arc::clone(nvml), gpus, xids, costs, stop: Arc::clone(&stop) };
        let body = move || {
            // Dropped when the thread ends, after NVML.
            let _held = held;
            own.run();
        };
        match thread::Builder::new().name("gpu-events".to_owned()).spawn(body) {
            Ok(thread) => Some(Self { stop, done, thread: Some(thread) }),
            Err(error) => {
                warn!(%error, "cannot start the thread for NVML events; reading Xids only from the kernel log");
                None
            }
        }
    }

    /// Ends the thread. Returns false if it is blocked in NVML, which then stays open.
    pub(super) fn stop(mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let ended = matches!(
            self.done.recv_timeout(Duration::from_millis(WAIT_MS.into()) + PATIENCE),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
        if ended && let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        ended
    }
}

struct Watch {
    nvml: Arc<Library>,
    gpus: Vec<Arc<Identity>>,
    xids: Arc<Xids>,
    costs: Arc<Costs>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn run(self) {
        let wanted =
            EventTypes::CRITICAL_XID_ERROR | EventTypes::SINGLE_BIT_ECC_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
        let mut set = match self.nvml.create_event_set() {
            Ok(set) => set,
            Err(error) => {
                return info!(%error, "NVML does not support events here; reading Xids only from the kernel log");
            }
        };
        let mut handles = Vec::new();
        for id in &self.gpus {
            let Ok(device) = self.nvml.device_by_uuid(id.uuid.as_str()) else { continue };
            let types = device.supported_event_types().unwrap_or(EventTypes::empty()) & wanted;
            if types.is_empty() {
                continue;
            }
            set = match device.register_events(types, set) {
                Ok(set) => set,
                Err(error) => {
                    return warn!(%error, gpu = id.uuid, "cannot register for NVML events; reading Xids only from the kernel log");
                }
            };
            // SAFETY: only compared, never dereferenced.
            handles.push((unsafe { device.handle() }, Arc::clone(id)));
        }
        if handles.is_empty() {
            return;
        }
        while !self.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let event = match set.wait(WAIT_MS) {
                Ok(event) => event,
                Err(NvmlError::Timeout) => continue,
                Err(error) => {
                    self.costs.add("nvmlEventSetWait_v2", begin.elapsed(), true);
                    return warn!(%error, "NVML events failed; reading Xids only from the kernel log");
                }
            };
            // SAFETY: only compared, never dereferenced.
            let handle = unsafe { event.device.handle() };
            let Some((_, id)) = handles.iter().find(|(other, _)| *other == handle) else { continue };
            if event.event_type.contains(EventTypes::CRITICAL_XID_ERROR) {
                let xid = match event.event_data {
                    Some(XidError::Value(xid)) => xid,
                    Some(XidError::Unknown) | None => UNKNOWN,
                };
                // A failing GPU can report thousands.
                if let Ok(count) = self.xids.count(Reporter::Nvml, &id.pci, xid)
                    && count.is_power_of_two()
                {
                    warn!(gpu = id.uuid, index = id.index, pci = id.pci, xid, count, "Xid");
                }
            } else {
                info!(gpu = id.uuid, index = id.index, "ECC error");
                self.xids.expect_ecc();
            }
        }
    }
}
