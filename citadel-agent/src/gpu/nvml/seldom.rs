//! Slowly changing values: limits, host link, health, modes, vGPUs.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use nvml_wrapper::enum_wrappers::vgpu::VmId;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlConfComputeSystemState_t, nvmlEccSramErrorStatus_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlGpuFabricInfoV_t, nvmlRepairStatus_t, nvmlRowRemapperHistogramValues_t,
};

use super::calls::{Calls, Gone};
use super::limits::{CELSIUS, COUNT, MEGAHERTZ, MEMORY, PCIE_GENERATION, PCIE_LANES};
use super::raw::{get, get_from, version};
use super::unbound;
use crate::gpu::sample::{Labels, Measured, Number};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::gpu as catalogue;

/// The clocks of a GPU, and the values of the label `clock`.
pub(super) const CLOCKS: [(Clock, &str); 4] =
    [(Clock::Graphics, "graphics"), (Clock::SM, "sm"), (Clock::Memory, "memory"), (Clock::Video, "video")];

const MEGA: u64 = 1_000_000;

/// A call that returns one number: its name, the metric, the possible values, the call.
type Ask<'a> = (&'static str, &'static Desc, RangeInclusive<u32>, &'a dyn Fn() -> Result<u32, NvmlError>);

/// Maximum number of vGPUs listed per GPU; profiles allow 48.
const MOST_GUESTS: usize = 64;

/// Reads one GPU.
pub(super) struct Reader<'a, 'n> {
    pub(super) calls: &'a mut Calls,
    pub(super) gpu: &'a Arc<str>,
    pub(super) device: &'a Device<'n>,
    pub(super) measured: Vec<Measured>,
}

impl Reader<'_, '_> {
    /// Reads everything.
    pub(super) fn read(mut self) -> Result<Vec<Measured>, Gone> {
        self.clocks()?;
        self.thresholds()?;
        self.pcie()?;
        self.memory_health()?;
        self.fabric()?;
        self.modes()?;
        self.guests()?;
        Ok(self.measured)
    }

    fn add(&mut self, desc: &'static Desc, labels: Labels, value: u64) {
        self.measured.push(Measured { desc, labels, value: Number::Integer(value) });
    }

    /// Adds a count or flag, rejected above `most`.
    fn add_sane(&mut self, call: &'static str, desc: &'static Desc, label: &'static str, value: u64, most: u64) {
        if let Some(value) = self.calls.sane(call, label, Some(value), &(0..=most)) {
            let labels = if label.is_empty() { Labels::None } else { Labels::One(label) };
            self.add(desc, labels, value);
        }
    }

