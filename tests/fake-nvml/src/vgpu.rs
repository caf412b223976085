//! vGPUs: the parts of a GPU that virtual machines have.

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlVgpuInstance_t, nvmlVgpuTypeId_t, nvmlVgpuVmIdType, nvmlVgpuVmIdType_NVML_VGPU_VM_ID_UUID as VM_UUID,
};

use crate::scenario::Vgpu;
use crate::state::{NvmlResult, on_gpu, with};
use crate::{put, put_list, put_text};

/// An instance is its GPU and its place among the GPU's guests; its type has the same number.
fn number(gpu: usize, place: usize) -> c_uint {
    (gpu as c_uint + 1) << 8 | place as c_uint
}

fn guest(number: c_uint) -> NvmlResult<Vgpu> {
    with(|state| {
        let gpu = state.scenario.gpus.get((number as usize >> 8).wrapping_sub(1));
        gpu.and_then(|gpu| gpu.vgpus.get(number as usize & 0xff)).cloned().ok_or(NOT_FOUND)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetActiveVgpus(
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlVgpuInstance_t,
) -> nvmlReturn_t {
    let answer = on_gpu("nvmlDeviceGetActiveVgpus", device, |state, gpu| {
        let guests = state.scenario.gpus[gpu].vgpus.len();
        if guests == 0 {
            return Err(NOT_SUPPORTED);
        }
        Ok((0..guests).map(|place| number(gpu, place)).collect())
    });
    // SAFETY: NVML's contract with its caller.
    unsafe { put_list(out, count, answer) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlVgpuInstanceGetUUID(
    instance: nvmlVgpuInstance_t,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put_text(out, length, guest(instance).map(|guest| guest.uuid)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlVgpuInstanceGetVmID(
    instance: nvmlVgpuInstance_t,
    out: *mut c_char,
    length: c_uint,
    kind: *mut nvmlVgpuVmIdType,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    match unsafe { put_text(out, length, guest(instance).map(|guest| guest.vm)) } {
        // SAFETY: likewise.
        SUCCESS => unsafe { put(kind, Ok(VM_UUID)) },
        code => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlVgpuInstanceGetFbUsage(instance: nvmlVgpuInstance_t, out: *mut c_ulonglong) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, guest(instance).map(|guest| guest.used)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlVgpuInstanceGetType(instance: nvmlVgpuInstance_t, out: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put(out, guest(instance).map(|_| instance)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlVgpuTypeGetName(
    kind: nvmlVgpuTypeId_t,
    out: *mut c_char,
    length: *mut c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's contract with its caller.
    unsafe { put_text(out, *length, guest(kind).map(|guest| guest.profile)) }
}
