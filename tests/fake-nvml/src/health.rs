//! What a GPU says of its health, in structures with a version, and its modes.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlConfComputeSystemState_t, nvmlDevice_t, nvmlEccSramErrorStatus_t, nvmlGpuFabricInfo_v2_t,
    nvmlGpuFabricInfo_v3_t, nvmlRepairStatus_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlRowRemapperHistogramValues_t, nvmlTemperature_t,
};

use crate::device::struct_version;
use crate::put;
use crate::state::{read, with};

/// Exports functions that fill a structure whose version the caller has set.
macro_rules! versioned {
    ($($name:ident($version:literal) -> $out:ty = $fill:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvmlDevice_t, out: *mut $out) -> nvmlReturn_t {
            // SAFETY: NVML's contract with its caller: null, or valid with the version set.
            let Some(&asked) = (unsafe { out.as_ref() }) else { return INVALID_ARGUMENT };
            if asked.version != struct_version::<$out>($version) {
                return VERSION_MISMATCH;
            }
            let answer = read(stringify!($name), device, |target| $fill(asked, target.gpu));
            // SAFETY: as above.
            unsafe { put(out, answer) }
        }
    )*};
}

versioned! {
    nvmlDeviceGetTemperatureV(1) -> nvmlTemperature_t = |asked: nvmlTemperature_t, gpu: &crate::scenario::Gpu| {
        let temperature = gpu.temperature.filter(|_| asked.sensorType == 0)?;
        Some(nvmlTemperature_t { temperature, ..asked })
    };
    nvmlDeviceGetSramEccErrorStatus(1) -> nvmlEccSramErrorStatus_t
        = |asked: nvmlEccSramErrorStatus_t, gpu: &crate::scenario::Gpu| {
            let [parity, secded, corrected, l2, sm, pcie, mcu, other, exceeded] = gpu.sram?;
            Some(nvmlEccSramErrorStatus_t {
                aggregateUncParity: parity,
                aggregateUncSecDed: secded,
                aggregateCor: corrected,
                aggregateUncBucketL2: l2,
                aggregateUncBucketSm: sm,
                aggregateUncBucketPcie: pcie,
                aggregateUncBucketMcu: mcu,
                aggregateUncBucketOther: other,
                bThresholdExceeded: exceeded as c_uint,
                ..asked
            })
        };
    nvmlDeviceGetRepairStatus(1) -> nvmlRepairStatus_t = |asked: nvmlRepairStatus_t, gpu: &crate::scenario::Gpu| {
        let [channel, tpc] = gpu.repair?;
        Some(nvmlRepairStatus_t { bChannelRepairPending: channel, bTpcRepairPending: tpc, ..asked })
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRowRemapperHistogram(
    device: nvmlDevice_t,
    out: *mut nvmlRowRemapperHistogramValues_t,
) -> nvmlReturn_t {
    let answer = read("nvmlDeviceGetRowRemapperHistogram", device, |target| {
        let [max, high, partial, low, none] = target.gpu.remap_banks?;
        Some(nvmlRowRemapperHistogramValues_t { max, high, partial, low, none })
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    const NAME: &str = "nvmlDeviceGetGpuFabricInfoV";
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: NVML's contract with its caller: a structure of one of the versions, each of which begins with it.
    let version = unsafe { out.cast::<c_uint>().read() };
    let answer = read(NAME, device, |target| target.gpu.fabric);
    let Ok([state, status, mask, summary]) = answer else { return answer.err().unwrap_or(NOT_SUPPORTED) };
    if version == struct_version::<nvmlGpuFabricInfo_v2_t>(2) {
        let place = out.cast::<nvmlGpuFabricInfo_v2_t>();
        // SAFETY: the version says that it is one.
        let asked = unsafe { place.read() };
        let info = nvmlGpuFabricInfo_v2_t { state: state as u8, status, healthMask: mask, ..asked };
        // SAFETY: likewise.
        return unsafe { put(place, Ok(info)) };
    }
    // A driver that has no summary is older than the third version.
    if summary == 0 || version != struct_version::<nvmlGpuFabricInfo_v3_t>(3) {
        return VERSION_MISMATCH;
    }
    // SAFETY: the version says that it is one.
    let asked = unsafe { out.read() };
    let info =
        nvmlGpuFabricInfo_v3_t { state: state as u8, status, healthMask: mask, healthSummary: summary as u8, ..asked };
    // SAFETY: likewise.
    unsafe { put(out, Ok(info)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    let answer = read("nvmlDeviceGetEccMode", device, |target| target.gpu.modes);
    // SAFETY: NVML's contract with its caller.
    match unsafe { put(current, answer.map(|modes| modes[3])) } {
        // SAFETY: likewise.
        SUCCESS => unsafe { put(pending, answer.map(|modes| modes[4])) },
        code => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetConfComputeState(out: *mut nvmlConfComputeSystemState_t) -> nvmlReturn_t {
    let answer = with(|state| state.scenario.confidential.ok_or(NOT_SUPPORTED));
    let answer =
        answer.map(|feature| nvmlConfComputeSystemState_t { environment: 2, ccFeature: feature, devToolsMode: 0 });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}
