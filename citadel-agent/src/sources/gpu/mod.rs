//! GPUs: exports the last report of the sampling thread.

mod dcgm;
mod models;

use std::collections::BTreeMap;

use smol_str::{SmolStr, format_smolstr};

use super::{Origin, Outcome, Reading};
use crate::discovery::owners::Owners;
use crate::gpu::sample::{Gpu, Identity, Labels as More, Measured, Mig, Number, Pass, Reading as Answers};
use crate::gpu::xid::Xid;
use crate::gpu::{self, View};
use crate::metrics::catalogue::gpu as catalogue;
use crate::metrics::family::{Page, Value};

pub(super) use models::read as read_models;

/// Bits of the clock event reasons (`nvmlClocksEventReason*` of nvml.h).
const REASONS: [(u64, &str); 9] = [
    (0x1, "gpu_idle"),
    (0x2, "applications_clocks"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clocks"),
];

const KIB: u64 = 1024;
const MEGA: u64 = 1_000_000;

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(gpu) = origin.gpu else { return Ok(Outcome::Absent) };
    let view = gpu.view();
    match &view {
        View::Absent => return Ok(Outcome::Absent),
        View::Released => page.add(&catalogue::RELEASED, [], Value::Integer(1)),
        View::Fresh(_) | View::Lost { .. } => page.add(&catalogue::RELEASED, [], Value::Integer(0)),
    }
    let fresh = matches!(view, View::Fresh(_));
    let compat = origin.config.gpu.dcgm_compat;
    if let Some(sample) = view.pass() {
        let owners = gpu.owners();
        for one in &sample.gpus {
            add_gpu(page, one, fresh, sample, &owners);
        }
        for address in sample.suspended.iter().filter(|_| fresh) {
            page.add(&catalogue::SUSPENDED, [address], Value::Integer(1));
        }
        for address in &sample.missing {
            page.add(&catalogue::MISSING, [address], Value::Integer(1));
        }
        if let Some(release) = compat {
            dcgm::add(page, release, fresh, sample, gpu.xids(), &origin.roots.host_name());
        }
        add_xids(page, sample, gpu.xids());
    }
    add_cost(page, gpu);
    match view {
        View::Lost { reason, .. } => Ok(Outcome::Partly(reason.into())),
        _ => Ok(Outcome::Read),
    }
}

/// The labels of every GPU metric.
struct Labels<'a> {
    uuid: &'a str,
    index: String,
    name: &'a str,
}

impl<'a> Labels<'a> {
    fn of(id: &'a Identity) -> Self {
        Self { uuid: &id.uuid, index: id.index.to_string(), name: &id.name }
    }

    fn plain(&self) -> [&str; 3] {
        [self.uuid, &self.index, self.name]
    }

    fn and<'b>(&'b self, more: &'b str) -> [&'b str; 4] {
        [self.uuid, &self.index, self.name, more]
    }

    fn and_both<'b>(&'b self, first: &'b str, second: &'b str) -> [&'b str; 5] {
        [self.uuid, &self.index, self.name, first, second]
    }
}

fn add_gpu(page: &mut Page, gpu: &Gpu, fresh: bool, sample: &Pass, owners: &Owners) {
    let id = &gpu.id;
    let labels = Labels::of(id);
    let answers = gpu.reading.as_ref().ok().filter(|_| fresh);
    page.add(&catalogue::UP, labels.plain(), Value::Integer(u64::from(answers.is_some())));
    let Some(answers) = answers else { return };
    let [uuid, index, name] = labels.plain();
    let driver = &sample.driver;
    let info = [uuid, index, name, &driver.version, &driver.cuda, &id.vbios, &id.pci, &id.serial];
    page.add(&catalogue::INFO, info, Value::Integer(1));
    add_state(page, &labels, answers);
    add_counts(page, &labels, answers);
    for mig in &answers.mig {
        add_mig(page, &labels, mig);
    }
    for measured in answers.measured.iter().chain(answers.seldom.iter()) {
        add_measured(page, &labels, measured);
    }
    if let Some(sharing) = answers.sharing {
        page.add(&catalogue::SHARING, labels.and(sharing.label()), Value::Integer(1));
    }
    add_processes(page, &labels, answers, owners);
}

