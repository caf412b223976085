//! GPM: rates between two samples, on Hopper and newer.

use std::ffi::c_uint;
use std::ptr;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t,
    nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH as VERSION_MISMATCH,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
};

use crate::put;
use crate::state::{read, with};

/// What a sample handle points to: the GPU it was taken from, 0 before it was taken. Leaks and double frees of the agent
/// are real ones here.
struct Sample {
    device: usize,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, out: *mut nvmlGpmSupport_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller: null, or valid with the version set.
    let Some(version) = (unsafe { out.as_ref() }).map(|out| out.version) else { return INVALID_ARGUMENT };
    if version != 1 {
        return VERSION_MISMATCH;
    }
    let answer = read("nvmlGpmQueryDeviceSupport", device, |target| {
        Some(nvmlGpmSupport_t { version, isSupportedDevice: c_uint::from(!target.gpu.gpm.is_empty()) })
    });
    // SAFETY: as above.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, Ok(Box::into_raw(Box::new(Sample { device: 0 })).cast())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: NVML's contract with its caller: a sample of `nvmlGpmSampleAlloc` that was not freed yet.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    let answer = read("nvmlGpmSampleGet", device, |target| {
        (!target.gpu.gpm.is_empty()).then_some(Sample { device: target.index + 1 })
    });
    // SAFETY: NVML's contract with its caller: an allocated sample.
    unsafe { put(sample.cast(), answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMigSampleGet(device: nvmlDevice_t, _gi: c_uint, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { nvmlGpmSampleGet(device, sample) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    let Some(request) = (unsafe { request.as_mut() }) else { return INVALID_ARGUMENT };
    if request.version != 1 {
        return VERSION_MISMATCH;
    }
    let taken = |sample: nvmlGpmSample_t| {
        // SAFETY: NVML's contract with its caller: null or an allocated sample.
        unsafe { sample.cast::<Sample>().as_ref() }.map_or(0, |sample| sample.device)
    };
    let device = taken(request.sample1);
    if device == 0 || device != taken(request.sample2) {
        return INVALID_ARGUMENT;
    }
    with(|state| {
        let Some(gpu) = state.scenario.gpus.get(device - 1) else { return INVALID_ARGUMENT };
        for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
            metric.nvmlReturn = match gpu.gpm.get(&metric.metricId) {
                Some(&value) => {
                    metric.value = value;
                    SUCCESS
                }
                None => NOT_SUPPORTED,
            };
            metric.metricInfo.shortName = ptr::null_mut();
            metric.metricInfo.longName = ptr::null_mut();
            metric.metricInfo.unit = ptr::null_mut();
        }
        SUCCESS
    })
}
