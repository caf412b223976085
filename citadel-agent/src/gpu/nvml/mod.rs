//! NVML: all calls and their meaning. Everything here runs on the sampling thread (events have their own thread),
//! because any call can block in the driver.
//!
//! The wrapper's functions are used where they exist, and the raw functions that it exposes otherwise. [`Library`]
//! prevents its panics in Drop.

mod board;
pub(in crate::gpu) mod calls;
mod compat;
mod fields;
mod gpm;
mod joules;
mod library;
mod limits;
mod links;
mod measure;
mod memory;
mod mig;
mod processes;
mod raw;
mod seldom;
mod table;
mod unbound;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use tracing::{info, warn};

use self::board::Board;
use self::calls::{Calls, Costs, Gone, Running};
use self::fields::Unwrapped;
pub(in crate::gpu) use self::library::{Library, OpenError};
use super::pci;
use super::sample::{Driver, Gpu, Identity, Pass, Reading};
use super::xid::Xids;
use crate::discovery::owners::Owners;
use crate::gpu::energy::{Ledger, parts};

/// Interval at which a lost GPU is retried.
const RETRY: Duration = Duration::from_secs(10);

/// If the time between two passes is longer, the shares of SM time are unknown: utilization samples cover only some
/// seconds.
const LONGEST_SPLIT: Duration = Duration::from_secs(10);

/// Optional readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gpu) struct Options {
    /// Values needed only for dcgm-exporter's names.
    pub(in crate::gpu) compat: bool,
    /// PCIe throughput of GPUs without a counter, although the call blocks.
    pub(in crate::gpu) pcie_throughput: bool,
    /// FEC corrections of each NVLink, although these are sixteen series per link.
    pub(in crate::gpu) fec: bool,
    /// Sampling interval.
    pub(in crate::gpu) interval: Duration,
}

impl Options {
    /// Interval for slowly changing values and for searching the bus: ten passes, between one second and ten.
    fn seldom_period(&self) -> Duration {
        (self.interval * 10).clamp(Duration::from_secs(1), Duration::from_secs(10))
    }

    /// Interval for checking the links.
    fn links_period(&self) -> Duration {
        self.seldom_period() / 2
    }
}

/// State that outlives a session: all counts.
#[derive(Default)]
pub(in crate::gpu) struct Kept {
    /// Energy by model.
    ledger: Ledger,
    /// Every GPU that has ever answered, by UUID.
    known: BTreeMap<String, Arc<Identity>>,
    /// PCIe bytes, by UUID.
    pcie: HashMap<String, [Unwrapped; 2]>,
    /// The driver as of its last answer.
    driver: Driver,
}

impl Kept {
    /// All GPUs as lost, for when there is no driver to query.
    pub(in crate::gpu) fn lost(&self, reason: &str) -> Pass {
        let mut gpus: Vec<_> = self.known.values().map(|id| self.gpu(id, Err(reason.to_owned()))).collect();
        gpus.sort_by_key(|gpu| gpu.id.index);
        Pass { gpus, driver: self.driver.clone(), ..Pass::default() }
    }

    fn gpu(&self, id: &Arc<Identity>, reading: Result<Box<Reading>, String>) -> Gpu {
        Gpu { id: Arc::clone(id), reading, energy: self.ledger.charges(&id.uuid) }
    }
}

/// A GPU that NVML lists, or once listed.
enum Tracked<'n> {
    Here(Box<Board<'n>>),
    /// Its identity (without a UUID if it never answered), why it does not answer, and when to retry.
    Lost {
        id: Arc<Identity>,
        reason: String,
        retry: Instant,
    },
}

impl Tracked<'_> {
    fn lost(id: Arc<Identity>, reason: String) -> Self {
        Tracked::Lost { id, reason, retry: Instant::now() + RETRY }
    }

    fn id(&self) -> &Arc<Identity> {
        match self {
            Tracked::Here(board) => &board.id,
            Tracked::Lost { id, .. } => id,
        }
    }
}

/// NVML from opening to closing.
pub(in crate::gpu) struct Session<'n> {
    nvml: &'n Library,
    sys: &'n Path,
    driver: Driver,
    calls: Calls,
    /// The number of GPUs in NVML, and the suspended ones, at the last search.
    looked: Option<(u32, Vec<String>)>,
    tracked: Vec<Tracked<'n>>,
    kept: &'n mut Kept,
    xids: &'n Xids,
    /// The GPUs on the PCI bus, and when it was searched.
    bus: Vec<String>,
    searched: Option<Instant>,
}

