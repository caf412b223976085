//! `gpu`: the GPUs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::config::kind::{ABSOLUTE_PATH, BOOLEAN, INTERVAL, Optional, Scalar};
use crate::config::section::section;
use crate::config::value::{Kind, expected, kind};
use crate::config::yaml::Yaml;

section! {
    /// What is read of the GPUs, and how often.
    pub struct Gpu {
        /// Whether the GPUs are read.
        enabled: bool = true, BOOLEAN;
        /// How often the GPUs are sampled; energy is split among the models over each such interval.
        sampling_interval: Duration = Duration::from_secs(1), INTERVAL;
        /// Whether `/metrics/gpu` also carries the default metrics of dcgm-exporter, under the names and in the units of that
        /// release; `true` is `"4.8"`.
        dcgm_compat: Option<DcgmRelease> = None, DCGM_RELEASE;
        /// Whether GPUs that count no PCIe bytes (before Hopper) are asked for their throughput instead: 40 ms a GPU and sample.
        pcie_throughput: bool = false, BOOLEAN;
        /// Whether the bins of forward error correction are exported: 16 series an NVLink (NVLink 5 and newer).
        nvlink_fec: bool = false, BOOLEAN;
        /// The NVML library; absent: `libnvidia-ml.so.1`, where the loader finds it.
        nvml_library: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
    }
}

/// A release of dcgm-exporter, as far as the names of its default metrics go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DcgmRelease {
    /// 4.8.3 and 4.8.4, with DCGM 4.6.
    V4_8,
    /// 4.9, with DCGM 4.7: base units, and names that end with them.
    V4_9,
}

/// `true` is the release whose names dashboards are written for today.
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
