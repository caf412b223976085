//! `nvmlDeviceGetFieldValues`: many counters in one call, each with a verdict of its own.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use crate::state::on_gpu;

const NAME: &str = "nvmlDeviceGetFieldValues";

/// `NVML_FI_DEV_MEMORY_TEMP`, which the driver answers as a 32-bit number.
const MEMORY_TEMPERATURE: u32 = 82;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    let Ok(count @ 1..) = usize::try_from(count) else { return INVALID_ARGUMENT };
    if values.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: NVML's contract with its caller: `count` values.
    let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
    let answer = on_gpu(NAME, device, |state, index| {
        for value in values {
            let gpu = &state.scenario.gpus[index];
            let growth = match gpu.link_fields.get(&value.fieldId) {
                Some(growth) if value.scopeId < gpu.links => Some(growth),
                Some(_) => None,
                None => gpu.fields.get(&value.fieldId),
            };
            let Some(growth) = growth.copied() else {
                value.nvmlReturn = NOT_SUPPORTED;
                continue;
            };
            let number = state.growing(index, NAME, value.fieldId, value.scopeId, growth);
            value.nvmlReturn = SUCCESS;
            if value.fieldId == MEMORY_TEMPERATURE {
                value.valueType = UNSIGNED_INT;
                value.value.uiVal = number as u32;
            } else {
                value.valueType = UNSIGNED_LONG_LONG;
                value.value.ullVal = number;
            }
        }
        Ok(())
    });
    answer.err().unwrap_or(SUCCESS)
}
