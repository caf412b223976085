//! Wraps every NVML call: measures it, counts failures, tracks it while it runs, avoids repeating unsupported calls,
//! and rejects impossible values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use citadel_agent_common::hist::Histogram;
use nvml_wrapper::error::NvmlError;
use tracing::warn;

/// Interval at which unsupported calls are retried, because modes, firmware and links change while the driver is
/// loaded.
pub(super) const UNSUPPORTED: Duration = Duration::from_secs(300);

/// Statistics of the calls of a function.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Durations.
    pub seconds: Box<Histogram>,
    /// Failures, except for unsupported calls.
    pub errors: u64,
    /// Rejected values.
    pub refused: u64,
}

/// Statistics of all calls, shared with the scrapes.
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
        self.change(call, |cost| {
            cost.seconds.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            cost.errors += u64::from(failed);
        });
    }

    fn refuse(&self, call: &'static str) {
        self.change(call, |cost| cost.refused += 1);
    }

    fn change(&self, call: &'static str, change: impl FnOnce(&mut Cost)) {
        let mut costs = self.by_call.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Cost { seconds: Box::new(Histogram::EMPTY), errors: 0, refused: 0 };
        change(costs.entry(call).or_insert_with(new));
    }
}

/// The current call of the sampling thread, for detecting that it hangs.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Running {
    now: Mutex<Option<(&'static str, Instant)>>,
}

impl Running {
    /// The function, and how long it has been running.
    #[must_use]
    pub(in crate::gpu) fn now(&self) -> Option<(&'static str, Duration)> {
        let now = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.map(|(call, since)| (call, since.elapsed()))
    }

    fn set(&self, now: Option<(&'static str, Instant)>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Why it is useless to continue.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::gpu) enum Gone {
    /// This GPU does not answer; others may.
    #[error("{0}")]
    Gpu(String),
    /// The driver does not answer for any GPU.
    #[error("{0}")]
    Driver(String),
}

/// Makes calls and remembers unsupported ones.
pub(super) struct Calls {
    costs: Arc<Costs>,
    running: Arc<Running>,
    /// Functions that a GPU (by UUID) does not support for an argument, and when to retry.
    unsupported: HashMap<(Arc<str>, &'static str, u32), Instant>,
    /// Impossible values that have been logged.
    logged: HashSet<(&'static str, &'static str)>,
}

impl Calls {
    pub(super) fn new(costs: Arc<Costs>, running: Arc<Running>) -> Self {
        Self { costs, running, unsupported: HashMap::new(), logged: HashSet::new() }
    }

    /// Makes a call and measures it.
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

    /// Queries a GPU: `None` if it has no value. `argument` distinguishes calls of the same function.
    pub(super) fn ask<T>(
        &mut self,
        gpu: &Arc<str>,
        call: &'static str,
        argument: u32,
        mut f: impl FnMut() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Gone> {
        let key = (Arc::clone(gpu), call, argument);
        if self.unsupported.get(&key).is_some_and(|again| Instant::now() < *again) {
            return Ok(None);
        }
        let mut result = self.timed(call, &mut f);
        // The list grew after it was counted: once more, with the new count.
        if matches!(result, Err(NvmlError::InsufficientSize(_))) {
            result = self.timed(call, &mut f);
        }
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::Never => {
                self.unsupported.insert(key, Instant::now() + UNSUPPORTED);
                Ok(None)
            }
            Meaning::Nothing | Meaning::Failed => Ok(None),
            Meaning::GpuGone => Err(Gone::Gpu(format!("{call}: {error}"))),
            Meaning::DriverGone => Err(Gone::Driver(format!("{call}: {error}"))),
        }
    }
}

impl Calls {
    /// Retries everything that a GPU did not support.
    pub(super) fn forget(&mut self, gpu: &Arc<str>) {
        self.unsupported.retain(|(other, ..), _| other != gpu);
    }

    /// Checks a value of `call` against `possible`. An impossible one is discarded: counted, logged once, and never
    /// clamped, because the true value is unknown.
    pub(super) fn sane<T: PartialOrd + Display + Copy>(
        &mut self,
        call: &'static str,
        what: &'static str,
        value: Option<T>,
        possible: &RangeInclusive<T>,
    ) -> Option<T> {
        let value = value?;
        if possible.contains(&value) {
            return Some(value);
        }
        self.costs.refuse(call);
        if self.logged.insert((call, what)) {
            let (least, most) = (possible.start(), possible.end());
            warn!(call, what, %value, %least, %most, "omitted an impossible value from NVML; further ones are only counted");
        }
        None
    }

    /// Combines [`Self::ask`] and [`Self::sane`].
    pub(super) fn ask_sane<T: PartialOrd + Display + Copy>(
        &mut self,
        gpu: &Arc<str>,
        call: &'static str,
        argument: u32,
        possible: &RangeInclusive<T>,
        f: impl FnMut() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Gone> {
        let value = self.ask(gpu, call, argument, f)?;
        Ok(self.sane(call, "", value, possible))
    }
}

/// What an error means for the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// Unsupported.
    Never,
    /// No value at the moment.
    Nothing,
    /// Failed; the next call may succeed.
    Failed,
    /// The GPU is lost.
    GpuGone,
    DriverGone,
}

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH` and `NVML_ERROR_DEPRECATED`, which the wrapper does not name: this driver
/// does not support the structure, and therefore not the function.
const VERSION_MISMATCH: u32 = 25;
const DEPRECATED: u32 = 26;
/// `NVML_ERROR_GPU_NOT_FOUND`.
const GPU_NOT_FOUND: u32 = 28;

pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        // All arguments are valid, so a rejected one is newer than the driver, or not for this GPU.
        | NvmlError::InvalidArg
        | NvmlError::UnexpectedVariant(VERSION_MISMATCH | DEPRECATED) => Meaning::Never,
        NvmlError::NotFound | NvmlError::NoData | NvmlError::Timeout => Meaning::Nothing,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Meaning::GpuGone,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => Meaning::DriverGone,
        _ => Meaning::Failed,
    }
}
