//! One GPU: what it is, asked once, and what it says, asked at each pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, MemoryLocation, PcieUtilCounter, TemperatureSensor,
};
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{nvmlMarginTemperature_t, nvmlMemory_t};

use super::calls::{Calls, Gone};
use super::fields::{Batch, Field, Unwrapped};
use super::gpm::Meter;
use super::mig::Instances;
use super::{Options, compat, processes};
use crate::gpu::sample::{EccCount, Identity, Link, Memory, Reading};

/// Most links that NVML knows (`NVML_NVLINK_MAX_LINKS`).
const MAX_LINKS: u32 = 18;

/// ECC counters move once in months, and are 16 calls: they are read this often, and after each event that tells of one.
const ECC_PERIOD: Duration = Duration::from_secs(30);

const CLOCKS: [(Clock, &str); 4] =
    [(Clock::Graphics, "graphics"), (Clock::SM, "sm"), (Clock::Memory, "memory"), (Clock::Video, "video")];

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

/// A GPU that can be asked.
pub(super) struct Board<'n> {
    pub(super) id: Arc<Identity>,
    /// The UUID again, as the key of what it does not have.
    key: Arc<str>,
    device: Device<'n>,
    fans: u32,
    fields: Batch,
    gpm: Option<Meter<'n>>,
    instances: Instances<'n>,
    /// Time of the newest utilization sample.
    utilization_seen: u64,
    ecc: Arc<Vec<EccCount>>,
    ecc_read: Option<Instant>,
    /// Bytes transmitted and received; the counts of an earlier session are put here.
    pub(super) pcie: [Unwrapped; 2],
    /// KiB over all links at the last pass.
    links_kib: Option<u64>,
    last_read: Option<Instant>,
    since_last: Option<Duration>,
}

impl<'n> Board<'n> {
    /// Asks a GPU who it is and what it has.
    pub(super) fn attach(calls: &mut Calls, device: Device<'n>, gpm: bool) -> Result<Self, Gone> {
        let identity = identify(calls, &device)?;
        let key: Arc<str> = identity.uuid.as_str().into();
        let fans = calls.ask(&key, "nvmlDeviceGetNumFans", 0, || device.num_fans())?.unwrap_or(0);
        let mut links = Vec::new();
        for link in 0..MAX_LINKS {
            let active = || device.link_wrapper_for(link).is_active();
            if calls.ask(&key, "nvmlDeviceGetNvLinkState", link, active)? == Some(true) {
                links.push(link);
            }
        }
        let gpm = gpm && calls.ask(&key, "nvmlGpmQueryDeviceSupport", 0, || device.gpm_support())? == Some(true);
        Ok(Self {
            id: Arc::new(identity),
            key,
            fans,
            fields: Batch::new(device.nvml().field_id_scheme(), &links),
            gpm: gpm.then(Meter::default),
            instances: Instances::default(),
            utilization_seen: 0,
            ecc: Arc::default(),
            ecc_read: None,
            pcie: Default::default(),
            links_kib: None,
            last_read: None,
            since_last: None,
            device,
        })
    }

