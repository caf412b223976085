//! What one pass over the GPUs found. Plain data in NVML's own units; what a GPU does not tell is `None`.

use std::sync::Arc;

use super::energy::Joules;
use crate::discovery::inventory::Pid;

/// One pass over all GPUs.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The driver.
    pub driver: Driver,
    /// The GPUs, by index; also those that are lost.
    pub gpus: Vec<Gpu>,
    /// PCI addresses of GPUs that sleep and were left alone.
    pub suspended: Vec<String>,
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
    /// Milliwatts.
    pub power_mw: Option<u32>,
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
    /// Nanoseconds by reason.
    pub throttled: Vec<(&'static str, u64)>,
    /// ECC errors.
    pub ecc: Arc<Vec<EccCount>>,
    /// Rows by kind.
    pub remapped: Vec<(&'static str, u64)>,
    /// PCIe bytes, transmitted and received, since the agent started.
    pub pcie_bytes: Option<[u64; 2]>,
    /// PCIe replays.
    pub pcie_replays: Option<u64>,
    /// The active NVLinks.
    pub links: Vec<Link>,
    /// KiB a second over all of them since the last pass.
    pub links_kib_per_second: Option<f64>,
    /// Rates between the last two samples, on Hopper and newer.
    pub gpm: Gpm,
    /// MIG devices; empty out of MIG mode.
    pub mig: Vec<Mig>,
    /// Processes that hold the GPU, each once for a MIG device.
    pub processes: Vec<Process>,
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

/// An active NVLink.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Its number.
    pub link: u32,
    /// KiB by direction.
    pub kib: Vec<(&'static str, u64)>,
    /// Errors by kind.
    pub errors: Vec<(&'static str, u64)>,
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
    /// GPU and compute instance, in MIG mode.
    pub mig: Option<(u32, u32)>,
}
