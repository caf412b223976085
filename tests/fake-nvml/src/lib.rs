//! A `libnvidia-ml.so` without a driver: exports NVML's C functions and answers them from the file `scenario.json` beside
//! itself, as a driver would, down to struct versions and sizes.
//!
//! The same crate gives tests the scenario's types ([`scenario::Scenario`]), some hosts ([`hosts`]) and a way to
//! [`install`] a copy of the library for a scenario. Each copy is a driver of its own, also within one process. The file
//! is read again at `nvmlInit_v2`, `nvmlDeviceGetCount_v2` and `nvmlEventSetWait_v2` (and while a call hangs), so a test
//! changes the hardware by writing it anew.
//!
//! Ground truth is NVIDIA's header as bindgen reads it (`nvml-wrapper-sys`) and the header's own words on return codes.

pub mod hosts;
pub mod install;
pub mod scenario;

mod device;
mod events;
mod fields;
mod gpm;
mod health;
mod links;
mod processes;
mod state;
mod system;
mod vgpu;

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT, nvmlReturn_enum_NVML_SUCCESS as SUCCESS,
    nvmlReturn_t,
};

use crate::state::NvmlResult;

/// Stores an answer where the caller wants it, and gives NVML's code.
///
/// # Safety
/// `out` is null or a valid place for a `T`.
unsafe fn put<T>(out: *mut T, answer: NvmlResult<T>) -> nvmlReturn_t {
    match answer {
        Ok(_) if out.is_null() => INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: the caller's promise, and null was ruled out.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Stores a text with its NUL, if it fits.
///
/// # Safety
/// `out` has room for `length` bytes.
unsafe fn put_text(out: *mut c_char, length: c_uint, answer: NvmlResult<String>) -> nvmlReturn_t {
    match answer {
        Ok(_) if out.is_null() => INVALID_ARGUMENT,
        Ok(text) if text.len() >= length as usize => INSUFFICIENT_SIZE,
        Ok(text) => {
            // SAFETY: text and NUL fit, by the caller's promise and the comparison above.
            unsafe {
                out.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
                out.add(text.len()).write(0);
            }
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Fills a caller's array as NVML does: too small an array gets the number it would take, and no entries.
///
/// # Safety
/// `count` is valid, and `out` has room for `*count` entries or is null.
unsafe fn put_list<T>(out: *mut T, count: *mut c_uint, answer: NvmlResult<Vec<T>>) -> nvmlReturn_t {
    let list = match answer {
        Ok(_) if count.is_null() => return INVALID_ARGUMENT,
        Ok(list) => list,
        Err(code) => return code,
    };
    // SAFETY: the caller's promise.
    let room = unsafe { count.replace(list.len() as c_uint) } as usize;
    if list.is_empty() {
        return SUCCESS;
    }
    if room < list.len() || out.is_null() {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller's promise, and there is room.
    unsafe { out.copy_from_nonoverlapping(list.as_ptr(), list.len()) };
    SUCCESS
}
