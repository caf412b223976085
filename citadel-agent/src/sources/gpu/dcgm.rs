//! The same samples with dcgm-exporter's names and units, of the configured release.

use smol_str::SmolStr;

use crate::config::resolved::DcgmRelease;
use crate::gpu::Xids;
use crate::gpu::sample::{DeviceMemory, Gpm, Gpu, Identity, Pass, Reading};
use crate::gpu::xid::Xid;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::dcgm as catalogue;
use crate::metrics::family::{Page, Value};

const MIB: u64 = 1 << 20;
const MEGA: u64 = 1_000_000;

/// dcgm-exporter's messages for Xids, from NVIDIA's catalogue; all others are [`UNKNOWN`], as in dcgm-exporter.
const MESSAGES: [(u64, &str); 29] = [
    (0, "No Error"),
    (13, "Graphics Engine Exception"),
    (31, "GPU memory page fault"),
    (32, "Invalid or corrupted push buffer stream"),
    (38, "Driver firmware error"),
    (43, "GPU stopped processing"),
    (45, "Preemptive cleanup, due to previous errors -- Most likely to see when running multiple cuda"),
    (48, "Double Bit ECC Error"),
    (61, "Internal micro-controller breakpoint/warning"),
    (62, "Internal micro-controller halt"),
    (63, "ECC page retirement or row remapping recording event"),
    (64, "ECC page retirement or row remapper recording failure"),
    (68, "NVDEC0 Exception"),
    (69, "Graphics Engine class error"),
    (74, "NVLINK Error"),
    (79, "GPU has fallen off the bus"),
    (92, "High single-bit ECC error rate"),
    (94, "Contained ECC error"),
    (95, "Uncontained ECC error"),
    (109, "Context Switch Timeout Error"),
    (119, "GSP RPC Timeout"),
    (120, "GSP Error"),
    (121, "C2C Link Error"),
    (140, "Unrecovered ECC Error"),
    (143, "GPU Initialization Failure"),
    (144, "NVLINK: Saw Error"),
    (145, "NVLINK: RLW Error"),
    (149, "NVLINK: NETIR Error"),
    (154, "GPU Recovery Action Changed"),
];
const UNKNOWN: &str = "Unknown Error";

/// Adds the metrics. For a lost GPU, and for all if `fresh` is false, only the Xid, which may be the reason.
pub(super) fn add(page: &mut Page, release: DcgmRelease, fresh: bool, sample: &Pass, xids: &Xids, host_name: &str) {
    let driver = match release {
        DcgmRelease::V4_8 => [sample.driver.version.as_str(), ""],
        DcgmRelease::V4_9 => ["", sample.driver.version.as_str()],
    };
    for gpu in &sample.gpus {
        let mut writer = Writer { page, release, labels: labels(&gpu.id, ["", ""], host_name, driver) };
        add_xid(&mut writer, gpu, xids);
        let Some(reading) = gpu.reading.as_ref().ok().filter(|_| fresh) else { continue };
        add_gpu(&mut writer, reading);
        for mig in &reading.mig {
            let instance = [mig.profile.as_str(), &mig.gi.to_string()];
            writer.labels = labels(&gpu.id, instance, host_name, driver);
            // dcgm-exporter names GPU instances only, of which several compute instances may be a part.
            if reading.mig.iter().find(|other| other.gi == mig.gi).is_some_and(|first| std::ptr::eq(first, mig)) {
                add_memory(&mut writer, mig.memory);
                writer.float([&catalogue::GR_ENGINE_ACTIVE, &catalogue::GR_ENGINE_RATIO], mig.utilization);
            }
        }
    }
}

/// A GPU's labels in catalogue order. The PCI address is formatted as in NVML: `00000000:3B:00.0`.
fn labels(id: &Identity, [profile, instance]: [&str; 2], host_name: &str, driver: [&str; 2]) -> [String; 10] {
    let index = id.index.to_string();
    let device = format!("nvidia{index}");
    let bus = format!("0000{}", id.pci.to_uppercase());
    let [older, newer] = driver;
    [&index, &id.uuid, &bus, &device, &id.name, profile, instance, host_name, older, newer].map(str::to_owned)
}

struct Writer<'a> {
    page: &'a mut Page,
    release: DcgmRelease,
    labels: [String; 10],
}

/// Names of a metric in 4.8 and 4.9.
type Names = [&'static Desc; 2];

impl Writer<'_> {
    /// The one of two that this release has.
    fn choose<T: Copy>(&self, [older, newer]: [T; 2]) -> T {
        match self.release {
            DcgmRelease::V4_8 => older,
            DcgmRelease::V4_9 => newer,
        }
    }

    fn add(&mut self, names: Names, value: Value) {
        let labels = self.labels.iter().map(SmolStr::new).collect();
        self.page.push(self.choose(names), labels, value);
    }

    /// A number with the same unit in both releases.
    fn integer(&mut self, names: Names, value: Option<u64>) {
        self.scaled(names, value.map(|value| [value, value]));
    }

    /// A number with a different unit in each release.
    fn scaled(&mut self, names: Names, value: Option<[u64; 2]>) {
        if let Some(value) = value {
            let value = self.choose(value);
            self.add(names, Value::Integer(value));
        }
    }

    fn float(&mut self, names: Names, value: Option<f64>) {
        if let Some(value) = value {
            self.add(names, Value::Float(value));
        }
    }

    /// Percent, or a fraction.
    fn percent(&mut self, names: Names, value: Option<u32>) {
        if let Some(percent) = value {
            let value = match self.release {
                DcgmRelease::V4_8 => Value::Integer(percent.into()),
                DcgmRelease::V4_9 => Value::Float(f64::from(percent) / 100.0),
            };
            self.add(names, value);
        }
    }
}

