//! A GPU: its identity, read once, and its values, read at each pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, MemoryLocation, PcieUtilCounter, TemperatureSensor,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_C2C_LINK_COUNT;
use nvml_wrapper_sys::bindings::{
    nvmlMarginTemperature_t, nvmlTemperature_t, nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU as GPU_SENSOR,
};

use super::calls::{Calls, Gone};
use super::fields::{Batch, Unwrapped};
use super::gpm::Meter;
use super::joules::Energy;
use super::limits::{CELSIUS, COUNT, FAN_PERCENT, MEGAHERTZ, MEMORY, MILLIJOULES, MILLIWATTS, PCIE_RATE, PERCENT};
use super::links::{Links, chip_to_chip};
use super::measure::{FIELD_VALUES, measured, possible};
use super::memory::memory;
use super::mig::Instances;
use super::raw::{get, get_from, version};
use super::seldom::{CLOCKS, Reader};
use super::table::{Field, Means, Pace};
use super::{Options, compat, processes};
use crate::gpu::sample::{EccCount, Identity, Labels, Measured, Number, Reading};
use crate::metrics::catalogue::gpu as catalogue;

/// Maximum interval for slowly changing values, however long reading them takes.
const SELDOM_MOST: Duration = Duration::from_secs(300);

/// ECC counters change once in months and need 16 calls: they are read at this interval, and after each event that
/// reports an ECC error.
const ECC_PERIOD: Duration = Duration::from_secs(30);

const ECC_KINDS: [(MemoryError, &str); 2] =
    [(MemoryError::Corrected, "corrected"), (MemoryError::Uncorrected, "uncorrected")];

const ECC_LOCATIONS: [(MemoryLocation, &str); 8] = [
    (MemoryLocation::L1Cache, "l1_cache"),
    (MemoryLocation::L2Cache, "l2_cache"),
    (MemoryLocation::Device, "dram"),
    (MemoryLocation::RegisterFile, "register_file"),
    (MemoryLocation::Texture, "texture"),
    (MemoryLocation::Shared, "shared"),
    (MemoryLocation::Cbu, "cbu"),
    (MemoryLocation::SRAM, "sram"),
];

/// A GPU that answers.
pub(super) struct Board<'n> {
    pub(super) id: Arc<Identity>,
    /// The UUID, as the key of what it does not support.
    key: Arc<str>,
    device: Device<'n>,
    fans: u32,
    /// Whether its memory is part of the host's (Grace).
    unified: bool,
    links: Links,
    fields: Batch,
    seldom_fields: Batch,
    /// Whether FEC bins are currently read for the links.
    fec: bool,
    gpm: Option<Meter<'n>>,
    instances: Instances<'n>,
    /// Timestamp of the newest utilization sample.
    utilization_seen: u64,
    ecc: Arc<Vec<EccCount>>,
    ecc_read: Option<Instant>,
    seldom: Arc<Vec<Measured>>,
    seldom_due: Instant,
    /// Bytes transmitted and received; the counts of a previous session are restored here.
    pub(super) pcie: [Unwrapped; 2],
    /// KiB over all links at the last pass.
    links_kib: Option<(Vec<u32>, u64)>,
    last_read: Option<Instant>,
    since_last: Option<Duration>,
    energy: Energy,
}

