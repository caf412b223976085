//! `gpu`: the GPUs.

use std::path::PathBuf;
use std::time::Duration;

/// What is read of the GPUs, and how often.
#[derive(Clone, PartialEq, Debug)]
pub struct Gpu {
    /// Whether NVML is opened at all.
    pub enabled: bool,
    /// How often every GPU is sampled. Energy is split among the models over each such interval.
    pub sampling_interval: Duration,
    /// Whether the page also carries dcgm-exporter's default names, and of which release.
    pub dcgm_compat: Option<DcgmRelease>,
    /// Whether GPUs without a cumulative PCIe counter are asked for their throughput, which blocks the sampler for 40 ms
    /// a GPU.
    pub pcie_throughput: bool,
    /// Whether FEC's bins of each NVLink are exported.
    pub nvlink_fec: bool,
    /// The NVML library; `None`: `libnvidia-ml.so.1`, as the loader finds it.
    pub nvml_library: Option<PathBuf>,
}

/// A release of dcgm-exporter, as far as the names of its default metrics go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DcgmRelease {
    /// 4.8.3 and 4.8.4, with DCGM 4.6.
    V4_8,
    /// 4.9, with DCGM 4.7: base units, and names that end with them.
    V4_9,
}

impl DcgmRelease {
    /// As the configuration has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DcgmRelease::V4_8 => "4.8",
            DcgmRelease::V4_9 => "4.9",
        }
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            enabled: true,
            sampling_interval: Duration::from_secs(1),
            dcgm_compat: None,
            pcie_throughput: false,
            nvlink_fec: false,
            nvml_library: None,
        }
    }
}