fn add_xid(writer: &mut Writer<'_>, gpu: &Gpu, xids: &Xids) {
    // A number that the driver does not have is no Xid to it.
    let xid = xids.last(&gpu.id.pci).and_then(Xid::number).unwrap_or(0);
    let message = MESSAGES.iter().find(|(number, _)| *number == xid).map_or(UNKNOWN, |(_, message)| message);
    let mut labels: Vec<SmolStr> = writer.labels.iter().map(SmolStr::new).collect();
    labels.extend([SmolStr::new(xid.to_string()), SmolStr::new_static(message)]);
    let desc = writer.choose([&catalogue::XID_ERRORS, &catalogue::XID_ERROR]);
    writer.page.push(desc, labels, Value::Integer(xid));
}

fn add_gpu(writer: &mut Writer<'_>, reading: &Reading) {
    use catalogue as c;
    let clock = |name| {
        let megahertz = reading.clocks.iter().find(|(clock, _)| *clock == name).map(|(_, mhz)| u64::from(*mhz));
        megahertz.map(|megahertz| [megahertz, megahertz * MEGA])
    };
    let degrees = |name| reading.temperatures.iter().find(|(sensor, _)| *sensor == name).map(|(_, c)| *c as f64);
    let rows = |name| reading.remapped.iter().find(|(kind, _)| *kind == name).map(|(_, rows)| *rows);
    writer.scaled([&c::SM_CLOCK, &c::SM_CLOCK_HERTZ], clock("sm"));
    writer.scaled([&c::MEM_CLOCK, &c::MEMORY_CLOCK_HERTZ], clock("memory"));
    writer.float([&c::MEMORY_TEMP, &c::MEMORY_TEMP_CELSIUS], degrees("memory"));
    writer.float([&c::GPU_TEMP, &c::GPU_TEMP_CELSIUS], degrees("gpu"));
    let watts = reading.power_mw.map(|milliwatts| f64::from(milliwatts) / 1e3);
    writer.float([&c::POWER_USAGE, &c::BOARD_POWER_WATTS], watts);
    let energy = reading.energy_mj.map(|millijoules| [millijoules, millijoules / 1000]);
    writer.scaled([&c::TOTAL_ENERGY, &c::ENERGY_JOULES], energy);
    writer.integer([&c::PCIE_REPLAY, &c::PCIE_REPLAY_TOTAL], reading.pcie_replays);
    writer.percent([&c::GPU_UTIL, &c::GPU_UTIL_RATIO], reading.utilization.map(|(gpu, _)| gpu));
    writer.percent([&c::MEM_COPY_UTIL, &c::MEMORY_UTIL_RATIO], reading.utilization.map(|(_, memory)| memory));
    writer.percent([&c::ENC_UTIL, &c::ENC_UTIL_RATIO], reading.compat.encoder);
    writer.percent([&c::DEC_UTIL, &c::DEC_UTIL_RATIO], reading.compat.decoder);
    writer.integer([&c::VGPU_LICENSE; 2], reading.compat.licensed.map(u64::from));
    add_memory(writer, reading.memory);
    // DCGM divides KiB by 1000 for what it calls MB, and multiplies them by 1024 for bytes.
    let links = reading.links_kib_per_second.map(|kib| [(kib / 1e3) as u64, (kib * 1024.0) as u64]);
    writer.scaled([&c::NVLINK_BANDWIDTH, &c::NVLINK_BYTES], links);
    writer.integer([&c::UNCORRECTABLE_ROWS, &c::UNCORRECTABLE_TOTAL], rows("uncorrectable"));
    writer.integer([&c::CORRECTABLE_ROWS, &c::CORRECTABLE_TOTAL], rows("correctable"));
    writer.integer([&c::ROW_REMAP_FAILURE, &c::ROW_REMAP_FAILED], rows("failure"));
    let Gpm { graphics, tensor, dram, pcie } = reading.gpm;
    writer.float([&c::GR_ENGINE_ACTIVE, &c::GR_ENGINE_RATIO], graphics);
    writer.float([&c::TENSOR_ACTIVE, &c::TENSOR_RATIO], tensor);
    writer.float([&c::DRAM_ACTIVE, &c::DRAM_RATIO], dram);
    writer.integer([&c::PCIE_TX; 2], pcie.map(|[transmitted, _]| transmitted as u64));
    writer.integer([&c::PCIE_RX; 2], pcie.map(|[_, received]| received as u64));
}

fn add_memory(writer: &mut Writer<'_>, memory: Option<DeviceMemory>) {
    use catalogue as c;
    let Some(memory) = memory else { return };
    let units = |bytes: u64| [bytes / MIB, bytes];
    let reserved = memory.reserved.unwrap_or(0);
    let free = memory.total.saturating_sub(memory.used.saturating_add(reserved));
    writer.scaled([&c::FB_FREE, &c::FB_FREE_BYTES], Some(units(free)));
    writer.scaled([&c::FB_USED, &c::FB_USED_BYTES], Some(units(memory.used)));
    writer.scaled([&c::FB_RESERVED, &c::FB_RESERVED_BYTES], memory.reserved.map(units));
    if writer.release == DcgmRelease::V4_9 {
        writer.integer([&c::FB_CAPACITY_BYTES; 2], Some(memory.total));
    }
}