impl<'n> Board<'n> {
    /// Reads the identity and features of a GPU.
    pub(super) fn attach(calls: &mut Calls, device: Device<'n>, gpm: bool) -> Result<Self, Gone> {
        let identity = identify(calls, &device)?;
        let key: Arc<str> = identity.uuid.as_str().into();
        let fans = calls.ask(&key, "nvmlDeviceGetNumFans", 0, || device.num_fans())?.unwrap_or(0);
        let gpm = gpm && calls.ask(&key, "nvmlGpmQueryDeviceSupport", 0, || device.gpm_support())? == Some(true);
        let node = || get(&device, device.nvml().lib().nvmlDeviceGetNumaNodeId.as_ref());
        let unified = calls.ask::<u32>(&key, "nvmlDeviceGetNumaNodeId", 0, node)?.is_some();
        let scheme = device.nvml().field_id_scheme();
        Ok(Self {
            id: Arc::new(identity),
            key,
            // More would be garbage.
            fans: fans.min(64),
            unified,
            links: Links::default(),
            fields: Batch::new(scheme, Pace::Pass),
            seldom_fields: Batch::new(scheme, Pace::Slow),
            fec: false,
            gpm: gpm.then(Meter::default),
            instances: Instances::default(),
            utilization_seen: 0,
            ecc: Arc::default(),
            ecc_read: None,
            seldom: Arc::default(),
            seldom_due: Instant::now(),
            pcie: Default::default(),
            links_kib: None,
            last_read: None,
            since_last: None,
            energy: Energy::default(),
            device,
        })
    }

