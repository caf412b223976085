//! What one pass over the GPUs found. Plain data in NVML's own units; what a GPU does not say is `None`. What only the
//! page needs is a [`Measured`]: value and place in the catalogue together.

use std::sync::Arc;

use super::energy::Joules;
use crate::discovery::inventory::Pid;
use crate::metrics::catalogue::Desc;

/// One pass over all GPUs.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The driver.
    pub driver: Driver,
    /// The GPUs, by index; also those that are lost.
    pub gpus: Vec<Gpu>,
    /// PCI addresses of GPUs that sleep and were left alone.
    pub suspended: Vec<String>,
    /// PCI addresses of GPUs that are on the bus, for NVIDIA's driver or for none, and that NVML does not list.
    pub missing: Vec<String>,
}

impl Sample {
    /// The GPUs that do not answer, for a person; `None` where all do.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let lost: Vec<_> = self.gpus.iter().filter_map(|gpu| Some((gpu, gpu.reading.as_ref().err()?))).collect();
        let mut said = Vec::new();
        if let Some((gpu, reason)) = lost.first() {
            let of = format!("{} of {} GPUs are lost", lost.len(), self.gpus.len());
            said.push(format!("{of}, first {} (index {}): {reason}", gpu.id.pci, gpu.id.index));
        }
        if !self.missing.is_empty() {
            said.push(format!("on the PCI bus and not in NVML: {}", self.missing.join(", ")));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Whether there are GPUs, and none of them answers.
    #[must_use]
    pub fn all_lost(&self) -> bool {
        let known = self.gpus.len() + self.missing.len();
        known > 0 && self.suspended.is_empty() && self.gpus.iter().all(|gpu| gpu.reading.is_err())
    }
}

/// A value that only the page needs, and what it is of.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric.
    pub desc: &'static Desc,
    /// Its labels after those that every GPU's metric has.
    pub labels: Labels,
    /// The value, in the metric's unit.
    pub value: Number,
}

/// Labels after those that every GPU's metric has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Labels {
    /// No more.
    None,
    /// One of a few.
    One(&'static str),
    /// A link.
    Link(u32),
    /// A link, and one of a few.
    LinkAnd(u32, &'static str),
    /// What a driver says.
    Texts(Vec<String>),
}

/// A number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// Whole and not negative.
    Integer(u64),
    /// Any other.
    Float(f64),
}

/// The driver's versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Driver {
    /// Such as `550.54.15`.
    pub version: String,
    /// Newest CUDA that it takes, such as `12.4`.
    pub cuda: String,
}

/// Who a GPU is; does not change while the driver is loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// `GPU-...`: the key of everything, because indices and PCI addresses move.
    pub uuid: String,
    /// NVML's index.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Board serial number; empty where there is none.
    pub serial: String,
    /// VBIOS version; empty where there is none.
    pub vbios: String,
    /// PCI address as sysfs spells it, `0000:3b:00.0`.
    pub pci: String,
}

/// One GPU in one pass.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Who it is.
    pub id: Arc<Identity>,
    /// What it answered, or why it did not.
    pub reading: Result<Box<Reading>, String>,
    /// Its energy so far, split among the models; empty where it counts none.
    pub energy: Vec<Joules>,
}

