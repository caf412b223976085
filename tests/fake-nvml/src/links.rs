//! NVLinks: which there are, and which are active.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_t,
};

use crate::put;
use crate::state::on_gpu;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkState(device: nvmlDevice_t, link: c_uint, out: *mut c_uint) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceGetNvLinkState", device, |state, gpu| {
        let gpu = &state.scenario.gpus[gpu];
        match link {
            _ if gpu.links == 0 => Err(NOT_SUPPORTED),
            link if link < gpu.links => Ok(c_uint::from(!gpu.links_down.contains(&link))),
            _ => Err(INVALID_ARGUMENT),
        }
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkVersion(device: nvmlDevice_t, link: c_uint, out: *mut c_uint) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceGetNvLinkVersion", device, |state, gpu| {
        let gpu = &state.scenario.gpus[gpu];
        if link >= gpu.links {
            return Err(INVALID_ARGUMENT);
        }
        gpu.link_version.ok_or(NOT_SUPPORTED)
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, answer) }
}
