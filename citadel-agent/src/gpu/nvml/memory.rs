//! Memory of GPUs and of MIG devices.

use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::nvmlMemory_t;

use super::calls::{Calls, Gone};
use super::limits::MEMORY;
use super::raw::get_from;
use crate::gpu::sample::DeviceMemory;

/// The memory of a device, also of a MIG device.
pub(super) fn memory(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Option<DeviceMemory>, Gone> {
    const SECOND: &str = "nvmlDeviceGetMemoryInfo_v2";
    if let Some(info) = calls.ask(key, SECOND, 0, || device.memory_info())? {
        let memory = DeviceMemory { total: info.total, used: info.used, reserved: Some(info.reserved) };
        return Ok(possible_memory(calls, SECOND, memory));
    }
    // Before R510, memory reserved by the driver is included in used memory.
    const FIRST: &str = "nvmlDeviceGetMemoryInfo";
    let zeros = nvmlMemory_t { total: 0, free: 0, used: 0 };
    let ask = || get_from(device, device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref(), zeros);
    let Some(info) = calls.ask(key, FIRST, 0, ask)? else { return Ok(None) };
    Ok(possible_memory(calls, FIRST, DeviceMemory { total: info.total, used: info.used, reserved: None }))
}

fn possible_memory(calls: &mut Calls, call: &'static str, memory: DeviceMemory) -> Option<DeviceMemory> {
    let total = calls.sane(call, "total", Some(memory.total), &MEMORY)?;
    calls.sane(call, "used", Some(memory.used), &(0..=total))?;
    if let Some(reserved) = memory.reserved {
        calls.sane(call, "reserved", Some(reserved), &(0..=total))?;
    }
    Some(memory)
}
