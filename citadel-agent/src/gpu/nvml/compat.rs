//! Values needed only for dcgm-exporter's names.

use std::mem;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlGridLicensableFeatures_t, nvmlGridLicenseFeatureCode_t_NVML_GRID_LICENSE_FEATURE_CODE_VGPU as VGPU,
};

use super::calls::{Calls, Gone};
use super::limits::PERCENT;
use crate::gpu::sample::Compat;

/// Reads the values.
pub(super) fn read(calls: &mut Calls, key: &Arc<str>, device: &Device<'_>) -> Result<Compat, Gone> {
    let encoder = || device.encoder_utilization().map(|info| info.utilization);
    let decoder = || device.decoder_utilization().map(|info| info.utilization);
    Ok(Compat {
        encoder: calls.ask_sane(key, "nvmlDeviceGetEncoderUtilization", 0, &PERCENT, encoder)?,
        decoder: calls.ask_sane(key, "nvmlDeviceGetDecoderUtilization", 0, &PERCENT, decoder)?,
        licensed: calls.ask(key, "nvmlDeviceGetGridLicensableFeatures_v4", 0, || licensed(device))?,
    })
}

/// Whether the GPU has a vGPU licence; the wrapper has no call for this.
fn licensed(device: &Device<'_>) -> Result<bool, NvmlError> {
    let get = nvml_sym(device.nvml().lib().nvmlDeviceGetGridLicensableFeatures_v4.as_ref())?;
    // SAFETY: consists of numbers and texts, for which all zeros is a valid value.
    let mut features: nvmlGridLicensableFeatures_t = unsafe { mem::zeroed() };
    // SAFETY: the handle is the wrapper's own, the library is loaded, and the pointer to the result is valid.
    nvml_try(unsafe { get(device.handle(), &raw mut features) })?;
    let count = features.licensableFeaturesCount as usize;
    let mut listed = features.gridLicensableFeatures.iter().take(count);
    Ok(features.isGridLicenseSupported != 0
        && listed.any(|feature| feature.featureCode == VGPU && feature.featureState > 0))
}
