//! The MIG devices of a GPU. In MIG mode the GPU as a whole has no utilization, and its instances have their own
//! memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;

use super::calls::{Calls, Gone};
use super::gpm::Meter;
use super::memory::memory;
use super::raw::get;
use crate::gpu::sample::Mig;

/// Interval at which a GPU's MIG mode and partitioning are read.
const PERIOD: Duration = Duration::from_secs(10);

/// The MIG devices of a GPU.
#[derive(Default)]
pub(super) struct Instances<'n> {
    found: Vec<Instance<'n>>,
    /// Whether MIG mode was enabled.
    mode: Option<bool>,
    looked: Option<Instant>,
    /// By GPU instance, which several MIG devices can share.
    meters: BTreeMap<u32, Meter<'n>>,
}

struct Instance<'n> {
    key: Arc<str>,
    device: Device<'n>,
    uuid: String,
    profile: String,
    gi: u32,
    ci: u32,
}

impl<'n> Instances<'n> {
    /// Reads all MIG devices; none if the GPU is not in MIG mode.
    pub(super) fn read(
        &mut self,
        calls: &mut Calls,
        key: &Arc<str>,
        parent: &Device<'n>,
        gpm: bool,
    ) -> Result<Vec<Mig>, Gone> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= PERIOD) {
            let mode = calls.ask(key, "nvmlDeviceGetMigMode", 0, || parent.mig_mode())?;
            let mode = mode.is_some_and(|mode| mode.current != 0);
            if self.mode.is_some_and(|before| before != mode) {
                // Hopper changes its mode without a reset, and with it what the whole GPU supports.
                calls.forget(key);
            }
            self.mode = Some(mode);
            self.found = if mode { find(calls, parent)? } else { Vec::new() };
            self.meters.retain(|gi, _| self.found.iter().any(|instance| instance.gi == *gi));
            self.looked = Some(Instant::now());
        }
        let mut utilization: BTreeMap<u32, Option<f64>> = BTreeMap::new();
        let mut devices = Vec::new();
        for instance in &self.found {
            let utilization = *utilization.entry(instance.gi).or_insert_with(|| {
                let meter = gpm.then(|| self.meters.entry(instance.gi).or_default())?;
                meter.read(calls, parent, Some(instance.gi))?.sm
            });
            devices.push(Mig {
                uuid: instance.uuid.clone(),
                profile: instance.profile.clone(),
                gi: instance.gi,
                ci: instance.ci,
                memory: memory(calls, &instance.key, &instance.device)?,
                utilization,
            });
        }
        Ok(devices)
    }
}

fn find<'n>(calls: &mut Calls, parent: &Device<'n>) -> Result<Vec<Instance<'n>>, Gone> {
    // Refusals are not remembered, because partitioning creates devices.
    let most = calls.timed("nvmlDeviceGetMaxMigDeviceCount", || parent.mig_device_count()).unwrap_or(0);
    let mut found = Vec::new();
    for index in 0..most {
        let device = calls.timed("nvmlDeviceGetMigDeviceHandleByIndex", || parent.mig_device_by_index(index));
        // Unused indices.
        let Ok(device) = device else { continue };
        let Ok(uuid) = calls.timed("nvmlDeviceGetUUID", || device.uuid()) else { continue };
        let key: Arc<str> = uuid.as_str().into();
        let lib = parent.nvml().lib();
        let gi = calls
            .ask(&key, "nvmlDeviceGetGpuInstanceId", 0, || get(&device, lib.nvmlDeviceGetGpuInstanceId.as_ref()))?;
        let ci = calls.ask(&key, "nvmlDeviceGetComputeInstanceId", 0, || {
            get(&device, lib.nvmlDeviceGetComputeInstanceId.as_ref())
        })?;
        let (Some(gi), Some(ci)) = (gi, ci) else { continue };
        let name = calls.ask(&key, "nvmlDeviceGetName", 0, || device.name())?.unwrap_or_default();
        // "NVIDIA A100-SXM4-40GB MIG 3g.20gb": the profile is the last part.
        let profile = name.rsplit_once("MIG ").map_or(name.as_str(), |(_, profile)| profile).to_owned();
        found.push(Instance { key, device, uuid, profile, gi, ci });
    }
    Ok(found)
}
