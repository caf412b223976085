//! GPM: how busy the parts of a GPU were between two samples. Hopper and newer.

use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample};

use super::calls::Calls;
use crate::gpu::sample::Gpm;

const METRICS: [GpmMetricId; 6] = [
    GpmMetricId::GraphicsUtil,
    GpmMetricId::SmUtil,
    GpmMetricId::AnyTensorUtil,
    GpmMetricId::DramBwUtil,
    GpmMetricId::PcieTxPerSec,
    GpmMetricId::PcieRxPerSec,
];

/// GPM has PCIe traffic in MiB a second (nvml.h).
const MIB: f64 = 1_048_576.0;

/// One GPU's, or one of its GPU instances', metrics.
#[derive(Default)]
pub(super) struct Meter<'n> {
    last: Option<GpmSample<'n>>,
}

/// What a [`Meter`] read: the whole GPU's rates, and the part of the SMs' time, which is what an instance is asked for.
pub(super) struct Rates {
    pub(super) gpm: Gpm,
    pub(super) sm: Option<f64>,
}

impl<'n> Meter<'n> {
    /// Takes a sample and gives the rates since the last one. GPM is an extra: where it fails, there is none.
    pub(super) fn read(&mut self, calls: &Calls, device: &Device<'n>, instance: Option<u32>) -> Option<Rates> {
        let sample = match instance {
            None => calls.timed("nvmlGpmSampleGet", || device.gpm_sample()),
            Some(gi) => calls.timed("nvmlGpmMigSampleGet", || device.gpm_mig_sample(gi)),
        };
        let now = sample.ok()?;
        let last = self.last.replace(now)?;
        let now = self.last.as_ref()?;
        let values = calls.timed("nvmlGpmMetricsGet", || gpm_metrics_get(device.nvml(), &last, now, &METRICS)).ok()?;
        let mut values = values.into_iter().map(|value| value.ok().map(|value| value.value).filter(|v| v.is_finite()));
        let [graphics, sm, tensor, dram, transmitted, received] = std::array::from_fn(|_| values.next().flatten());
        let ratio = |percent: Option<f64>| percent.map(|percent| percent / 100.0);
        let pcie = transmitted.zip(received).map(|(transmitted, received)| [transmitted * MIB, received * MIB]);
        let gpm = Gpm { graphics: ratio(graphics), tensor: ratio(tensor), dram: ratio(dram), pcie };
        Some(Rates { gpm, sm: ratio(sm) })
    }
}