    /// The wrapper's handle.
    pub(super) fn device(&self) -> &Device<'n> {
        &self.device
    }

    /// How long before the last reading the one before it was; `None`: it was the first.
    pub(super) fn since_last(&self) -> Option<Duration> {
        self.since_last
    }

    /// Has the ECC counters read at the next pass.
    pub(super) fn expect_ecc(&mut self) {
        self.ecc_read = None;
    }

    /// Asks everything that changes.
    pub(super) fn read(&mut self, calls: &mut Calls, options: &Options) -> Result<Reading, Gone> {
        let since_last = self.last_read.replace(Instant::now()).map(|last| last.elapsed());
        self.since_last = since_last;
        let (device, key) = (&self.device, &self.key);
        let utilization = calls.ask(key, "nvmlDeviceGetUtilizationRates", 0, || device.utilization_rates())?;
        let mut reading = Reading {
            memory: memory(calls, key, device)?,
            utilization: utilization.map(|rates| (rates.gpu, rates.memory)),
            power_mw: calls.ask(key, "nvmlDeviceGetPowerUsage", 0, || device.power_usage())?,
            power_limit_mw: calls.ask(key, "nvmlDeviceGetEnforcedPowerLimit", 0, || device.enforced_power_limit())?,
            throttle: throttle(calls, key, device)?,
            ..Reading::default()
        };
        const TEMPERATURE: &str = "nvmlDeviceGetTemperature";
        if let Some(degrees) = calls.ask(key, TEMPERATURE, 0, || device.temperature(TemperatureSensor::Gpu))? {
            reading.temperatures.push(("gpu", degrees.into()));
        }
        if let Some(degrees) = calls.ask(key, "nvmlDeviceGetMarginTemperature", 0, || margin(device))? {
            reading.temperatures.push(("margin", degrees.into()));
        }
        for (number, (clock, name)) in (0..).zip(CLOCKS) {
            let megahertz = calls.ask(key, "nvmlDeviceGetClockInfo", number, || device.clock_info(clock))?;
            reading.clocks.extend(megahertz.map(|megahertz| (name, megahertz)));
        }
        for fan in 0..self.fans {
            reading.fans.push(calls.ask(key, "nvmlDeviceGetFanSpeed_v2", fan, || device.fan_speed(fan))?);
        }
        if options.compat {
            reading.compat = compat::read(calls, key, device)?;
        }
        self.read_fields(calls, &mut reading)?;
        let kib = reading.links.iter().flat_map(|link| &link.kib).map(|(_, kib)| kib).sum::<u64>();
        let before = self.links_kib.replace(kib).filter(|_| !reading.links.is_empty());
        reading.links_kib_per_second = (before.zip(since_last))
            .map(|(before, since_last)| kib.saturating_sub(before) as f64 / since_last.as_secs_f64());
        if let Some(rates) = self.gpm.as_mut().and_then(|meter| meter.read(calls, &self.device, None)) {
            reading.gpm = rates.gpm;
        }
        self.estimate_pcie(calls, &mut reading, options, since_last)?;
        self.read_ecc(calls)?;
        reading.ecc = Arc::clone(&self.ecc);
        reading.mig = self.instances.read(calls, &self.key, &self.device, self.gpm.is_some())?;
        reading.processes = processes::read(calls, &self.key, &self.device, &mut self.utilization_seen)?;
        // Last, next to the processes' time on the SMs, by which it is split.
        const ENERGY: &str = "nvmlDeviceGetTotalEnergyConsumption";
        reading.energy_mj = calls.ask(&self.key, ENERGY, 0, || self.device.total_energy_consumption())?;
        Ok(reading)
    }

    fn read_fields(&mut self, calls: &mut Calls, reading: &mut Reading) -> Result<(), Gone> {
        if self.fields.is_empty() {
            return Ok(());
        }
        let read = || self.fields.read(&self.device);
        let Some(values) = calls.ask(&self.key, "nvmlDeviceGetFieldValues", 0, read)? else { return Ok(()) };
        let mut pcie = [None; 2];
        for (field, number) in values {
            let value = number.value;
            match field {
                Field::MemoryTemperature => reading.temperatures.push(("memory", value.cast_signed())),
                Field::Throttled(reason) => reading.throttled.push((reason, value)),
                Field::PcieReplays => reading.pcie_replays = Some(value),
                Field::Remapped(kind) => reading.remapped.push((kind, value)),
                Field::PcieBytes(direction) => pcie[direction] = Some(self.pcie[direction].count(number)),
                Field::LinkKib(link, direction) => link_of(reading, link).kib.push((direction, value)),
                Field::LinkErrors(link, kind) => link_of(reading, link).errors.push((kind, value)),
            }
        }
        if let [Some(transmitted), Some(received)] = pcie {
            reading.pcie_bytes = Some([transmitted, received]);
        }
        Ok(())
    }

    /// PCIe bytes of GPUs that do not count them: from GPM's rates, or, if asked for, from calls that block for 20 ms.
    fn estimate_pcie(
        &mut self,
        calls: &mut Calls,
        reading: &mut Reading,
        options: &Options,
        since_last: Option<Duration>,
    ) -> Result<(), Gone> {
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
                    *rate = calls.ask(&self.key, "nvmlDeviceGetPcieThroughput", number, ask)?;
                }
                // KB are 1000 bytes here (nvml.h says KB/s where it says KiB elsewhere).
                rates[0].zip(rates[1]).map(|(sent, received)| [sent, received].map(|rate| f64::from(rate) * 1000.0))
            }
            None => None,
        };
        if let Some(rates) = rates {
            let seconds = since_last.unwrap_or_default().as_secs_f64();
            let [transmitted, received] = &mut self.pcie;
            let bytes = |rate: f64| (rate.max(0.0) * seconds) as u64;
            reading.pcie_bytes = Some([transmitted.add(bytes(rates[0])), received.add(bytes(rates[1]))]);
        }
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
                let count = calls.ask(&self.key, "nvmlDeviceGetMemoryErrorCounter", argument, ask)?;
                counts.extend(count.map(|count| EccCount { kind, location, count }));
            }
        }
        self.ecc = Arc::new(counts);
        self.ecc_read = Some(Instant::now());
        Ok(())
    }
}

