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
    /// Whether the page also carries dcgm-exporter's default names.
    pub dcgm_compat: bool,
    /// Whether GPUs without a cumulative PCIe counter are asked for their throughput, which blocks the sampler for 40 ms
    /// a GPU.
    pub pcie_throughput: bool,
    /// The NVML library; `None`: `libnvidia-ml.so.1`, as the loader finds it.
    pub nvml_library: Option<PathBuf>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            enabled: true,
            sampling_interval: Duration::from_secs(1),
            dcgm_compat: false,
            pcie_throughput: false,
            nvml_library: None,
        }
    }
}
