//! `storage` and `services`.

use super::list;
use crate::config::mistakes::Mistakes;
use crate::config::resolved::{Services, Storage};
use crate::config::section::Section;
use crate::config::value;

/// Most directories that are walked, and most patterns of units.
const MAX_ITEMS: usize = 64;

pub(super) fn storage(section: &Section<'_>, defaults: Storage, mistakes: &mut Mistakes) -> Option<Storage> {
    let smartctl = section.read("smartctl", defaults.smartctl, value::program, mistakes);
    let smart_interval = section.read("smart_interval", defaults.smart_interval, value::interval, mistakes);
    let directories = match section.node("directories") {
        None => Some(defaults.directories),
        Some((path, node)) => list::distinct(&path, node, (MAX_ITEMS, "paths"), value::absolute_path, mistakes),
    };
    let directory_interval = section.read("directory_interval", defaults.directory_interval, value::interval, mistakes);
    Some(Storage {
        smartctl: smartctl?.value,
        smart_interval: smart_interval?.value,
        directories: directories?,
        directory_interval: directory_interval?.value,
    })
}

pub(super) fn services(section: &Section<'_>, defaults: Services, mistakes: &mut Mistakes) -> Option<Services> {
    let units = match section.node("units") {
        None => Some(defaults.units),
        Some((path, node)) => list::distinct(&path, node, (MAX_ITEMS, "patterns"), value::unit_pattern, mistakes),
    };
    Some(Services { units: units? })
}
