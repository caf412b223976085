//! `nvmlDeviceGetFieldValues`: many counters in one call, each with a verdict of its own.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use crate::state::on_gpu;

const NAME: &str = "nvmlDeviceGetFieldValues";

/// Fields that the driver answers as 32-bit numbers: `NVML_FI_DEV_MEMORY_TEMP`, powers.
const NARROW: [u32; 9] = [82, 185, 186, 187, 188, 189, 190, 192, 230];
/// `NVML_FI_DEV_TEMPERATURE_*_TLIMIT`: signed.
const TEMPERATURE_LIMITS: std::ops::RangeInclusive<u32> = 193..=196;
/// `NVML_FI_DEV_POWER_*`, whose scope 1 is the module.
const POWER: std::ops::RangeInclusive<u32> = 185..=192;
/// `NVML_FI_DEV_C2C_LINK_COUNT`.
const C2C_LINKS: u32 = 170;

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
            let (id, scope) = (value.fieldId, value.scopeId);
            let growth = if let Some(growth) = gpu.link_fields.get(&id) {
                Some(growth).filter(|_| scope < gpu.links && !gpu.links_down.contains(&scope))
            } else if let Some(growth) = gpu.c2c_fields.get(&id) {
                let links = gpu.fields.get(&C2C_LINKS).map_or(0, |[links, _]| *links);
                Some(growth).filter(|_| u64::from(scope) < links)
            } else if POWER.contains(&id) && scope == 1 {
                gpu.module_fields.get(&id)
            } else {
                gpu.fields.get(&id)
            };
            let Some(growth) = growth.copied() else {
                value.nvmlReturn = NOT_SUPPORTED;
                continue;
            };
            let number = state.growing(index, NAME, value.fieldId, value.scopeId, growth);
            value.nvmlReturn = SUCCESS;
            if NARROW.contains(&value.fieldId) {
                value.valueType = UNSIGNED_INT;
                value.value.uiVal = number as u32;
            } else if TEMPERATURE_LIMITS.contains(&value.fieldId) {
                value.valueType = SIGNED_INT;
                value.value.siVal = number as i32;
            } else {
                value.valueType = UNSIGNED_LONG_LONG;
                value.value.ullVal = number;
            }
        }
        Ok(())
    });
    answer.err().unwrap_or(SUCCESS)
}