fn link_of(reading: &mut Reading, link: u32) -> &mut Link {
    let at = reading.links.iter().position(|other| other.link == link);
    let at = at.unwrap_or_else(|| {
        reading.links.push(Link { link, ..Link::default() });
        reading.links.len() - 1
    });
    &mut reading.links[at]
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

/// A device's memory, MIG devices included.
pub(super) fn memory(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Option<Memory>, Gone> {
    if let Some(info) = calls.ask(key, "nvmlDeviceGetMemoryInfo_v2", 0, || device.memory_info())? {
        return Ok(Some(Memory { total: info.total, used: info.used, reserved: Some(info.reserved) }));
    }
    // Before R510: what the driver keeps is part of what is used.
    let first_version = || {
        let get = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
        let mut info = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: the handle is the wrapper's own, the library is loaded, and the place for the answer is valid.
        nvml_try(unsafe { get(device.handle(), &raw mut info) })?;
        Ok(Memory { total: info.total, used: info.used, reserved: None })
    };
    calls.ask(key, "nvmlDeviceGetMemoryInfo", 0, first_version)
}

/// Clock event reasons with all their bits: the wrapper drops those that it has no name for.
fn throttle(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Option<u64>, Gone> {
    let lib = device.nvml().lib();
    let ask = |function: Result<&unsafe extern "C" fn(_, *mut u64) -> u32, _>| {
        let get = nvml_sym(function)?;
        let mut reasons = 0;
        // SAFETY: the handle is the wrapper's own, the library is loaded, and the place for the answer is valid.
        nvml_try(unsafe { get(device.handle(), &raw mut reasons) })?;
        Ok::<_, NvmlError>(reasons)
    };
    const NEW: &str = "nvmlDeviceGetCurrentClocksEventReasons";
    const OLD: &str = "nvmlDeviceGetCurrentClocksThrottleReasons";
    match calls.ask(key, NEW, 0, || ask(lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref()))? {
        Some(reasons) => Ok(Some(reasons)),
        None => calls.ask(key, OLD, 0, || ask(lib.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())),
    }
}

/// Degrees to the slowdown, which the wrapper does not have.
fn margin(device: &Device<'_>) -> Result<i32, NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    // NVML_STRUCT_VERSION(MarginTemperature, 1) of nvml.h.
    let version = size_of::<nvmlMarginTemperature_t>() as u32 | 1 << 24;
    let mut answer = nvmlMarginTemperature_t { version, marginTemperature: 0 };
    // SAFETY: the handle is the wrapper's own, the library is loaded, and the place for the answer is valid.
    nvml_try(unsafe { get(device.handle(), &raw mut answer) })?;
    Ok(answer.marginTemperature)
}