impl<'n> Session<'n> {
    pub(in crate::gpu) fn new(
        nvml: &'n Library,
        sys: &'n Path,
        kept: &'n mut Kept,
        xids: &'n Xids,
        (costs, running): (Arc<Costs>, Arc<Running>),
    ) -> Self {
        let calls = Calls::new(costs, running);
        let version = calls.timed("nvmlSystemGetDriverVersion", || nvml.sys_driver_version()).unwrap_or_default();
        let cuda = calls.timed("nvmlSystemGetCudaDriverVersion_v2", || nvml.sys_cuda_driver_version());
        let cuda = cuda.map(|cuda| format!("{}.{}", cuda / 1000, cuda % 1000 / 10)).unwrap_or_default();
        let driver = Driver { version, cuda };
        info!(driver = driver.version, cuda = driver.cuda, "NVML initialized");
        kept.driver = driver.clone();
        Self {
            nvml,
            sys,
            driver,
            calls,
            looked: None,
            tracked: Vec::new(),
            kept,
            xids,
            bus: Vec::new(),
            searched: None,
        }
    }

    /// The answering GPUs with the wrapper's devices.
    pub(in crate::gpu) fn devices(&self) -> impl Iterator<Item = (&Arc<Identity>, &Device<'n>)> {
        self.tracked.iter().filter_map(|one| match one {
            Tracked::Here(board) => Some((&board.id, board.device())),
            Tracked::Lost { .. } => None,
        })
    }

    /// One pass over all GPUs.
    ///
    /// # Errors
    /// The driver is gone. A lost GPU is part of the pass.
    pub(in crate::gpu) fn pass(&mut self, options: &Options, owners: &Owners) -> Result<Pass, String> {
        self.search_bus(options);
        let suspended: Vec<String> =
            self.bus.iter().filter(|address| pci::is_suspended(self.sys, address)).cloned().collect();
        self.look_for_gpus(&suspended)?;
        let ecc_event = self.xids.take_ecc();
        let missing = self.missing(&suspended);
        let mut sample = Pass { driver: self.driver.clone(), gpus: Vec::new(), suspended, missing };
        for one in &mut self.tracked {
            if let Tracked::Lost { id, retry, .. } = one
                && *retry <= Instant::now()
                && !sample.suspended.contains(&id.pci)
            {
                let id = Arc::clone(id);
                // A GPU that came back has a new handle.
                let device = match id.uuid.as_str() {
                    "" => by_index(self.nvml, &self.calls, id.index),
                    uuid => self.calls.timed("nvmlDeviceGetHandleByUUID", || self.nvml.device_by_uuid(uuid)),
                };
                *one = take(self.nvml, &mut self.calls, self.kept, device, &id)?;
                self.xids.know([one.id().pci.as_str()]);
            }
            let Tracked::Here(board) = one else { continue };
            if sample.suspended.contains(&board.id.pci) {
                continue;
            }
            if ecc_event {
                board.expect_ecc();
            }
            match board.read(&mut self.calls, options) {
                Ok(reading) => {
                    if let Some(energy) = reading.energy_mj {
                        let seen = board.since_last().is_some_and(|time| time <= LONGEST_SPLIT);
                        let parts = parts(&reading.processes, owners).filter(|_| seen);
                        self.kept.ledger.charge(&board.id.uuid, energy, parts.as_deref());
                    }
                    self.kept.pcie.insert(board.id.uuid.clone(), board.pcie);
                    sample.gpus.push(self.kept.gpu(&board.id, Ok(Box::new(reading))));
                }
                Err(Gone::Gpu(reason)) => {
                    warn!(gpu = board.id.uuid, index = board.id.index, reason, "GPU lost, retrying every 10 s");
                    *one = Tracked::lost(Arc::clone(&board.id), reason);
                }
                Err(Gone::Driver(reason)) => return Err(reason),
            }
        }
        for one in &self.tracked {
            if let Tracked::Lost { id, reason, .. } = one {
                sample.gpus.push(self.kept.gpu(id, Err(reason.clone())));
            }
        }
        sample.gpus.sort_by_key(|gpu| gpu.id.index);
        Ok(sample)
    }

