//! `gpu`: the GPUs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::config::kind::{ABSOLUTE_PATH, BOOLEAN, INTERVAL, Optional, Scalar};
use crate::config::section::section;
use crate::config::value::{Kind, expected, kind};
use crate::config::yaml::Yaml;

section! {
    /// GPU monitoring.
    pub struct Gpu {
        /// Whether to monitor the GPUs.
        enabled: bool = true, BOOLEAN;
        /// Sampling interval of the GPUs; the energy of each interval is attributed to the models.
        sampling_interval: Duration = Duration::from_secs(1), INTERVAL;
        /// Whether `/metrics/gpu` also has the default metrics of dcgm-exporter, with the names and units of that release; `true` means
        /// `"4.8"`.
        dcgm_compat: Option<DcgmRelease> = None, DCGM_RELEASE;
        /// Whether to estimate the PCIe bytes of GPUs that do not count them (before Hopper) from throughput samples, which take 40 ms per
        /// GPU and sample.
        pcie_throughput: bool = false, BOOLEAN;
        /// Whether to export the forward error correction bins: 16 series per NVLink (NVLink 5 and newer).
        nvlink_fec: bool = false, BOOLEAN;
        /// Path of the NVML library; absent: `libnvidia-ml.so.1` on the loader's search path.
        nvml_library: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
    }
}

/// A release of dcgm-exporter that defines the names of its default metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DcgmRelease {
    /// 4.8.3 and 4.8.4, with DCGM 4.6.
    V4_8,
    /// 4.9, with DCGM 4.7: base units, and names that end with the unit.
    V4_9,
}

/// `true` is the release that current dashboards are written for.
const DCGM_RELEASE: Scalar<Option<DcgmRelease>> = Scalar {
    text: "`true`, `false`, `\"4.8\"` or `\"4.9\"`",
    schema: || json!({"enum": [true, false, "4.8", "4.9", 4.8, 4.9]}),
    read: |node| match kind(node) {
        Kind::Bool(wanted) => Ok(wanted.then_some(DcgmRelease::V4_8)),
        // Without quotes, YAML reads a number.
        Kind::Str("4.8") | Kind::Float("4.8") => Ok(Some(DcgmRelease::V4_8)),
        Kind::Str("4.9") | Kind::Float("4.9") => Ok(Some(DcgmRelease::V4_9)),
        _ => Err(expected("true, false, \"4.8\" or \"4.9\"", node)),
    },
    write: |release| match release {
        None => Yaml::Bool(false),
        Some(DcgmRelease::V4_8) => Yaml::text("4.8"),
        Some(DcgmRelease::V4_9) => Yaml::text("4.9"),
    },
};
