//! What one GPU, or one MIG device of it, says about itself.

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlClockType_t, nvmlDevice_t, nvmlEccCounterType_t, nvmlGridLicensableFeatures_t,
    nvmlGridLicenseFeatureCode_t_NVML_GRID_LICENSE_FEATURE_CODE_VGPU as VGPU, nvmlMarginTemperature_t, nvmlMemory_t,
    nvmlMemory_v2_t, nvmlMemoryErrorType_t, nvmlMemoryLocation_t, nvmlPciInfo_t, nvmlPcieUtilCounter_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT, nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlTemperatureSensors_t, nvmlUtilization_t,
};

use crate::scenario::Memory;
use crate::state::{handle, on_gpu, read};
use crate::{put, put_text};

/// Exports functions that answer one value.
macro_rules! values {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $out:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvmlDevice_t, $($argument: $kind,)* out: *mut $out) -> nvmlReturn_t {
            // Binds the arguments to the expression.
            let answer = read(stringify!($name), device, $read);
            // SAFETY: NVML's contract with its caller.
            unsafe { put(out, answer) }
        }
    )*};
}

/// Exports functions that answer a text.
macro_rules! texts {
    ($($name:ident = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut c_char, length: c_uint) -> nvmlReturn_t {
            // SAFETY: NVML's contract with its caller.
            unsafe { put_text(out, length, read(stringify!($name), device, $read)) }
        }
    )*};
}

texts! {
    nvmlDeviceGetName = |target| Some(target.mig.map_or(&target.gpu.name, |mig| &mig.name).clone());
    nvmlDeviceGetUUID = |target| Some(target.mig.map_or(&target.gpu.uuid, |mig| &mig.uuid).clone());
    nvmlDeviceGetSerial = |target| target.gpu.serial.clone();
    nvmlDeviceGetVbiosVersion = |target| target.gpu.vbios.clone();
}

