//! Which NVLinks of a GPU are up. They come and go while the driver runs: the fabric manager trains them after it, a link
//! that fails is retrained, so they are looked at again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;

use super::calls::{Calls, Gone};
use crate::gpu::sample::{Labels, Measured, Number};
use crate::metrics::catalogue::gpu as catalogue;

/// Most links that NVML knows (`NVML_NVLINK_MAX_LINKS` of nvml.h 13).
const MOST: u32 = 36;

/// NVLink's versions by nvml.h's numbers for them.
const VERSIONS: [f64; 9] = [0.0, 1.0, 2.0, 2.2, 3.0, 3.1, 4.0, 5.0, 6.0];

/// The NVLinks of a GPU.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Each link that the GPU has, and whether it is up.
    found: Vec<(u32, bool)>,
    looked: Option<Instant>,
    /// The last look had no answer for one of them.
    failed: bool,
}

impl Links {
    /// Has the links looked at in the next pass.
    pub(super) fn suspect(&mut self) {
        self.looked = None;
    }

    /// Looks at them, if it is time to. True: other links are up than before, or nobody has looked yet.
    pub(super) fn look(
        &mut self,
        calls: &mut Calls,
        gpu: &Arc<str>,
        device: &Device<'_>,
        period: Duration,
    ) -> Result<bool, Gone> {
        if self.looked.is_some_and(|looked| looked.elapsed() < period) {
            return Ok(false);
        }
        let mut found = Vec::new();
        let mut failed = false;
        for link in 0..MOST {
            // A link that the GPU does not have is refused as an argument, and not asked for again for a while.
            let active = || device.link_wrapper_for(link).is_active();
            match calls.ask(gpu, "nvmlDeviceGetNvLinkState", link, active)? {
                Some(active) => found.push((link, active)),
                // The call failed this time: as before, once.
                None if !self.failed && self.found.len() > link as usize => {
                    failed = true;
                    found.push(self.found[link as usize]);
                }
                // Links are numbered without gaps.
                None => break,
            }
        }
        let first = self.looked.replace(Instant::now()).is_none();
        let changed = first || self.up() != up(&found);
        (self.found, self.failed) = (found, failed);
        Ok(changed)
    }

    /// The links that are up.
    pub(super) fn up(&self) -> Vec<u32> {
        up(&self.found)
    }

    /// The state of each, for the page.
    pub(super) fn states(&self) -> impl Iterator<Item = Measured> {
        self.found.iter().map(|&(link, up)| Measured {
            desc: &catalogue::NVLINK_UP,
            labels: Labels::Link(link),
            value: Number::Integer(u64::from(up)),
        })
    }

    /// The version of each that is up, for the page.
    pub(super) fn versions(
        &self,
        calls: &mut Calls,
        gpu: &Arc<str>,
        device: &Device<'_>,
        measured: &mut Vec<Measured>,
    ) -> Result<(), Gone> {
        for link in self.up() {
            let version = || device.link_wrapper_for(link).version();
            let version = calls.ask(gpu, "nvmlDeviceGetNvLinkVersion", link, version)?;
            // A number that is newer than this table is no version that could be named.
            let Some(&version) = version.and_then(|number| VERSIONS.get(number as usize)).filter(|v| **v > 0.0) else {
                continue;
            };
            let labels = Labels::Link(link);
            measured.push(Measured { desc: &catalogue::NVLINK_VERSION, labels, value: Number::Float(version) });
        }
        Ok(())
    }
}

fn up(found: &[(u32, bool)]) -> Vec<u32> {
    found.iter().filter(|(_, up)| *up).map(|(link, _)| *link).collect()
}

/// Numbers of the chip-to-chip links: as many as the GPU says.
pub(super) fn chip_to_chip(count: Option<i128>) -> Vec<u32> {
    (0..count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0).min(64)).collect()
}
