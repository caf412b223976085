//! The same samples under dcgm-exporter's names and in its units.

use crate::gpu::Xids;
use crate::gpu::sample::{Gpm, Gpu, Identity, Memory, Reading, Sample};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::dcgm as catalogue;
use crate::metrics::family::{Page, Value};

const MIB: u64 = 1 << 20;

pub(super) fn add(page: &mut Page, sample: &Sample, xids: &Xids, host_name: &str) {
    for gpu in &sample.gpus {
        let Ok(reading) = &gpu.reading else { continue };
        let mut series = Series { page, labels: labels(&gpu.id, ["", ""], host_name, &sample.driver.version) };
        add_gpu(&mut series, gpu, reading, xids);
        for mig in &reading.mig {
            let instance = [mig.profile.as_str(), &mig.gi.to_string()];
            series.labels = labels(&gpu.id, instance, host_name, &sample.driver.version);
            // dcgm-exporter names GPU instances only, of which several compute instances may be a part.
            if reading.mig.iter().find(|other| other.gi == mig.gi).is_some_and(|first| std::ptr::eq(first, mig)) {
                add_memory(&mut series, mig.memory);
                series.float(&catalogue::GR_ENGINE_ACTIVE, mig.utilization);
            }
        }
    }
}

/// A GPU's labels in the order of the catalogue. The bus is spelled as NVML does: `00000000:3B:00.0`.
fn labels(id: &Identity, [profile, instance]: [&str; 2], host_name: &str, driver: &str) -> [String; 9] {
    let index = id.index.to_string();
    let device = format!("nvidia{index}");
    let bus = format!("0000{}", id.pci.to_uppercase());
    [&index, &id.uuid, &bus, &device, &id.name, profile, instance, host_name, driver].map(str::to_owned)
}

struct Series<'a> {
    page: &'a mut Page,
    labels: [String; 9],
}

impl Series<'_> {
    fn integer(&mut self, desc: &'static Desc, value: Option<u64>) {
        if let Some(value) = value {
            self.page.add(desc, self.labels.each_ref().map(String::as_str), Value::Integer(value));
        }
    }

    fn float(&mut self, desc: &'static Desc, value: Option<f64>) {
        if let Some(value) = value {
            self.page.add(desc, self.labels.each_ref().map(String::as_str), Value::Float(value));
        }
    }
}

fn add_gpu(series: &mut Series<'_>, gpu: &Gpu, reading: &Reading, xids: &Xids) {
    let clock = |name| reading.clocks.iter().find(|(clock, _)| *clock == name).map(|(_, mhz)| u64::from(*mhz));
    let degrees = |name| reading.temperatures.iter().find(|(sensor, _)| *sensor == name).map(|(_, c)| *c as f64);
    let rows = |name| reading.remapped.iter().find(|(kind, _)| *kind == name).map(|(_, rows)| *rows);
    series.integer(&catalogue::SM_CLOCK, clock("sm"));
    series.integer(&catalogue::MEM_CLOCK, clock("memory"));
    series.float(&catalogue::MEMORY_TEMP, degrees("memory"));
    series.float(&catalogue::GPU_TEMP, degrees("gpu"));
    series.float(&catalogue::POWER_USAGE, reading.power_mw.map(|milliwatts| f64::from(milliwatts) / 1e3));
    series.integer(&catalogue::TOTAL_ENERGY, reading.energy_mj);
    series.integer(&catalogue::PCIE_REPLAY, reading.pcie_replays);
    series.integer(&catalogue::GPU_UTIL, reading.utilization.map(|(gpu, _)| gpu.into()));
    series.integer(&catalogue::MEM_COPY_UTIL, reading.utilization.map(|(_, memory)| memory.into()));
    series.integer(&catalogue::ENC_UTIL, reading.compat.encoder.map(u64::from));
    series.integer(&catalogue::DEC_UTIL, reading.compat.decoder.map(u64::from));
    series.integer(&catalogue::VGPU_LICENSE, reading.compat.licensed.map(u64::from));
    series.integer(&catalogue::XID, Some(xids.last(&gpu.id.pci).unwrap_or(0)));
    add_memory(series, reading.memory);
    series.integer(&catalogue::NVLINK_BANDWIDTH, reading.links_kib_per_second.map(|kib| (kib / 1e3) as u64));
    series.integer(&catalogue::UNCORRECTABLE_ROWS, rows("uncorrectable"));
    series.integer(&catalogue::CORRECTABLE_ROWS, rows("correctable"));
    series.integer(&catalogue::ROW_REMAP_FAILURE, rows("failure"));
    let Gpm { graphics, tensor, dram, pcie } = reading.gpm;
    series.float(&catalogue::GR_ENGINE_ACTIVE, graphics);
    series.float(&catalogue::TENSOR_ACTIVE, tensor);
    series.float(&catalogue::DRAM_ACTIVE, dram);
    series.integer(&catalogue::PCIE_TX, pcie.map(|[transmitted, _]| transmitted as u64));
    series.integer(&catalogue::PCIE_RX, pcie.map(|[_, received]| received as u64));
}

fn add_memory(series: &mut Series<'_>, memory: Option<Memory>) {
    let Some(memory) = memory else { return };
    let reserved = memory.reserved.unwrap_or(0);
    series.integer(&catalogue::FB_FREE, Some(memory.total.saturating_sub(memory.used + reserved) / MIB));
    series.integer(&catalogue::FB_USED, Some(memory.used / MIB));
    series.integer(&catalogue::FB_RESERVED, memory.reserved.map(|reserved| reserved / MIB));
}