/// What a GPU answered.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Device memory.
    pub memory: Option<Memory>,
    /// Percent of time in which a kernel ran, and in which memory was used.
    pub utilization: Option<(u32, u32)>,
    /// What only dcgm-exporter's names need; empty unless they are wanted.
    pub compat: Compat,
    /// Milliwatts, as the driver averages them or not.
    pub power_mw: Option<u32>,
    /// Milliwatts at this moment.
    pub power_instant_mw: Option<u64>,
    /// Milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Millijoules since the driver was loaded.
    pub energy_mj: Option<u64>,
    /// Degrees Celsius by sensor.
    pub temperatures: Vec<(&'static str, i64)>,
    /// Percent by fan.
    pub fans: Vec<Option<u32>>,
    /// Megahertz by clock.
    pub clocks: Vec<(&'static str, u32)>,
    /// Clock event reasons, a bit mask.
    pub throttle: Option<u64>,
    /// Nanoseconds of slowdown for heat, by software.
    pub sw_thermal_ns: Option<u64>,
    /// ECC errors.
    pub ecc: Arc<Vec<EccCount>>,
    /// Rows by kind.
    pub remapped: Vec<(&'static str, u64)>,
    /// PCIe bytes, transmitted and received, since the agent started.
    pub pcie_bytes: Option<[u64; 2]>,
    /// PCIe replays.
    pub pcie_replays: Option<u64>,
    /// KiB over each active NVLink, by its number and the direction.
    pub links_kib: Vec<(u32, &'static str, u64)>,
    /// KiB a second over all of them since the last pass.
    pub links_kib_per_second: Option<f64>,
    /// Rates between the last two samples, on Hopper and newer.
    pub gpm: Gpm,
    /// MIG devices; empty out of MIG mode.
    pub mig: Vec<Mig>,
    /// Processes that hold the GPU, each once for a MIG device.
    pub processes: Vec<Process>,
    /// How processes share it.
    pub sharing: Option<Sharing>,
    /// Whether its memory is the operating system's (Grace), so that what processes hold need not add up to what is used.
    pub unified: bool,
    /// What only the page needs: of this pass.
    pub measured: Vec<Measured>,
    /// Likewise, of the last time that what seldom changes was read.
    pub seldom: Arc<Vec<Measured>>,
}

/// How processes share a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// No more than one process computes.
    None,
    /// Several take turns.
    TimeSlicing,
    /// Some are clients of the Multi-Process Service.
    Mps,
    /// Each has a part of the hardware.
    Mig,
}

impl Sharing {
    /// As a label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Sharing::None => "none",
            Sharing::TimeSlicing => "time_slicing",
            Sharing::Mps => "mps",
            Sharing::Mig => "mig",
        }
    }
}

/// Bytes of device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Allocated.
    pub used: u64,
    /// Kept by the driver; `None` where it is part of `used` (before R510).
    pub reserved: Option<u64>,
}

/// Errors of a kind at a place, over the board's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EccCount {
    /// `corrected` or `uncorrected`.
    pub kind: &'static str,
    /// Where, such as `dram`.
    pub location: &'static str,
    /// How many.
    pub count: u64,
}

/// What only dcgm-exporter's names need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compat {
    /// Percent of time in which the encoder worked.
    pub encoder: Option<u32>,
    /// Percent of time in which the decoder worked.
    pub decoder: Option<u32>,
    /// Whether there is a vGPU licence.
    pub licensed: Option<bool>,
}

/// GPM rates: parts of one, and bytes a second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gpm {
    /// Graphics engine active.
    pub graphics: Option<f64>,
    /// Tensor pipes active.
    pub tensor: Option<f64>,
    /// DRAM interface active.
    pub dram: Option<f64>,
    /// PCIe bytes a second, transmitted and received.
    pub pcie: Option<[f64; 2]>,
}

/// A MIG device.
#[derive(Clone, Debug)]
pub struct Mig {
    /// `MIG-...`.
    pub uuid: String,
    /// Such as `3g.20gb`.
    pub profile: String,
    /// GPU instance.
    pub gi: u32,
    /// Compute instance.
    pub ci: u32,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Part of its SMs' time with a kernel, on Hopper and newer.
    pub utilization: Option<f64>,
}

/// A process on a GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Process {
    /// Process id, in the agent's own pid namespace.
    pub pid: Pid,
    /// Bytes of device memory, where the driver knows.
    pub memory: Option<u64>,
    /// Percent of the SMs' time since the last pass, where the driver has samples.
    pub sm: Option<f64>,
    /// Percent of the encoders' and of the decoders' time, likewise.
    pub codecs: Option<[f64; 2]>,
    /// GPU and compute instance, in MIG mode.
    pub mig: Option<(u32, u32)>,
}
