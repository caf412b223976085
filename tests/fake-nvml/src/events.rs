//! Event sets: Xids and ECC errors as they happen.

use std::ffi::{c_uint, c_ulonglong};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_ERROR_TIMEOUT as TIMEOUT,
    nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
};

use crate::put;
use crate::state::{handle, on_gpu, with};

/// How often a waiting call looks for an event.
const STEP: Duration = Duration::from_millis(10);

/// The one event set: what is registered is kept by GPU.
const SET: usize = 1;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, Ok(std::ptr::without_provenance_mut(SET))) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    if set.addr() != SET {
        return INVALID_ARGUMENT;
    }
    with(|state| state.registered.clear());
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceRegisterEvents", device, |state, gpu| {
        if set.addr() != SET || types & !state.scenario.gpus[gpu].event_types != 0 {
            return Err(NOT_SUPPORTED);
        }
        *state.registered.entry(gpu).or_default() |= types;
        Ok(())
    });
    answer.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    out: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    if set.addr() != SET {
        return INVALID_ARGUMENT;
    }
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        if let Some(event) = next_event() {
            // SAFETY: NVML's contract with its caller.
            return unsafe { put(out, Ok(event)) };
        }
        if Instant::now() >= deadline {
            return TIMEOUT;
        }
        thread::sleep(STEP);
    }
}

fn next_event() -> Option<nvmlEventData_t> {
    with(|state| {
        state.refresh().ok()?;
        let event = state.scenario.events.get(state.delivered)?;
        if state.registered.get(&event.gpu).copied().unwrap_or(0) & event.kind == 0 {
            return None;
        }
        state.delivered += 1;
        Some(nvmlEventData_t {
            device: handle(event.gpu, None),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        })
    })
}
