//! What the fake driver answers, as a JSON file. Everything left out is not supported by that GPU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A driver and its GPUs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Driver version, such as `550.54.15`.
    pub driver: String,
    /// CUDA version as NVML has it: 12040 is 12.4.
    pub cuda: i32,
    /// Code that `nvmlInit_v2` answers; 0: the driver is there.
    pub init: u32,
    /// Whether confidential computing is on; absent: the driver has no such thing.
    pub confidential: Option<u32>,
    /// The GPUs, by index.
    pub gpus: Vec<Gpu>,
    /// A call that does not come back.
    pub hang: Option<Hang>,
    /// Events, delivered one after the other; each once, however often the file is read again.
    pub events: Vec<Event>,
}

/// A call that sleeps, until its time is over or the scenario file no longer says so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hang {
    /// The function, such as `nvmlDeviceGetFieldValues`; `nvmlDeviceGetHandle` for all that give a handle, `*` for any.
    pub call: String,
    /// Index of the GPU.
    pub gpu: usize,
    /// For how long.
    pub seconds: u64,
}

/// What `nvmlEventSetWait_v2` delivers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// Index of the GPU.
    pub gpu: usize,
    /// `nvmlEventType*`: 1 single-bit ECC, 2 double-bit ECC, 8 Xid.
    pub kind: u64,
    /// The Xid.
    pub data: u64,
}

/// One GPU. Numbers are in NVML's own units.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// `GPU-...`.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Board serial number.
    pub serial: Option<String>,
    /// VBIOS version.
    pub vbios: Option<String>,
    /// PCI address as sysfs spells it: `0000:3b:00.0`.
    pub pci: String,
    /// Every call on it answers `GPU_IS_LOST`.
    pub lost: bool,
    /// Functions that answer `NOT_SUPPORTED` although the rest of this GPU's answer is here.
    pub unsupported: Vec<String>,
    /// Bytes: total, reserved, used.
    pub memory: Option<Memory>,
    /// Percent: GPU, memory.
    pub utilization: Option<[u32; 2]>,
    /// Percent: encoder, decoder.
    pub codecs: Option<[u32; 2]>,
    /// Milliwatts: now, enforced limit.
    pub power: Option<[u32; 2]>,
    /// Millijoules: at the first reading, and what each further one adds.
    pub energy: Option<[u64; 2]>,
    /// Degrees Celsius.
    pub temperature: Option<i32>,
    /// Degrees Celsius to the slowdown.
    pub margin: Option<i32>,
    /// Percent, one a fan.
    pub fans: Vec<u32>,
    /// Megahertz: graphics, SM, memory, video.
    pub clocks: Option<[u32; 4]>,
    /// Clock event reasons, a bit mask.
    pub reasons: Option<u64>,
    /// Fields by the driver's own number: the first value, and what each further reading adds.
    pub fields: BTreeMap<u32, [u64; 2]>,
    /// Fields of the NVLinks, likewise, the same on each.
    pub link_fields: BTreeMap<u32, [u64; 2]>,
    /// NVLinks, all of them active but those in `links_down`.
    pub links: u32,
    /// NVLinks that are not active.
    pub links_down: Vec<u32>,
    /// `nvmlNvlinkVersion_t` of all links.
    pub link_version: Option<u32>,
    /// Fields of the module that the GPU is a part of (scope 1), likewise.
    pub module_fields: BTreeMap<u32, [u64; 2]>,
    /// Fields of each chip-to-chip link, of which field 170 has the number.
    pub c2c_fields: BTreeMap<u32, [u64; 2]>,
    /// Megahertz at most: graphics, SM, memory, video.
    pub clocks_max: Option<[u32; 4]>,
    /// Degrees Celsius by threshold: 0 shutdown, 1 slowdown, 2 memory, 3 GPU.
    pub thresholds: BTreeMap<u32, u32>,
    /// `nvmlPstates_t`.
    pub performance_state: Option<u32>,
    /// PCIe generation now and at most, lanes now and at most.
    pub pcie_link: Option<[u32; 4]>,
    /// Banks by remap availability: max, high, partial, low, none.
    pub remap_banks: Option<[u32; 5]>,
    /// SRAM ECC: aggregate parity, SEC-DED and corrected; the buckets L2, SM, PCIe, MCU and other; threshold exceeded.
    pub sram: Option<[u64; 9]>,
    /// Whether a channel and a TPC are repaired at the next reset.
    pub repair: Option<[u32; 2]>,
    /// Whether memory cannot be repaired.
    pub unrepairable: Option<u32>,
    /// Fabric: state, status, health mask, health summary; without the last, the driver is older.
    pub fabric: Option<[u32; 4]>,
    /// Modes by nvml.h's numbers: virtualization, compute, persistence, ECC now and pending.
    pub modes: Option<[u32; 5]>,
    /// NUMA node, where the memory is the operating system's.
    pub numa_node: Option<u32>,
    /// Guests.
    pub vgpus: Vec<Vgpu>,
    /// ECC counters by `"KIND:LOCATION"`, both NVML's numbers: kind 0 corrected, 1 uncorrected.
    pub ecc: BTreeMap<String, u64>,
    /// KiB/s: transmitted, received. Each such call takes 20 ms, as the driver's does.
    pub pcie_throughput: Option<[u32; 2]>,
    /// Whether it has a vGPU licence.
    pub licensed: Option<bool>,
    /// GPM values by metric number.
    pub gpm: BTreeMap<u32, f64>,
    /// MIG devices; any: MIG mode is on.
    pub mig: Vec<Mig>,
    /// Event types that can be registered.
    pub event_types: u64,
    /// Processes.
    pub processes: Vec<Process>,
    /// Another process appears between each count and the list that was sized by it, this many times.
    pub races: u32,
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// All that is installed.
    pub total: u64,
    /// Kept by the driver.
    pub reserved: u64,
    /// Allocated, without `reserved`.
    pub used: u64,
}

/// A MIG device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mig {
    /// `MIG-...`.
    pub uuid: String,
    /// Such as `NVIDIA A100-SXM4-40GB MIG 3g.20gb`.
    pub name: String,
    /// GPU instance.
    pub gi: u32,
    /// Compute instance.
    pub ci: u32,
    /// Its part of the memory.
    pub memory: Memory,
}

/// A process that holds the GPU.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Bytes; absent: the driver does not know.
    pub memory: Option<u64>,
    /// Percent of the SMs' time; absent: no sample.
    pub sm: Option<u32>,
    /// In the graphics list.
    pub graphics: bool,
    /// Not in the compute list.
    pub no_compute: bool,
    /// GPU and compute instance, on MIG.
    pub mig: Option<[u32; 2]>,
    /// In the list of MPS clients.
    pub mps: bool,
    /// Percent of the encoders' and decoders' time.
    pub codecs: [u32; 2],
}

/// A part of a GPU that a virtual machine has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vgpu {
    /// UUID.
    pub uuid: String,
    /// The virtual machine's UUID.
    pub vm: String,
    /// Such as `NVIDIA L40S-12Q`.
    pub profile: String,
    /// Bytes.
    pub used: u64,
}