/// A value with its catalogue entry.
fn add_measured(page: &mut Page, labels: &Labels<'_>, Measured { desc, labels: more, value }: &Measured) {
    let mut values: Vec<SmolStr> = labels.plain().map(SmolStr::new).into();
    match more {
        More::None => {}
        More::One(label) => values.push(SmolStr::new_static(label)),
        More::Link(link) => values.push(format_smolstr!("{link}")),
        More::LinkAnd(link, label) => values.extend([format_smolstr!("{link}"), SmolStr::new_static(label)]),
        More::Texts(texts) => values.extend(texts.iter().map(SmolStr::new)),
    }
    let value = match *value {
        Number::Integer(value) => Value::Integer(value),
        Number::Float(value) => Value::Float(value),
    };
    page.push(desc, values, value);
}

fn add_processes(page: &mut Page, labels: &Labels<'_>, answers: &Answers, owners: &Owners) {
    // A process can be in several MIG devices.
    let mut memory: BTreeMap<u32, u64> = BTreeMap::new();
    let mut codecs: BTreeMap<u32, [f64; 2]> = BTreeMap::new();
    for process in &answers.processes {
        if let Some(bytes) = process.memory {
            *memory.entry(process.pid).or_default() += bytes;
        }
        if let Some(percent) = process.codecs {
            codecs.insert(process.pid, percent);
        }
    }
    let model = |pid| owners.of(pid).map_or("", |owner| owner.model.as_str());
    for (pid, bytes) in memory {
        page.add(&catalogue::PROCESS_MEMORY, labels.and_both(&pid.to_string(), model(pid)), Value::Integer(bytes));
    }
    for (pid, percent) in codecs {
        let [uuid, index, name] = labels.plain();
        for (engine, percent) in ["encoder", "decoder"].into_iter().zip(percent).filter(|(_, percent)| *percent > 0.0) {
            let labels = [uuid, index, name, &pid.to_string(), model(pid), engine];
            page.add(&catalogue::PROCESS_CODEC, labels, Value::Float(percent / 100.0));
        }
    }
}

/// Adds gauges.
fn add_state(page: &mut Page, labels: &Labels<'_>, answers: &Answers) {
    let plain = labels.plain();
    if let Some((gpu, memory)) = answers.utilization {
        page.add(&catalogue::UTILIZATION, plain, percent(gpu));
        page.add(&catalogue::MEMORY_UTILIZATION, plain, percent(memory));
    }
    if let Some(memory) = answers.memory {
        page.add(&catalogue::MEMORY_USED, plain, Value::Integer(memory.used));
        page.add(&catalogue::MEMORY_TOTAL, plain, Value::Integer(memory.total));
    }
    if let Some(milliwatts) = answers.power_mw {
        page.add(&catalogue::POWER, plain, Value::Float(f64::from(milliwatts) / 1e3));
    }
    if let Some(milliwatts) = answers.power_instant_mw {
        page.add(&catalogue::POWER_INSTANT, plain, Value::Float(milliwatts as f64 / 1e3));
    }
    if let Some(milliwatts) = answers.power_limit_mw {
        page.add(&catalogue::POWER_LIMIT, plain, Value::Float(f64::from(milliwatts) / 1e3));
    }
    for (sensor, degrees) in &answers.temperatures {
        page.add(&catalogue::TEMPERATURE, labels.and(sensor), Value::Float(*degrees as f64));
    }
    for (fan, speed) in (0..).zip(&answers.fans) {
        if let Some(speed) = speed {
            page.add(&catalogue::FAN, labels.and(&u32::to_string(&fan)), percent(*speed));
        }
    }
    for (clock, megahertz) in &answers.clocks {
        page.add(&catalogue::CLOCK, labels.and(clock), Value::Integer(u64::from(*megahertz) * MEGA));
    }
    if let Some(active) = answers.throttle {
        let mut unnamed = active;
        for (bit, reason) in REASONS {
            page.add(&catalogue::THROTTLE_ACTIVE, labels.and(reason), Value::Integer(u64::from(active & bit != 0)));
            unnamed &= !bit;
        }
        for bit in (0..u64::BITS).map(|shift| 1 << shift).filter(|bit| unnamed & bit != 0) {
            page.add(&catalogue::THROTTLE_ACTIVE, labels.and(&format!("{bit:#x}")), Value::Integer(1));
        }
    }
    for (kind, rows) in &answers.remapped {
        page.add(&catalogue::REMAPPED_ROWS, labels.and(kind), Value::Integer(*rows));
    }
}

