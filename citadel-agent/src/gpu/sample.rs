//! The result of one pass over the GPUs. Plain data in NVML's units; missing values are `None`. Values that only the
//! page needs are [`Measured`]: the value with its catalogue entry.

use std::sync::Arc;

use crate::discovery::inventory::Pid;
use crate::discovery::owners::Owner;
use crate::metrics::catalogue::Desc;

/// One pass over all GPUs.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// The driver.
    pub driver: Driver,
    /// The GPUs by index, including lost ones.
    pub gpus: Vec<Gpu>,
    /// PCI addresses of suspended GPUs, which are not woken.
    pub suspended: Vec<String>,
    /// PCI addresses of GPUs on the bus that are not bound to another driver and that NVML does not list.
    pub missing: Vec<String>,
}

impl Pass {
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
            said.push(format!("on the PCI bus but not listed by NVML: {}", self.missing.join(", ")));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Whether there are GPUs and none of them answers.
    #[must_use]
    pub fn all_lost(&self) -> bool {
        let known = self.gpus.len() + self.missing.len();
        known > 0 && self.suspended.is_empty() && self.gpus.iter().all(|gpu| gpu.reading.is_err())
    }
}

/// A value that only the page needs, with its metric.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric.
    pub desc: &'static Desc,
    /// Labels in addition to those of every GPU metric.
    pub labels: Labels,
    /// The value, in the metric's unit.
    pub value: Number,
}

/// Labels in addition to those of every GPU metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Labels {
    /// None.
    None,
    /// A constant.
    One(&'static str),
    /// A link.
    Link(u32),
    /// A link, and a constant.
    LinkAnd(u32, &'static str),
    /// Texts from the driver.
    Texts(Vec<String>),
}

/// A number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// A non-negative integer.
    Integer(u64),
    /// Any other number.
    Float(f64),
}

/// The driver's versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Driver {
    /// Such as `550.54.15`.
    pub version: String,
    /// Newest supported CUDA version, such as `12.4`.
    pub cuda: String,
}

/// The identity of a GPU; constant while the driver is loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// `GPU-...`: the key of everything, because indices and PCI addresses can change.
    pub uuid: String,
    /// NVML's index.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Board serial number; empty if there is none.
    pub serial: String,
    /// VBIOS version; empty if there is none.
    pub vbios: String,
    /// PCI address as in sysfs, `0000:3b:00.0`.
    pub pci: String,
}

/// A GPU in a pass.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its identity.
    pub id: Arc<Identity>,
    /// Its values, or why it does not answer.
    pub reading: Result<Box<Reading>, String>,
    /// Its energy so far, attributed to models; empty if it does not count energy.
    pub energy: Vec<Joules>,
}

/// The charge of a model for a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joules {
    /// The model; `None`: charged to nobody.
    pub owner: Option<Arc<Owner>>,
    /// Microjoules.
    pub microjoules: u64,
}

/// The values of a GPU.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Device memory.
    pub memory: Option<DeviceMemory>,
    /// Percent of time in which a kernel ran, and in which memory was accessed.
    pub utilization: Option<(u32, u32)>,
    /// Values needed only for dcgm-exporter's names; empty unless enabled.
    pub compat: Compat,
    /// Power in milliwatts, averaged or not, depending on the driver.
    pub power_mw: Option<u32>,
    /// Instantaneous power in milliwatts.
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
    /// Nanoseconds of slowdown because of heat, by software.
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
    /// KiB per second over all links since the last pass.
    pub links_kib_per_second: Option<f64>,
    /// Rates between the last two samples, on Hopper and newer.
    pub gpm: Gpm,
    /// MIG devices; empty outside of MIG mode.
    pub mig: Vec<Mig>,
    /// Processes on the GPU, once per MIG device.
    pub processes: Vec<Process>,
    /// How the GPU is shared.
    pub sharing: Option<Sharing>,
    /// Whether the operating system manages its memory (Grace), so that the memory of processes need not add up to used
    /// memory.
    pub unified: bool,
    /// Values of this pass that only the page needs.
    pub measured: Vec<Measured>,
    /// Slowly changing values that only the page needs, as last read.
    pub seldom: Arc<Vec<Measured>>,
}

/// How processes share a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// At most one compute process.
    None,
    /// Several processes take turns.
    TimeSlicing,
    /// Some processes are clients of the Multi-Process Service.
    Mps,
    /// Each process has a partition of the hardware.
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
pub struct DeviceMemory {
    /// Installed.
    pub total: u64,
    /// Allocated.
    pub used: u64,
    /// Reserved by the driver; `None` if it is included in `used` (before R510).
    pub reserved: Option<u64>,
}

/// Number of errors by kind and location, over the board's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EccCount {
    /// `corrected` or `uncorrected`.
    pub kind: &'static str,
    /// Location, such as `dram`.
    pub location: &'static str,
    /// How many.
    pub count: u64,
}

/// Values needed only for dcgm-exporter's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compat {
    /// Percent of time in which the encoder was active.
    pub encoder: Option<u32>,
    /// Percent of time in which the decoder was active.
    pub decoder: Option<u32>,
    /// Whether there is a vGPU licence.
    pub licensed: Option<bool>,
}

/// GPM rates: fractions, and bytes per second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gpm {
    /// Graphics engine active.
    pub graphics: Option<f64>,
    /// Tensor pipes active.
    pub tensor: Option<f64>,
    /// DRAM interface active.
    pub dram: Option<f64>,
    /// PCIe bytes per second, transmitted and received.
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
    pub memory: Option<DeviceMemory>,
    /// Fraction of its SM time with a kernel, on Hopper and newer.
    pub utilization: Option<f64>,
}

/// A process on a GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Process {
    /// PID in the agent's PID namespace.
    pub pid: Pid,
    /// Bytes of device memory, if the driver reports it.
    pub memory: Option<u64>,
    /// Percent of SM time since the last pass, if the driver has samples.
    pub sm: Option<f64>,
    /// Percent of the encoders' and of the decoders' time since the last pass.
    pub codecs: Option<[f64; 2]>,
    /// GPU and compute instance, in MIG mode.
    pub mig: Option<(u32, u32)>,
}