    /// The wrapper's device.
    pub(super) fn device(&self) -> &Device<'n> {
        &self.device
    }

    /// Time between the last two readings of its energy; `None` if the last was the first one, or a pass had none.
    pub(super) fn since_last(&self) -> Option<Duration> {
        self.since_last.filter(|_| self.energy.consecutive())
    }

    /// Reads ECC counters and related values at the next pass.
    pub(super) fn expect_ecc(&mut self) {
        self.ecc_read = None;
        self.seldom_due = Instant::now();
    }

    /// Reads everything that changes.
    pub(super) fn read(&mut self, calls: &mut Calls, options: &Options) -> Result<Reading, Gone> {
        self.since_last = self.last_read.replace(Instant::now()).map(|last| last.elapsed());
        let (device, key) = (&self.device, &self.key);
        const UTILIZATION: &str = "nvmlDeviceGetUtilizationRates";
        let rates = calls.ask(key, UTILIZATION, 0, || device.utilization_rates())?;
        let mut percent = |of, value| calls.sane(UTILIZATION, of, value, &PERCENT);
        let utilization = percent("gpu", rates.as_ref().map(|rates| rates.gpu))
            .zip(percent("memory", rates.as_ref().map(|rates| rates.memory)));
        let mut reading = Reading {
            memory: memory(calls, key, device)?,
            utilization,
            power_mw: calls.ask_sane(key, "nvmlDeviceGetPowerUsage", 0, &MILLIWATTS, || device.power_usage())?,
            power_limit_mw: calls
                .ask_sane(key, "nvmlDeviceGetEnforcedPowerLimit", 0, &MILLIWATTS, || device.enforced_power_limit())?,
            throttle: throttle(calls, key, device)?,
            unified: self.unified,
            ..Reading::default()
        };
        if let Some(degrees) = temperature(calls, key, device)? {
            reading.temperatures.push(("gpu", degrees.into()));
        }
        if let Some(degrees) = calls.ask_sane(key, "nvmlDeviceGetMarginTemperature", 0, &CELSIUS, || margin(device))? {
            reading.temperatures.push(("margin", degrees.into()));
        }
        for (number, (clock, name)) in (0..).zip(CLOCKS) {
            let ask = || device.clock_info(clock);
            let megahertz = calls.ask_sane(key, "nvmlDeviceGetClockInfo", number, &MEGAHERTZ, ask)?;
            reading.clocks.extend(megahertz.map(|megahertz| (name, megahertz)));
        }
        let state = || get(device, device.nvml().lib().nvmlDeviceGetPerformanceState.as_ref());
        // 32: unknown. The highest number is the lowest performance.
        if let Some(state @ 0..=15) = calls.ask::<u32>(key, "nvmlDeviceGetPerformanceState", 0, state)? {
            let value = Number::Integer(state.into());
            reading.measured.push(Measured { desc: &catalogue::PERFORMANCE_STATE, labels: Labels::None, value });
        }
        for fan in 0..self.fans {
            let ask = || device.fan_speed(fan);
            reading.fans.push(calls.ask_sane(key, "nvmlDeviceGetFanSpeed_v2", fan, &FAN_PERCENT, ask)?);
        }
        if options.compat {
            reading.compat = compat::read(calls, key, device)?;
        }
        self.follow_links(calls, options)?;
        reading.measured.extend(self.links.states());
        self.read_fields(calls, &mut reading)?;
        if let Some(rates) = self.gpm.as_mut().and_then(|meter| meter.read(calls, &self.device, None)) {
            reading.gpm = rates.gpm;
            reading.measured.extend(rates.measured);
        }
        self.estimate_pcie(calls, &mut reading, options)?;
        self.read_ecc(calls)?;
        reading.ecc = Arc::clone(&self.ecc);
        self.read_seldom(calls, options)?;
        reading.seldom = Arc::clone(&self.seldom);
        reading.mig = self.instances.read(calls, &self.key, &self.device, self.gpm.is_some())?;
        let most = match reading.memory {
            // Includes the operating system's memory.
            Some(memory) if !self.unified => memory.total,
            _ => *MEMORY.end(),
        };
        let found = processes::read(calls, &self.key, &self.device, &mut self.utilization_seen, most)?;
        (reading.processes, reading.sharing) = (found.processes, found.sharing);
        // Last, close to the processes' SM time, by which it is split.
        const ENERGY: &str = "nvmlDeviceGetTotalEnergyConsumption";
        let energy = calls.ask_sane(&self.key, ENERGY, 0, &MILLIJOULES, || self.device.total_energy_consumption())?;
        reading.energy_mj = self.energy.accept(calls, ENERGY, energy);
        Ok(reading)
    }

    /// Updates the fields that are read from active links.
    fn follow_links(&mut self, calls: &mut Calls, options: &Options) -> Result<(), Gone> {
        let changed = self.links.look(calls, &self.key, &self.device, options.links_period())?;
        if changed || self.fec != options.fec {
            self.fec = options.fec;
            let count = || self.seldom_fields.one(&self.device, NVML_FI_DEV_C2C_LINK_COUNT);
            let c2c = chip_to_chip(calls.ask(&self.key, FIELD_VALUES, 2, count)?.flatten());
            let up = self.links.up();
            self.fields.set_links(&up, &c2c, options.fec);
            self.seldom_fields.set_links(&up, &c2c, options.fec);
        }
        Ok(())
    }

    fn read_fields(&mut self, calls: &mut Calls, reading: &mut Reading) -> Result<(), Gone> {
        let read = || self.fields.read(&self.device);
        let Some((answers, gone)) = calls.ask(&self.key, FIELD_VALUES, 0, read)? else { return Ok(()) };
        if gone {
            self.links.suspect();
        }
        let mut pcie = [None; 2];
        let mut old_sw_thermal = None;
        for (spec, scope, number) in answers {
            let Some(value) = possible(calls, spec, number) else { continue };
            let Means::Own(field) = spec.means else {
                reading.measured.extend(measured(spec, scope, value));
                continue;
            };
            let count = u64::try_from(value).unwrap_or(0);
            match field {
                Field::MemoryTemperature => reading.temperatures.push(("memory", value as i64)),
                Field::SwThermal => reading.sw_thermal_ns = Some(count),
                Field::OldSwThermal => old_sw_thermal = Some(count),
                Field::Power => reading.power_instant_mw = Some(count),
                Field::PcieReplays => reading.pcie_replays = Some(count),
                Field::Remapped(kind) => reading.remapped.push((kind, count)),
                Field::PcieBytes(direction) => {
                    pcie[direction] = Some(self.pcie[direction].count(count, number.narrow));
                }
                Field::LinkKib(direction) => reading.links_kib.push((scope, direction, count)),
            }
        }
        // Both are the same counter (nvml.h); drivers before R555 have only the older one.
        reading.sw_thermal_ns = reading.sw_thermal_ns.or(old_sw_thermal);
        if let [Some(transmitted), Some(received)] = pcie {
            reading.pcie_bytes = Some([transmitted, received]);
        }
        let links: Vec<u32> = reading.links_kib.iter().map(|(link, ..)| *link).collect();
        let kib = reading.links_kib.iter().map(|(.., kib)| kib).sum::<u64>();
        // No rate if links have changed since the last pass.
        let before = self.links_kib.replace((links.clone(), kib)).filter(|(before, _)| *before == links);
        reading.links_kib_per_second = (before.zip(self.since_last).filter(|_| !links.is_empty()))
            .map(|((_, before), since_last)| kib.saturating_sub(before) as f64 / since_last.as_secs_f64());
        Ok(())
    }

    /// PCIe bytes of GPUs that do not count them: from GPM rates, or, if enabled, from calls that block for 20 ms.
    fn estimate_pcie(&mut self, calls: &mut Calls, reading: &mut Reading, options: &Options) -> Result<(), Gone> {
        if reading.pcie_bytes.is_some() {
            return Ok(());
        }
        let rates = match reading.gpm.pcie {
            Some(rates) => Some(rates),
            None if options.pcie_throughput => {
                let directions = [PcieUtilCounter::Send, PcieUtilCounter::Receive];
                let mut rates = [None; 2];
                for (rate, (number, direction)) in rates.iter_mut().zip((0..).zip(directions)) {
                    let ask = || self.device.pcie_throughput(direction);
                    *rate = calls.ask_sane(&self.key, "nvmlDeviceGetPcieThroughput", number, &PCIE_RATE, ask)?;
                }
                // KB means 1000 bytes here (nvml.h says KB/s here and KiB elsewhere).
                rates[0].zip(rates[1]).map(|(sent, received)| [sent, received].map(|rate| f64::from(rate) * 1000.0))
            }
            None => None,
        };
        if let Some(rates) = rates {
            let seconds = self.since_last.unwrap_or_default().as_secs_f64();
            let [transmitted, received] = &mut self.pcie;
            let bytes = |rate: f64| (rate.max(0.0) * seconds) as u64;
            reading.pcie_bytes = Some([transmitted.add(bytes(rates[0])), received.add(bytes(rates[1]))]);
        }
        Ok(())
    }

    /// Reads slowly changing values when due. If the driver is slow, less often: they get a thousandth of the sampler's
    /// time.
    fn read_seldom(&mut self, calls: &mut Calls, options: &Options) -> Result<(), Gone> {
        let begin = Instant::now();
        if begin < self.seldom_due {
            return Ok(());
        }
        let reader = Reader { calls: &mut *calls, gpu: &self.key, device: &self.device, measured: Vec::new() };
        let mut values = reader.read()?;
        self.links.versions(calls, &self.key, &self.device, &mut values)?;
        let read = || self.seldom_fields.read(&self.device);
        if let Some((answers, gone)) = calls.ask(&self.key, FIELD_VALUES, 1, read)? {
            if gone {
                self.links.suspect();
            }
            for (spec, scope, number) in answers {
                if let Some(value) = possible(calls, spec, number) {
                    values.extend(measured(spec, scope, value));
                }
            }
        }
        let first = self.seldom.is_empty();
        self.seldom = Arc::new(values);
        let took = begin.elapsed();
        let period = options.seldom_period().max(took * 1000).min(SELDOM_MOST);
        // Spreads the GPUs over several passes.
        let spread = if first { options.seldom_period() / 10 * (self.id.index % 10) } else { Duration::ZERO };
        self.seldom_due = Instant::now() + period + spread;
        Ok(())
    }

    fn read_ecc(&mut self, calls: &mut Calls) -> Result<(), Gone> {
        if self.ecc_read.is_some_and(|read| read.elapsed() < ECC_PERIOD) {
            return Ok(());
        }
        let mut counts = Vec::new();
        for (kind_number, (error, kind)) in (0..).zip(ECC_KINDS) {
            for (place_number, (place, location)) in (0..).zip(ECC_LOCATIONS) {
                let argument = kind_number << 8 | place_number;
                let ask = || self.device.memory_error_counter(error, EccCounter::Aggregate, place);
                const CALL: &str = "nvmlDeviceGetMemoryErrorCounter";
                let count = calls.ask_sane(&self.key, CALL, argument, &(0..=COUNT), ask)?;
                counts.extend(count.map(|count| EccCount { kind, location, count }));
            }
        }
        self.ecc = Arc::new(counts);
        self.ecc_read = Some(Instant::now());
        Ok(())
    }
}