/// Adds counters.
fn add_counts(page: &mut Page, labels: &Labels<'_>, answers: &Answers) {
    let plain = labels.plain();
    if let Some(millijoules) = answers.energy_mj {
        page.add(&catalogue::ENERGY, plain, Value::Float(millijoules as f64 / 1e3));
    }
    if let Some(nanoseconds) = answers.sw_thermal_ns {
        let labels = labels.and("sw_thermal_slowdown");
        page.add(&catalogue::THROTTLE_SECONDS, labels, Value::Float(nanoseconds as f64 / 1e9));
    }
    for errors in answers.ecc.iter() {
        page.add(&catalogue::ECC_ERRORS, labels.and_both(errors.kind, errors.location), Value::Integer(errors.count));
    }
    if let Some([transmitted, received]) = answers.pcie_bytes {
        page.add(&catalogue::PCIE_BYTES, labels.and("transmit"), Value::Integer(transmitted));
        page.add(&catalogue::PCIE_BYTES, labels.and("receive"), Value::Integer(received));
    }
    if let Some(replays) = answers.pcie_replays {
        page.add(&catalogue::PCIE_REPLAYS, plain, Value::Integer(replays));
    }
    for (link, direction, kib) in &answers.links_kib {
        let number = link.to_string();
        page.add(
            &catalogue::NVLINK_BYTES,
            labels.and_both(&number, direction),
            Value::Integer(kib.saturating_mul(KIB)),
        );
    }
}

fn add_mig(page: &mut Page, labels: &Labels<'_>, mig: &Mig) {
    let (gi, ci) = (mig.gi.to_string(), mig.ci.to_string());
    let [uuid, index, name] = labels.plain();
    let info = [uuid, index, name, &gi, &ci, &mig.uuid, &mig.profile];
    page.add(&catalogue::MIG_INFO, info, Value::Integer(1));
    let labels = labels.and_both(&gi, &ci);
    if let Some(memory) = mig.memory {
        page.add(&catalogue::MIG_MEMORY_USED, labels, Value::Integer(memory.used));
        page.add(&catalogue::MIG_MEMORY_TOTAL, labels, Value::Integer(memory.total));
    }
    if let Some(ratio) = mig.utilization {
        page.add(&catalogue::MIG_UTILIZATION, labels, Value::Float(ratio));
    }
}

/// Adds Xids of GPUs, including those that have stopped answering; without the name of a GPU that never answered.
fn add_xids(page: &mut Page, sample: &Pass, xids: &gpu::Xids) {
    let nameless = Identity::default();
    let of = |pci: &str| sample.gpus.iter().find(|gpu| gpu.id.pci == pci).map_or(&nameless, |gpu| &*gpu.id);
    let all = xids.all();
    let mut counts: BTreeMap<(&str, u32, Xid), (Labels<'_>, u64)> = BTreeMap::new();
    for (pci, xid, count) in &all {
        let id = of(pci);
        let entry = counts.entry((&id.uuid, id.index, *xid)).or_insert_with(|| (Labels::of(id), 0));
        entry.1 += count;
    }
    for ((.., xid), (labels, count)) in counts {
        page.add(&catalogue::XID_ERRORS, labels.and(&xid.label()), Value::Integer(count));
    }
    for (pci, count) in xids.fallen() {
        page.add(&catalogue::FALLEN, Labels::of(of(&pci)).and(&pci), Value::Integer(count));
    }
    for (refusal, count) in xids.refused() {
        page.add(&catalogue::XID_REFUSED, [refusal.label()], Value::Integer(count));
    }
    page.add(&catalogue::KMSG_LOST, [], Value::Integer(xids.lines_lost()));
}

/// Adds the cost of sampling.
fn add_cost(page: &mut Page, gpu: &gpu::Gpu) {
    for (call, cost) in gpu.costs() {
        page.add(&catalogue::NVML_ERRORS, [call], Value::Integer(cost.errors));
        page.add(&catalogue::NVML_REFUSED, [call], Value::Integer(cost.refused));
        page.add(&catalogue::NVML_CALL, [call], Value::Histogram(cost.seconds));
    }
    let (passes, cpu_seconds) = gpu.work();
    page.add(&catalogue::SAMPLES, [], Value::Integer(passes));
    page.add(&catalogue::SAMPLER_CPU, [], Value::Float(cpu_seconds));
}

fn percent(value: u32) -> Value {
    Value::Float(f64::from(value) / 100.0)
}