    /// Adds one series per word, 1 for the current one.
    fn add_one_of(&mut self, desc: &'static Desc, words: &[(u32, &'static str)], number: u32) {
        for &(own, word) in words {
            self.add(desc, Labels::One(word), u64::from(own == number));
        }
    }

    /// Clocks in megahertz.
    fn clocks(&mut self) -> Result<(), Gone> {
        let device = self.device;
        for (number, (clock, name)) in (0..).zip(CLOCKS) {
            let ask = || device.max_clock_info(clock);
            let most = self.calls.ask_sane(self.gpu, "nvmlDeviceGetMaxClockInfo", number, &MEGAHERTZ, ask)?;
            if let Some(most) = most {
                self.add(&catalogue::CLOCK_MAX, Labels::One(name), u64::from(most) * MEGA);
            }
        }
        Ok(())
    }

    /// Thresholds in degrees Celsius, for GPUs before Ada; newer ones report distances to the limit.
    fn thresholds(&mut self) -> Result<(), Gone> {
        const THRESHOLDS: [(TemperatureThreshold, &str); 4] = [
            (TemperatureThreshold::Shutdown, "shutdown"),
            (TemperatureThreshold::Slowdown, "slowdown"),
            (TemperatureThreshold::MemoryMax, "memory"),
            (TemperatureThreshold::GpuMax, "gpu"),
        ];
        let device = self.device;
        for (number, (threshold, name)) in (0..).zip(THRESHOLDS) {
            let ask =
                || device.temperature_threshold(threshold).map(|degrees| i32::try_from(degrees).unwrap_or(i32::MAX));
            let degrees = self.calls.ask_sane(self.gpu, "nvmlDeviceGetTemperatureThreshold", number, &CELSIUS, ask)?;
            if let Some(degrees) = degrees {
                let value = Number::Float(degrees.into());
                self.measured.push(Measured { desc: &catalogue::TEMPERATURE_LIMIT, labels: Labels::One(name), value });
            }
        }
        Ok(())
    }

    /// The current host link, and the maximum that GPU and host support.
    fn pcie(&mut self) -> Result<(), Gone> {
        let (device, gpu) = (self.device, self.gpu);
        let asks: [Ask<'_>; 4] = [
            ("nvmlDeviceGetCurrPcieLinkGeneration", &catalogue::PCIE_GENERATION, PCIE_GENERATION, &|| {
                device.current_pcie_link_gen()
            }),
            ("nvmlDeviceGetMaxPcieLinkGeneration", &catalogue::PCIE_GENERATION_MAX, PCIE_GENERATION, &|| {
                device.max_pcie_link_gen()
            }),
            ("nvmlDeviceGetCurrPcieLinkWidth", &catalogue::PCIE_WIDTH, PCIE_LANES, &|| {
                device.current_pcie_link_width()
            }),
            ("nvmlDeviceGetMaxPcieLinkWidth", &catalogue::PCIE_WIDTH_MAX, PCIE_LANES, &|| device.max_pcie_link_width()),
        ];
        for (call, desc, possible, ask) in asks {
            if let Some(value) = self.calls.ask_sane(gpu, call, 0, &possible, ask)? {
                self.add(desc, Labels::None, value.into());
            }
        }
        Ok(())
    }

    fn memory_health(&mut self) -> Result<(), Gone> {
        let (device, gpu) = (self.device, self.gpu);
        let lib = device.nvml().lib();

        const HISTOGRAM: &str = "nvmlDeviceGetRowRemapperHistogram";
        let zeros = nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
        let ask = || get_from(device, lib.nvmlDeviceGetRowRemapperHistogram.as_ref(), zeros);
        if let Some(banks) = self.calls.ask(gpu, HISTOGRAM, 0, ask)? {
            let banks = [
                ("max", banks.max),
                ("high", banks.high),
                ("partial", banks.partial),
                ("low", banks.low),
                ("none", banks.none),
            ];
            for (availability, count) in banks {
                self.add_sane(HISTOGRAM, &catalogue::REMAP_BANKS, availability, count.into(), 1 << 24);
            }
        }

        const SRAM: &str = "nvmlDeviceGetSramEccErrorStatus";
        if let Some(status) =
            self.calls.ask(gpu, SRAM, 0, || sram(device, lib.nvmlDeviceGetSramEccErrorStatus.as_ref()))?
        {
            let kinds = [
                ("uncorrected_parity", status.aggregateUncParity),
                ("uncorrected_sec_ded", status.aggregateUncSecDed),
                ("corrected", status.aggregateCor),
            ];
            for (kind, count) in kinds {
                self.add_sane(SRAM, &catalogue::SRAM_ERRORS, kind, count, COUNT);
            }
            let units = [
                ("l2", status.aggregateUncBucketL2),
                ("sm", status.aggregateUncBucketSm),
                ("pcie", status.aggregateUncBucketPcie),
                ("microcontroller", status.aggregateUncBucketMcu),
                ("other", status.aggregateUncBucketOther),
            ];
            for (unit, count) in units {
                self.add_sane(SRAM, &catalogue::SRAM_UNCORRECTED, unit, count, COUNT);
            }
            self.add_sane(SRAM, &catalogue::SRAM_THRESHOLD, "", status.bThresholdExceeded.into(), 1);
        }

        const REPAIR: &str = "nvmlDeviceGetRepairStatus";
        let zeros = nvmlRepairStatus_t {
            version: version::<nvmlRepairStatus_t>(1),
            bChannelRepairPending: 0,
            bTpcRepairPending: 0,
        };
        let ask = || get_from(device, lib.nvmlDeviceGetRepairStatus.as_ref(), zeros);
        if let Some(status) = self.calls.ask(gpu, REPAIR, 0, ask)? {
            self.add_sane(REPAIR, &catalogue::REPAIR_PENDING, "channel", status.bChannelRepairPending.into(), 1);
            self.add_sane(REPAIR, &catalogue::REPAIR_PENDING, "tpc", status.bTpcRepairPending.into(), 1);
        }

        if let Some(flag) = self.calls.ask(gpu, unbound::UNREPAIRABLE, 0, || unbound::unrepairable(device))? {
            self.add_sane(unbound::UNREPAIRABLE, &catalogue::UNREPAIRABLE, "", flag.into(), 1);
        }
        Ok(())
    }

    /// NVSwitch fabric: whether the GPU is registered, and the health of its part.
    fn fabric(&mut self) -> Result<(), Gone> {
        let (device, gpu) = (self.device, self.gpu);
        let ask = || fabric(device);
        let Some(info) = self.calls.ask(gpu, "nvmlDeviceGetGpuFabricInfoV", 0, ask)? else { return Ok(()) };
        const STATES: [(u32, &str); 3] = [(1, "not_started"), (2, "in_progress"), (3, "completed")];
        // 0: no fabric is supported.
        if info.state == 0 {
            return Ok(());
        }
        self.add_one_of(&catalogue::FABRIC_STATE, &STATES, info.state.into());
        if info.state == 3 {
            // "Must be checked only if Probe state returns complete".
            self.add(&catalogue::FABRIC_REGISTERED, Labels::None, u64::from(info.status == 0));
        }
        const HEALTH: [(u32, &str); 3] = [(1, "healthy"), (2, "unhealthy"), (3, "limited_capacity")];
        if info.healthSummary != 0 {
            self.add_one_of(&catalogue::FABRIC_HEALTH, &HEALTH, info.healthSummary.into());
        }
        // Two bits each: 0 not supported, 1 true, 2 false.
        const PROBLEMS: [(u32, &str); 4] =
            [(0, "degraded_bandwidth"), (2, "route_recovery"), (4, "route_unhealthy"), (6, "access_timeout_recovery")];
        for (shift, problem) in PROBLEMS {
            match info.healthMask >> shift & 0x3 {
                1 => self.add(&catalogue::FABRIC_PROBLEM, Labels::One(problem), 1),
                2 => self.add(&catalogue::FABRIC_PROBLEM, Labels::One(problem), 0),
                _ => {}
            }
        }
        // Four bits: 0 not supported, 1 none, else which.
        let configuration = info.healthMask >> 8 & 0xf;
        if configuration > 0 {
            let wrong = u64::from(configuration > 1);
            self.add(&catalogue::FABRIC_PROBLEM, Labels::One("incorrect_configuration"), wrong);
        }
        Ok(())
    }

    /// Modes, by name.
    fn modes(&mut self) -> Result<(), Gone> {
        let (device, gpu) = (self.device, self.gpu);
        let lib = device.nvml().lib();
        let named = |names: &[&str], number: Option<u32>| {
            let number = number.map(|number| (names.get(number as usize).copied(), number));
            // A value newer than this table is exported as its number.
            number.map_or_else(String::new, |(name, number)| name.map_or_else(|| number.to_string(), str::to_owned))
        };
        let ask = || get(device, lib.nvmlDeviceGetVirtualizationMode.as_ref());
        let virtualization = self.calls.ask(gpu, "nvmlDeviceGetVirtualizationMode", 0, ask)?;
        let ask = || get(device, lib.nvmlDeviceGetComputeMode.as_ref());
        let compute = self.calls.ask(gpu, "nvmlDeviceGetComputeMode", 0, ask)?;
        let ask = || get(device, lib.nvmlDeviceGetPersistenceMode.as_ref());
        let persistence = self.calls.ask(gpu, "nvmlDeviceGetPersistenceMode", 0, ask)?;
        let ecc = self.calls.ask(gpu, "nvmlDeviceGetEccMode", 0, || device.is_ecc_enabled())?;
        let confidential = self.calls.ask(gpu, "nvmlSystemGetConfComputeState", 0, || confidential(device))?;
        if virtualization.is_none() && compute.is_none() && persistence.is_none() && ecc.is_none() {
            return Ok(());
        }
        let on = ["off", "on"];
        let texts = vec![
            named(&["none", "passthrough", "vgpu", "host_vgpu", "host_vsga"], virtualization),
            named(&on, confidential),
            named(&on, ecc.as_ref().map(|state| u32::from(state.currently_enabled))),
            named(&on, ecc.as_ref().map(|state| u32::from(state.pending_enabled))),
            named(&on, persistence),
            named(&["default", "exclusive_thread", "prohibited", "exclusive_process"], compute),
        ];
        let value = Number::Integer(1);
        self.measured.push(Measured { desc: &catalogue::MODES, labels: Labels::Texts(texts), value });
        Ok(())
    }
}

