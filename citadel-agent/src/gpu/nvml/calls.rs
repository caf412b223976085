//! Every call of NVML goes through here: timed, counted where it fails, watched while it runs, and not made again where
//! the GPU has no such thing.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use citadel_agent_common::hist::Histogram;
use nvml_wrapper::error::NvmlError;

/// What the calls of one function cost so far.
#[derive(Clone, Debug)]
pub struct Cost {
    /// How long they took.
    pub seconds: Box<Histogram>,
    /// How many failed for another reason than that there is no such thing.
    pub errors: u64,
}

/// What all calls cost, shared with the scrapes.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Costs {
    by_call: Mutex<BTreeMap<&'static str, Cost>>,
}

impl Costs {
    /// A copy, by function.
    #[must_use]
    pub(in crate::gpu) fn all(&self) -> BTreeMap<&'static str, Cost> {
        self.by_call.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::gpu) fn add(&self, call: &'static str, took: Duration, failed: bool) {
        let mut costs = self.by_call.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Cost { seconds: Box::new(Histogram::EMPTY), errors: 0 };
        let cost = costs.entry(call).or_insert_with(new);
        cost.seconds.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        cost.errors += u64::from(failed);
    }
}

/// The call that is under way on the sampling thread, for whoever finds that it does not come back.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Running {
    now: Mutex<Option<(&'static str, Instant)>>,
}

impl Running {
    /// The function, and for how long it has been running.
    #[must_use]
    pub(in crate::gpu) fn now(&self) -> Option<(&'static str, Duration)> {
        let now = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.map(|(call, since)| (call, since.elapsed()))
    }

    fn set(&self, now: Option<(&'static str, Instant)>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Why there is no use in asking on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::gpu) enum Gone {
    /// This GPU does not answer; the others may.
    #[error("{0}")]
    Gpu(String),
    /// The driver does not answer, for any GPU.
    #[error("{0}")]
    Driver(String),
}

/// Makes calls and remembers what does not exist.
pub(super) struct Calls {
    costs: Arc<Costs>,
    running: Arc<Running>,
    /// Functions that a GPU (by UUID) does not have for an argument.
    unsupported: HashSet<(Arc<str>, &'static str, u32)>,
}

impl Calls {
    pub(super) fn new(costs: Arc<Costs>, running: Arc<Running>) -> Self {
        Self { costs, running, unsupported: HashSet::new() }
    }

    /// Makes a call, timed.
    pub(super) fn timed<T>(
        &self,
        call: &'static str,
        f: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<T, NvmlError> {
        let begin = Instant::now();
        self.running.set(Some((call, begin)));
        let result = f();
        self.running.set(None);
        let failed =
            matches!(&result, Err(error) if meaning(error) != Meaning::Nothing && meaning(error) != Meaning::Never);
        self.costs.add(call, begin.elapsed(), failed);
        result
    }

    /// Asks a GPU: `None` where it has no answer, now or ever. `argument` tells calls of one function apart.
    pub(super) fn ask<T>(
        &mut self,
        gpu: &Arc<str>,
        call: &'static str,
        argument: u32,
        mut f: impl FnMut() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Gone> {
        let key = (Arc::clone(gpu), call, argument);
        if self.unsupported.contains(&key) {
            return Ok(None);
        }
        let mut result = self.timed(call, &mut f);
        // The answer grew between the count and the list: once more, with the new count.
        if matches!(result, Err(NvmlError::InsufficientSize(_))) {
            result = self.timed(call, &mut f);
        }
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::Never => {
                self.unsupported.insert(key);
                Ok(None)
            }
            Meaning::Nothing | Meaning::Failed => Ok(None),
            Meaning::GpuGone => Err(Gone::Gpu(format!("{call}: {error}"))),
            Meaning::DriverGone => Err(Gone::Driver(format!("{call}: {error}"))),
        }
    }
}

impl Calls {
    /// Has a GPU asked again for all that it did not have.
    pub(super) fn forget(&mut self, gpu: &Arc<str>) {
        self.unsupported.retain(|(other, ..)| other != gpu);
    }
}

/// What an error says about the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// There is no such thing, and will not be.
    Never,
    /// There is nothing to tell just now.
    Nothing,
    /// It failed; the next time it may not.
    Failed,
    /// The GPU is lost.
    GpuGone,
    /// The driver is.
    DriverGone,
}

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH` and `NVML_ERROR_DEPRECATED`, which the wrapper has no name for: this driver
/// does not take the structure, so it has no such function for us.
const VERSION_MISMATCH: u32 = 25;
const DEPRECATED: u32 = 26;
/// `NVML_ERROR_GPU_NOT_FOUND`.
const GPU_NOT_FOUND: u32 = 28;

pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        // All arguments here are valid ones, so one that is refused is newer than the driver, or not for this GPU.
        | NvmlError::InvalidArg
        | NvmlError::UnexpectedVariant(VERSION_MISMATCH | DEPRECATED) => Meaning::Never,
        NvmlError::NotFound | NvmlError::NoData | NvmlError::Timeout => Meaning::Nothing,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Meaning::GpuGone,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => Meaning::DriverGone,
        _ => Meaning::Failed,
    }
}
