//! GPM: activity of the parts of a GPU between two samples. Hopper and newer.

use std::mem;
use std::ops::RangeInclusive;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, GpmSample};
use nvml_wrapper_sys::bindings::nvmlGpmMetricsGet_t;

use super::calls::Calls;
use super::limits::{GPM_PERCENT, GPM_RATE};
use crate::gpu::sample::{Gpm, Labels, Measured, Number};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::gpu as catalogue;

/// Unit of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum In {
    Percent,
    /// MiB per second (nvml.h; for C2C, where it has no comment, according to DCGM's code).
    Mebibytes,
}

/// A metric: its ID in nvml.h, its unit, and the exported metric.
type Metric = (u32, In, &'static Desc, &'static str);

const GRAPHICS: u32 = 1;
const SM: u32 = 2;
const TENSOR: u32 = 5;
const DRAM: u32 = 10;
const PCIE_TX: u32 = 20;
const PCIE_RX: u32 = 21;

/// `NVML_GPM_METRICS_GET_VERSION`.
const VERSION: u32 = 1;

static METRICS: [Metric; 19] = [
    (GRAPHICS, In::Percent, &catalogue::ENGINE_ACTIVE, ""),
    (SM, In::Percent, &catalogue::SM_ACTIVE, ""),
    (3, In::Percent, &catalogue::SM_OCCUPANCY, ""),
    (4, In::Percent, &catalogue::PIPE_ACTIVE, "integer"),
    (TENSOR, In::Percent, &catalogue::TENSOR_ACTIVE, ""),
    (6, In::Percent, &catalogue::TENSOR_PIPE_ACTIVE, "dfma"),
    (7, In::Percent, &catalogue::TENSOR_PIPE_ACTIVE, "hmma"),
    (9, In::Percent, &catalogue::TENSOR_PIPE_ACTIVE, "imma"),
    (DRAM, In::Percent, &catalogue::DRAM_ACTIVE, ""),
    (11, In::Percent, &catalogue::PIPE_ACTIVE, "fp64"),
    (12, In::Percent, &catalogue::PIPE_ACTIVE, "fp32"),
    (13, In::Percent, &catalogue::PIPE_ACTIVE, "fp16"),
    (PCIE_TX, In::Mebibytes, &catalogue::PCIE_RATE, "transmit"),
    (PCIE_RX, In::Mebibytes, &catalogue::PCIE_RATE, "receive"),
    (60, In::Mebibytes, &catalogue::NVLINK_RATE, "receive"),
    (61, In::Mebibytes, &catalogue::NVLINK_RATE, "transmit"),
    // Newer than GPM itself: see `OLDER`.
    (8, In::Percent, &catalogue::TENSOR_PIPE_ACTIVE, "dmma"),
    (100, In::Mebibytes, &catalogue::C2C_RATE, "transmit"),
    (101, In::Mebibytes, &catalogue::C2C_RATE, "receive"),
];

/// Number of metrics that are as old as GPM (R520); if a driver rejects a request with an unknown ID, only these are
/// read.
const OLDER: usize = METRICS.len() - 3;

const MIB: f64 = 1_048_576.0;

/// Metrics of a GPU, or of one of its GPU instances.
#[derive(Default)]
pub(super) struct Meter<'n> {
    last: Option<GpmSample<'n>>,
    /// Whether this driver supports only the older metrics.
    older: bool,
}

/// Values read by a [`Meter`]: for the page and other uses.
pub(super) struct Rates {
    pub(super) gpm: Gpm,
    /// Fraction of SM time, which is read for an instance.
    pub(super) sm: Option<f64>,
    pub(super) measured: Vec<Measured>,
}

impl<'n> Meter<'n> {
    /// Takes a sample and returns the rates since the last one. GPM is optional: if it fails, there are no values.
    pub(super) fn read(&mut self, calls: &mut Calls, device: &Device<'n>, instance: Option<u32>) -> Option<Rates> {
        let sample = match instance {
            None => calls.timed("nvmlGpmSampleGet", || device.gpm_sample()),
            Some(gi) => calls.timed("nvmlGpmMigSampleGet", || device.gpm_mig_sample(gi)),
        };
        let now = sample.ok()?;
        let last = self.last.replace(now)?;
        let now = self.last.as_ref()?;
        const CALL: &str = "nvmlGpmMetricsGet";
        let count = if self.older { OLDER } else { METRICS.len() };
        let answers = calls.timed(CALL, || ask(device, &last, now, count));
        self.older |= matches!(answers, Err(NvmlError::InvalidArg | NvmlError::NotSupported));
        let answers = answers.ok()?;
        let mut rates = Rates { gpm: Gpm::default(), sm: None, measured: Vec::with_capacity(METRICS.len()) };
        let [mut transmitted, mut received] = [None; 2];
        for (&(id, unit, desc, label), answer) in METRICS.iter().zip(answers) {
            let (possible, scale): (RangeInclusive<f64>, f64) = match unit {
                In::Percent => (GPM_PERCENT, 0.01),
                In::Mebibytes => (GPM_RATE, MIB),
            };
            let Some(value) = calls.sane(CALL, desc.name, answer, &possible).map(|value| value * scale) else {
                continue;
            };
            match id {
                GRAPHICS => rates.gpm.graphics = Some(value),
                SM => rates.sm = Some(value),
                TENSOR => rates.gpm.tensor = Some(value),
                DRAM => rates.gpm.dram = Some(value),
                PCIE_TX => transmitted = Some(value),
                PCIE_RX => received = Some(value),
                _ => {}
            }
            let labels = if label.is_empty() { Labels::None } else { Labels::One(label) };
            rates.measured.push(Measured { desc, labels, value: Number::Float(value) });
        }
        rates.gpm.pcie = transmitted.zip(received).map(|(transmitted, received)| [transmitted, received]);
        Some(rates)
    }
}

/// The values of [`METRICS`], in order. Uses raw calls, because the wrapper does not support all of them.
fn ask(
    device: &Device<'_>,
    last: &GpmSample<'_>,
    now: &GpmSample<'_>,
    count: usize,
) -> Result<[Option<f64>; METRICS.len()], NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlGpmMetricsGet.as_ref())?;
    // SAFETY: consists of numbers and pointers, for which all zeros is a valid value.
    let mut request: nvmlGpmMetricsGet_t = unsafe { mem::zeroed() };
    (request.version, request.numMetrics) = (VERSION, count as u32);
    // SAFETY: the samples outlive the call, and nothing here frees them.
    (request.sample1, request.sample2) = unsafe { (last.handle(), now.handle()) };
    for (metric, (id, ..)) in request.metrics.iter_mut().zip(&METRICS) {
        metric.metricId = *id;
    }
    // SAFETY: the library is loaded, and the request matches the header.
    nvml_try(unsafe { get(&raw mut request) })?;
    let answer = |index: usize| {
        let metric = &request.metrics[index];
        (index < count && nvml_try(metric.nvmlReturn).is_ok()).then_some(metric.value)
    };
    Ok(std::array::from_fn(answer))
}
