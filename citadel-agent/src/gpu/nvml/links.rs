//! The active NVLinks of a GPU. They change while the driver is running: the fabric manager trains them later, and
//! failed links are retrained, so they are checked periodically.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;

use super::calls::{Calls, Gone};
use crate::gpu::sample::{Labels, Measured, Number};
use crate::metrics::catalogue::gpu as catalogue;

/// Maximum number of links in NVML (`NVML_NVLINK_MAX_LINKS` in nvml.h 13).
const MOST: u32 = 36;

/// NVLink versions by nvml.h's numbers.
const VERSIONS: [f64; 9] = [0.0, 1.0, 2.0, 2.2, 3.0, 3.1, 4.0, 5.0, 6.0];

/// The NVLinks of a GPU.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Each link of the GPU, and whether it is up.
    found: Vec<(u32, bool)>,
    looked: Option<Instant>,
    /// Whether the last check failed for one of them.
    failed: bool,
}

impl Links {
    /// Checks the links in the next pass.
    pub(super) fn suspect(&mut self) {
        self.looked = None;
    }

    /// Checks the links when due. Returns true if the set of active links changed, or on the first check.
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
            // A link that the GPU does not have is rejected as an invalid argument, and not checked again for a while.
            let active = || device.link_wrapper_for(link).is_active();
            match calls.ask(gpu, "nvmlDeviceGetNvLinkState", link, active)? {
                Some(active) => found.push((link, active)),
                // The call failed this time: keep the previous state, once.
                None if !self.failed && self.found.len() > link as usize => {
                    failed = true;
                    found.push(self.found[link as usize]);
                }
                // Link numbers are contiguous.
                None => break,
            }
        }
        let first = self.looked.replace(Instant::now()).is_none();
        let changed = first || self.up() != up(&found);
        (self.found, self.failed) = (found, failed);
        Ok(changed)
    }

    /// The active links.
    pub(super) fn up(&self) -> Vec<u32> {
        up(&self.found)
    }

    /// The state of each link, for the page.
    pub(super) fn states(&self) -> impl Iterator<Item = Measured> {
        self.found.iter().map(|&(link, up)| Measured {
            desc: &catalogue::NVLINK_UP,
            labels: Labels::Link(link),
            value: Number::Integer(u64::from(up)),
        })
    }

    /// The version of each active link, for the page.
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
            // A number newer than this table has no known version.
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

/// Numbers of the chip-to-chip links, as many as the GPU reports.
pub(super) fn chip_to_chip(count: Option<i128>) -> Vec<u32> {
    (0..count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0).min(64)).collect()
}
