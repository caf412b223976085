//! NVML functions that are newer than the bindings.

use std::convert::Infallible;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::raw::{self, Get};

/// The function of [`unrepairable`].
pub(super) const UNREPAIRABLE: &str = "nvmlDeviceGetUnrepairableMemoryFlag_v1";

/// Whether the GPU has memory that cannot be repaired. Hopper and newer.
pub(super) fn unrepairable(device: &Device<'_>) -> Result<u32, NvmlError> {
    // SAFETY: the type matches the header; its structure is one number.
    let function = unsafe { device.nvml().lib().__library.get::<Get<u32>>(UNREPAIRABLE.as_bytes()) };
    let function = function.map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))?;
    raw::get(device, Ok::<_, Infallible>(&*function))
}
