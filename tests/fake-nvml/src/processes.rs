//! Who holds a GPU, and how much of its SMs' time each had.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_t,
};

use crate::put_list;
use crate::scenario::Process;
use crate::state::{NvmlResult, State, on_gpu};

/// Where the driver has no answer (`NVML_VALUE_NOT_AVAILABLE`), and what it gives for an instance without MIG.
const NO_MEMORY: c_ulonglong = c_ulonglong::MAX;
const NO_INSTANCE: c_uint = c_uint::MAX;

/// Exports functions that list processes.
macro_rules! lists {
    ($($name:ident = $listed:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            device: nvmlDevice_t,
            count: *mut c_uint,
            out: *mut nvmlProcessInfo_t,
        ) -> nvmlReturn_t {
            let answer = on_gpu(stringify!($name), device, |state, gpu| {
                Ok(list(state, gpu, !out.is_null(), $listed))
            });
            // SAFETY: NVML's contract with its caller.
            unsafe { put_list(out, count, answer) }
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses_v3 = |process| !process.no_compute;
    nvmlDeviceGetComputeRunningProcesses_v2 = |process| !process.no_compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3 = |process| process.graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2 = |process| process.graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3 = |process| process.mps;
}

/// The listed processes; those that came since the caller counted them on top.
fn list(state: &mut State, gpu: usize, fetching: bool, listed: fn(&Process) -> bool) -> Vec<nvmlProcessInfo_t> {
    let State { scenario, raced, .. } = state;
    let mut processes: Vec<_> = scenario.gpus[gpu].processes.iter().filter(|process| listed(process)).collect();
    let raced = raced.entry(gpu).or_default();
    // More than the few that callers leave room for.
    let late = vec![Process { pid: 4_000_000, memory: Some(0), ..Process::default() }; 8];
    if fetching && *raced < scenario.gpus[gpu].races && !processes.is_empty() {
        *raced += 1;
        processes.extend(&late);
    }
    let info = |process: &&Process| nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory.unwrap_or(NO_MEMORY),
        gpuInstanceId: process.mig.map_or(NO_INSTANCE, |[gi, _]| gi),
        computeInstanceId: process.mig.map_or(NO_INSTANCE, |[_, ci]| ci),
    };
    processes.iter().map(info).collect()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    out: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceGetProcessUtilization", device, |state, gpu| {
        // Not on a GPU in MIG mode: the header's own words.
        if !state.scenario.gpus[gpu].mig.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        samples(state, gpu, last_seen)
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put_list(out, count, answer) }
}

fn samples(state: &State, gpu: usize, last_seen: c_ulonglong) -> NvmlResult<Vec<nvmlProcessUtilizationSample_t>> {
    let sample = |process: &Process| {
        Some(nvmlProcessUtilizationSample_t {
            pid: process.pid,
            // Each call finds one sample newer than the last.
            timeStamp: last_seen + 1_000_000,
            smUtil: process.sm?,
            memUtil: 0,
            encUtil: process.codecs[0],
            decUtil: process.codecs[1],
        })
    };
    let samples: Vec<_> = state.scenario.gpus[gpu].processes.iter().filter_map(sample).collect();
    // No sample since then is an error, not an empty list.
    if samples.is_empty() { Err(NOT_FOUND) } else { Ok(samples) }
}