values! {
    nvmlDeviceGetIndex() -> c_uint = |target| Some(target.index as c_uint);
    nvmlDeviceGetPowerUsage() -> c_uint = |target| Some(target.gpu.power?[0]);
    nvmlDeviceGetEnforcedPowerLimit() -> c_uint = |target| Some(target.gpu.power?[1]);
    nvmlDeviceGetNumFans() -> c_uint = |target| Some(target.gpu.fans.len() as c_uint);
    nvmlDeviceGetFanSpeed_v2(fan: c_uint) -> c_uint = |target| target.gpu.fans.get(fan as usize).copied();
    nvmlDeviceGetClockInfo(clock: nvmlClockType_t) -> c_uint
        = |target| target.gpu.clocks?.get(clock as usize).copied();
    nvmlDeviceGetTemperature(sensor: nvmlTemperatureSensors_t) -> c_uint
        = |target| target.gpu.temperature.filter(|_| sensor == 0).map(|degrees| degrees as c_uint);
    nvmlDeviceGetCurrentClocksEventReasons() -> c_ulonglong = |target| target.gpu.reasons;
    nvmlDeviceGetCurrentClocksThrottleReasons() -> c_ulonglong = |target| target.gpu.reasons;
    nvmlDeviceGetSupportedEventTypes() -> c_ulonglong = |target| Some(target.gpu.event_types);
    nvmlDeviceGetMaxClockInfo(clock: nvmlClockType_t) -> c_uint
        = |target| target.gpu.clocks_max?.get(clock as usize).copied();
    nvmlDeviceGetTemperatureThreshold(threshold: c_uint) -> c_uint
        = |target| target.gpu.thresholds.get(&threshold).copied();
    nvmlDeviceGetPerformanceState() -> c_uint = |target| target.gpu.performance_state;
    nvmlDeviceGetCurrPcieLinkGeneration() -> c_uint = |target| Some(target.gpu.pcie_link?[0]);
    nvmlDeviceGetMaxPcieLinkGeneration() -> c_uint = |target| Some(target.gpu.pcie_link?[1]);
    nvmlDeviceGetCurrPcieLinkWidth() -> c_uint = |target| Some(target.gpu.pcie_link?[2]);
    nvmlDeviceGetMaxPcieLinkWidth() -> c_uint = |target| Some(target.gpu.pcie_link?[3]);
    nvmlDeviceGetUnrepairableMemoryFlag_v1() -> c_uint = |target| target.gpu.unrepairable;
    nvmlDeviceGetVirtualizationMode() -> c_uint = |target| Some(target.gpu.modes?[0]);
    nvmlDeviceGetComputeMode() -> c_uint = |target| Some(target.gpu.modes?[1]);
    nvmlDeviceGetPersistenceMode() -> c_uint = |target| Some(target.gpu.modes?[2]);
    nvmlDeviceGetNumaNodeId() -> c_uint = |target| target.gpu.numa_node;
    nvmlDeviceGetMaxMigDeviceCount() -> c_uint
        = |target| (!target.gpu.mig.is_empty()).then_some(target.gpu.mig.len() as c_uint);
    nvmlDeviceGetGpuInstanceId() -> c_uint = |target| Some(target.mig?.gi);
    nvmlDeviceGetComputeInstanceId() -> c_uint = |target| Some(target.mig?.ci);
    nvmlDeviceGetMemoryErrorCounter(
        kind: nvmlMemoryErrorType_t, counter: nvmlEccCounterType_t, location: nvmlMemoryLocation_t
    ) -> c_ulonglong = |target| target.gpu.ecc.get(&format!("{kind}:{location}")).copied().filter(|_| counter == 1);
    // Not on a GPU in MIG mode: the header's own words.
    nvmlDeviceGetUtilizationRates() -> nvmlUtilization_t = |target| {
        let [gpu, memory] = target.gpu.utilization.filter(|_| target.gpu.mig.is_empty())?;
        Some(nvmlUtilization_t { gpu, memory })
    };
    nvmlDeviceGetMemoryInfo() -> nvmlMemory_t = |target| {
        let Memory { total, reserved, used } = target.mig.map(|mig| mig.memory).or(target.gpu.memory)?;
        // The first version counts what is reserved as used.
        Some(nvmlMemory_t { total, used: used.saturating_add(reserved), free: total.saturating_sub(used.saturating_add(reserved)) })
    };
    nvmlDeviceGetGridLicensableFeatures_v4() -> nvmlGridLicensableFeatures_t = |target| {
        // SAFETY: plain numbers and texts, for which all zeros is a value.
        let mut features: nvmlGridLicensableFeatures_t = unsafe { std::mem::zeroed() };
        features.isGridLicenseSupported = 1;
        features.licensableFeaturesCount = 1;
        features.gridLicensableFeatures[0].featureCode = VGPU;
        features.gridLicensableFeatures[0].featureState = c_uint::from(target.gpu.licensed?);
        Some(features)
    };
    nvmlDeviceGetPciInfo_v3() -> nvmlPciInfo_t = |target| {
        // SAFETY: plain numbers, for which all zeros is a value.
        let mut info: nvmlPciInfo_t = unsafe { std::mem::zeroed() };
        let (domain, rest) = target.gpu.pci.split_once(':')?;
        info.domain = c_uint::from_str_radix(domain, 16).ok()?;
        info.bus = c_uint::from_str_radix(rest.get(..2)?, 16).ok()?;
        info.device = c_uint::from_str_radix(rest.get(3..5)?, 16).ok()?;
        let spelled = format!("{:08X}:{}", info.domain, rest.to_uppercase());
        for (place, byte) in info.busId.iter_mut().zip(spelled.bytes()) {
            *place = byte.cast_signed();
        }
        Some(info)
    };
    nvmlDeviceGetPcieThroughput(counter: nvmlPcieUtilCounter_t) -> c_uint = |target| {
        let value = target.gpu.pcie_throughput?.get(counter as usize).copied();
        std::thread::sleep(std::time::Duration::from_millis(20));
        value
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, out: *mut c_ulonglong) -> nvmlReturn_t {
    const NAME: &str = "nvmlDeviceGetTotalEnergyConsumption";
    let answer = on_gpu(NAME, device, |state, gpu| {
        let energy = state.scenario.gpus[gpu].energy.ok_or(NOT_SUPPORTED)?;
        Ok(state.growing(gpu, NAME, 0, 0, energy))
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller: null, or valid with the version set.
    let Some(version) = (unsafe { out.as_ref() }).map(|out| out.version) else { return INVALID_ARGUMENT };
    let answer =
        on_gpu("nvmlDeviceGetMemoryInfo_v2", device, |_, _| match version == struct_version::<nvmlMemory_v2_t>(2) {
            true => Ok(()),
            false => Err(VERSION_MISMATCH),
        });
    let answer = answer.and_then(|()| {
        read("nvmlDeviceGetMemoryInfo_v2", device, |target| {
            let Memory { total, reserved, used } = target.mig.map(|mig| mig.memory).or(target.gpu.memory)?;
            Some(nvmlMemory_v2_t {
                version,
                total,
                reserved,
                free: total.saturating_sub(used.saturating_add(reserved)),
                used,
            })
        })
    });
    // SAFETY: as above.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMarginTemperature(
    device: nvmlDevice_t,
    out: *mut nvmlMarginTemperature_t,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller: null, or valid with the version set.
    let Some(version) = (unsafe { out.as_ref() }).map(|out| out.version) else { return INVALID_ARGUMENT };
    if version != struct_version::<nvmlMarginTemperature_t>(1) {
        return VERSION_MISMATCH;
    }
    let answer = read("nvmlDeviceGetMarginTemperature", device, |target| {
        Some(nvmlMarginTemperature_t { version, marginTemperature: target.gpu.margin? })
    });
    // SAFETY: as above.
    unsafe { put(out, answer) }
}

/// `NVML_STRUCT_VERSION` of the header.
pub(crate) fn struct_version<T>(version: usize) -> c_uint {
    (size_of::<T>() | version << 24) as c_uint
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: nvmlDevice_t,
    out: *mut c_uint,
    period: *mut c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { codec("nvmlDeviceGetEncoderUtilization", 0, device, out, period) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: nvmlDevice_t,
    out: *mut c_uint,
    period: *mut c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { codec("nvmlDeviceGetDecoderUtilization", 1, device, out, period) }
}

/// # Safety
/// `out` and `period` are null or valid.
unsafe fn codec(
    name: &'static str,
    which: usize,
    device: nvmlDevice_t,
    out: *mut c_uint,
    period: *mut c_uint,
) -> nvmlReturn_t {
    let answer = read(name, device, |target| Some(target.gpu.codecs?[which]));
    // SAFETY: the caller's promise.
    match unsafe { put(out, answer) } {
        // SAFETY: likewise.
        SUCCESS => unsafe { put(period, Ok(167_000)) },
        code => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    let answer = read("nvmlDeviceGetMigMode", device, |target| Some(c_uint::from(!target.gpu.mig.is_empty())));
    // SAFETY: NVML's contract with its caller.
    match unsafe { put(current, answer) } {
        // SAFETY: likewise.
        SUCCESS => unsafe { put(pending, answer) },
        code => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceGetMigDeviceHandleByIndex", device, |state, gpu| {
        match state.scenario.gpus[gpu].mig.get(index as usize) {
            Some(_) => Ok(handle(gpu, Some(index as usize))),
            None => Err(NOT_FOUND),
        }
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}
