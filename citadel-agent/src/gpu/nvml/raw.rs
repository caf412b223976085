//! Functions that the wrapper does not support, or whose wrapper drops required values.

use std::fmt::Display;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::nvmlDevice_t;

/// A function of NVML that fills in one result for a device.
pub(super) type Get<T> = unsafe extern "C" fn(nvmlDevice_t, *mut T) -> u32;

/// Calls a function that returns one number.
pub(super) fn get<T: Default, E: Display>(device: &Device<'_>, function: Result<&Get<T>, E>) -> Result<T, NvmlError> {
    get_from(device, function, T::default())
}

/// The same, with a structure that specifies the request: above all its version.
pub(super) fn get_from<T, E: Display>(
    device: &Device<'_>,
    function: Result<&Get<T>, E>,
    mut place: T,
) -> Result<T, NvmlError> {
    let get = function.map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))?;
    // SAFETY: the handle is the wrapper's own, the library is loaded, and the pointer to the result is valid.
    nvml_try(unsafe { get(device.handle(), &raw mut place) })?;
    Ok(place)
}

/// `NVML_STRUCT_VERSION` of nvml.h.
pub(super) const fn version<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}
