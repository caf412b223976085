//! Every call of NVML goes through here: timed, counted where it fails, watched while it runs, seldom made again where the
//! GPU has no such thing, and its answer refused where it is impossible.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use citadel_agent_common::hist::Histogram;
use nvml_wrapper::error::NvmlError;
use tracing::warn;

/// When a GPU is asked again for what it did not have: modes, firmware and links change while the driver is loaded.
pub(super) const UNSUPPORTED: Duration = Duration::from_secs(300);

/// What the calls of one function cost so far.
#[derive(Clone, Debug)]
pub struct Cost {
    /// How long they took.
    pub seconds: Box<Histogram>,
    /// How many failed for another reason than that there is no such thing.
    pub errors: u64,
    /// How many answers were impossible, and so are no answers.
    pub refused: u64,
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
    /// Functions that a GPU (by UUID) did not have for an argument, and when it is asked again.
    unsupported: HashMap<(Arc<str>, &'static str, u32), Instant>,
    /// Impossible answers that have been logged.
    logged: HashSet<(&'static str, &'static str)>,
}

impl Calls {
    pub(super) fn new(costs: Arc<Costs>, running: Arc<Running>) -> Self {
        Self { costs, running, unsupported: HashMap::new(), logged: HashSet::new() }
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
        if self.unsupported.get(&key).is_some_and(|again| Instant::now() < *again) {
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
    /// Has a GPU asked again for all that it did not have.
    pub(super) fn forget(&mut self, gpu: &Arc<str>) {
        self.unsupported.retain(|(other, ..), _| other != gpu);
    }

    /// An answer of `call` that `possible` values contain. Any other is no answer: counted, logged once, and never
    /// brought into the range, because nothing is known of the true value.
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
            warn!(call, what, %value, %least, %most, "NVML gave an impossible value, which is left out; further ones are only counted");
        }
        None
    }

    /// As [`Self::ask`], and as [`Self::sane`].
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