    /// Searches the PCI bus for GPUs, at intervals, because a host has hundreds of devices.
    fn search_bus(&mut self, options: &Options) {
        if self.searched.is_some_and(|searched| searched.elapsed() < options.seldom_period()) {
            return;
        }
        self.bus = pci::read_gpus(self.sys);
        self.searched = Some(Instant::now());
        self.xids.know(self.bus.iter().map(String::as_str));
    }

    /// GPUs on the bus that NVML does not list and that are not bound to another driver.
    fn missing(&self, suspended: &[String]) -> Vec<String> {
        let has =
            |address: &String| suspended.contains(address) || self.tracked.iter().any(|one| one.id().pci == *address);
        self.bus.iter().filter(|address| !has(address) && pci::is_nvidias(self.sys, address)).cloned().collect()
    }

    /// Opens the existing GPUs if their number has changed, or one was suspended or woke up.
    fn look_for_gpus(&mut self, suspended: &[String]) -> Result<(), String> {
        let count = self.calls.timed("nvmlDeviceGetCount_v2", || self.nvml.device_count());
        let count = count.map_err(|error| format!("nvmlDeviceGetCount_v2: {error}"))?;
        if self.looked.as_ref().is_some_and(|(before, slept)| *before == count && slept == suspended) {
            return Ok(());
        }
        let mut found = Vec::new();
        if suspended.is_empty() {
            for index in 0..count {
                // It may already be known by its name.
                let known = self.kept.known.values().find(|id| id.index == index).cloned();
                let id = known.unwrap_or_else(|| Arc::new(Identity { index, ..Identity::default() }));
                found.push((by_index(self.nvml, &self.calls, index), id));
            }
        } else {
            // By index, NVML may wake each GPU to enumerate them; by address, only the requested one. NVML numbers GPUs
            // in the order of their addresses, including suspended ones.
            for (index, address) in (0..).zip(&self.bus).filter(|(_, address)| !suspended.contains(address)) {
                let ask = || self.nvml.device_by_pci_bus_id(address.as_str());
                let device = self.calls.timed("nvmlDeviceGetHandleByPciBusId_v2", ask);
                let known = self.kept.known.values().find(|id| id.pci == *address).cloned();
                let unknown = || Arc::new(Identity { index, pci: address.clone(), ..Identity::default() });
                found.push((device, known.unwrap_or_else(unknown)));
            }
        }
        let mut tracked = Vec::new();
        for (device, id) in found {
            let one = take(self.nvml, &mut self.calls, self.kept, device, &id)?;
            self.xids.know([one.id().pci.as_str()]);
            tracked.push(one);
        }
        // One that answered before and is not listed now.
        for id in self.kept.known.values() {
            if !tracked.iter().any(|one| one.id().uuid == id.uuid) && !suspended.contains(&id.pci) {
                tracked.push(Tracked::lost(Arc::clone(id), "NVML does not list it".to_owned()));
            }
        }
        self.tracked = tracked;
        self.looked = Some((count, suspended.to_owned()));
        Ok(())
    }
}

fn by_index<'n>(nvml: &'n Library, calls: &Calls, index: u32) -> Result<Device<'n>, NvmlError> {
    calls.timed("nvmlDeviceGetHandleByIndex_v2", || nvml.device_by_index(index))
}

/// Opens a GPU; `id` is its previous identity, in case it does not answer.
fn take<'n>(
    nvml: &'n Library,
    calls: &mut Calls,
    kept: &mut Kept,
    device: Result<Device<'n>, NvmlError>,
    id: &Arc<Identity>,
) -> Result<Tracked<'n>, String> {
    let device = match device {
        Ok(device) => device,
        Err(error) => return Ok(Tracked::lost(Arc::clone(id), error.to_string())),
    };
    match Board::attach(calls, device, nvml.has_gpm()) {
        Ok(mut board) => {
            board.pcie = kept.pcie.get(&board.id.uuid).copied().unwrap_or_default().map(Unwrapped::resumed);
            kept.known.insert(board.id.uuid.clone(), Arc::clone(&board.id));
            Ok(Tracked::Here(Box::new(board)))
        }
        Err(Gone::Gpu(reason)) => Ok(Tracked::lost(Arc::clone(id), reason)),
        Err(Gone::Driver(reason)) => Err(reason),
    }
}