impl Reader<'_, '_> {
    /// The virtual machines that use a part of the GPU.
    fn guests(&mut self) -> Result<(), Gone> {
        let (device, gpu) = (self.device, self.gpu);
        let guests = self.calls.ask(gpu, "nvmlDeviceGetActiveVgpus", 0, || device.active_vgpus())?;
        for guest in guests.into_iter().flatten().take(MOST_GUESTS) {
            let calls = &*self.calls;
            let Ok(uuid) = calls.timed("nvmlVgpuInstanceGetUUID", || guest.uuid()) else { continue };
            let vm = match calls.timed("nvmlVgpuInstanceGetVmID", || guest.vm_id()) {
                Ok(VmId::Domain(vm) | VmId::Uuid(vm)) => vm,
                Err(_) => String::new(),
            };
            let profile = calls.timed("nvmlVgpuInstanceGetType", || guest.instance_type());
            let profile = profile.and_then(|kind| calls.timed("nvmlVgpuTypeGetName", || kind.name()));
            let texts = vec![uuid.clone(), vm, profile.unwrap_or_default()];
            let value = Number::Integer(1);
            let info = Measured { desc: &catalogue::VGPU_INFO, labels: Labels::Texts(texts), value };
            const USAGE: &str = "nvmlVgpuInstanceGetFbUsage";
            let used = calls.timed(USAGE, || guest.fb_usage()).ok();
            self.measured.push(info);
            if let Some(bytes) = self.calls.sane(USAGE, "", used, &MEMORY) {
                self.add(&catalogue::VGPU_MEMORY, Labels::Texts(vec![uuid]), bytes);
            }
        }
        Ok(())
    }
}