fn identify(calls: &mut Calls, device: &Device<'_>) -> Result<Identity, Gone> {
    let uuid = calls.timed("nvmlDeviceGetUUID", || device.uuid()).map_err(|error| Gone::Gpu(error.to_string()))?;
    let key: Arc<str> = uuid.as_str().into();
    let pci = calls.ask(&key, "nvmlDeviceGetPciInfo_v3", 0, || device.pci_info())?;
    Ok(Identity {
        index: calls.ask(&key, "nvmlDeviceGetIndex", 0, || device.index())?.unwrap_or_default(),
        name: calls.ask(&key, "nvmlDeviceGetName", 0, || device.name())?.unwrap_or_default(),
        serial: calls.ask(&key, "nvmlDeviceGetSerial", 0, || device.serial())?.unwrap_or_default(),
        vbios: calls.ask(&key, "nvmlDeviceGetVbiosVersion", 0, || device.vbios_version())?.unwrap_or_default(),
        pci: pci.map(|pci| crate::gpu::pci::address(pci.domain, pci.bus, pci.device)).unwrap_or_default(),
        uuid,
    })
}

/// Clock event reasons with all bits: the wrapper drops unknown ones.
fn throttle(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Option<u64>, Gone> {
    let lib = device.nvml().lib();
    let new = || get(device, lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref());
    if let Some(reasons) = calls.ask(key, "nvmlDeviceGetCurrentClocksEventReasons", 0, new)? {
        return Ok(Some(reasons));
    }
    let old = || get(device, lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref());
    calls.ask(key, "nvmlDeviceGetCurrentClocksThrottleReasons", 0, old)
}

/// The GPU's temperature: with the call of CUDA 13, or with the one that it deprecates.
fn temperature(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Option<i32>, Gone> {
    let asked = || {
        let place =
            nvmlTemperature_t { version: version::<nvmlTemperature_t>(1), sensorType: GPU_SENSOR, temperature: 0 };
        let answer = get_from(device, device.nvml().lib().nvmlDeviceGetTemperatureV.as_ref(), place)?;
        Ok::<_, NvmlError>(answer.temperature)
    };
    const NEW: &str = "nvmlDeviceGetTemperatureV";
    if let Some(degrees) = calls.ask(key, NEW, 0, asked)? {
        return Ok(calls.sane(NEW, "", Some(degrees), &CELSIUS));
    }
    let old = || device.temperature(TemperatureSensor::Gpu).map(|degrees| i32::try_from(degrees).unwrap_or(i32::MAX));
    calls.ask_sane(key, "nvmlDeviceGetTemperature", 0, &CELSIUS, old)
}

/// Degrees until slowdown, which the wrapper does not support.
fn margin(device: &Device<'_>) -> Result<i32, NvmlError> {
    let place = nvmlMarginTemperature_t { version: version::<nvmlMarginTemperature_t>(1), marginTemperature: 0 };
    let answer = get_from(device, device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref(), place)?;
    Ok(answer.marginTemperature)
}
