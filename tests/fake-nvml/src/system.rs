//! The library and the driver as a whole.

use std::ffi::{CStr, c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT, nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
};

use crate::scenario::Gpu;
use crate::state::{NvmlResult, State, handle, hang, with};
use crate::{put, put_text};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    with(|state| {
        if let Err(code) = state.refresh() {
            return code;
        }
        if state.scenario.init != SUCCESS {
            return state.scenario.init;
        }
        state.initialized += 1;
        state.show_open();
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    with(|state| match state.initialized.checked_sub(1) {
        Some(rest) => {
            state.initialized = rest;
            state.show_open();
            SUCCESS
        }
        None => UNINITIALIZED,
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    match code {
        SUCCESS => c"Success".as_ptr(),
        _ => c"Failure".as_ptr(),
    }
}

fn system<T>(f: impl FnOnce(&mut State) -> NvmlResult<T>) -> NvmlResult<T> {
    with(|state| if state.initialized == 0 { Err(UNINITIALIZED) } else { f(state) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(out: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put_text(out, length, system(|state| Ok(state.scenario.driver.clone()))) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, system(|state| Ok(state.scenario.cuda))) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> nvmlReturn_t {
    let count = system(|state| {
        state.refresh()?;
        Ok(state.scenario.gpus.len() as c_uint)
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, find(INVALID_ARGUMENT, |at, _| at == index as usize)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller: a NUL-terminated text.
    let uuid = unsafe { CStr::from_ptr(uuid) };
    // SAFETY: likewise, a place for the answer.
    unsafe { put(out, find(NOT_FOUND, |_, gpu| gpu.uuid.as_bytes() == uuid.to_bytes())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, out: *mut nvmlDevice_t) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller: a NUL-terminated text.
    let bus_id = unsafe { CStr::from_ptr(bus_id) }.to_string_lossy().to_lowercase();
    // SAFETY: likewise, a place for the answer.
    unsafe { put(out, find(NOT_FOUND, |_, gpu| gpu.pci == bus_id)) }
}

fn find(missing: nvmlReturn_t, is: impl Fn(usize, &Gpu) -> bool) -> NvmlResult<nvmlDevice_t> {
    let (index, lost) = system(|state| {
        let mut gpus = state.scenario.gpus.iter().enumerate();
        let (index, gpu) = gpus.find(|(index, gpu)| is(*index, gpu)).ok_or(missing)?;
        Ok((index, gpu.lost))
    })?;
    // Taking a handle initializes the GPU.
    hang("nvmlDeviceGetHandle", index);
    if lost { Err(GPU_IS_LOST) } else { Ok(handle(index, None)) }
}