type SramFunction = super::raw::Get<nvmlEccSramErrorStatus_t>;

fn sram<E: Display>(
    device: &Device<'_>,
    function: Result<&SramFunction, E>,
) -> Result<nvmlEccSramErrorStatus_t, NvmlError> {
    // SAFETY: consists of numbers, for which all zeros is a valid value.
    let mut status: nvmlEccSramErrorStatus_t = unsafe { std::mem::zeroed() };
    status.version = version::<nvmlEccSramErrorStatus_t>(1);
    get_from(device, function, status)
}

/// Uses the newest version of the structure that the driver supports; the third has the summary.
fn fabric(device: &Device<'_>) -> Result<nvmlGpuFabricInfoV_t, NvmlError> {
    let ask = |version| {
        // SAFETY: consists of numbers, for which all zeros is a valid value.
        let mut info: nvmlGpuFabricInfoV_t = unsafe { std::mem::zeroed() };
        info.version = version;
        get_from(device, device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref(), info)
    };
    match ask(version::<nvmlGpuFabricInfo_v3_t>(3)) {
        // The second version is a prefix of the third.
        Err(NvmlError::UnexpectedVariant(_) | NvmlError::InvalidArg) => ask(version::<nvmlGpuFabricInfo_v2_t>(2)),
        answer => answer,
    }
}

/// Whether confidential computing is enabled: a property of the host, so the same for all its GPUs.
fn confidential(device: &Device<'_>) -> Result<u32, NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlSystemGetConfComputeState.as_ref())?;
    let mut state = nvmlConfComputeSystemState_t { environment: 0, ccFeature: 0, devToolsMode: 0 };
    // SAFETY: the library is loaded, and the pointer to the result is valid.
    nvml_try(unsafe { get(&raw mut state) })?;
    Ok(state.ccFeature)
}
