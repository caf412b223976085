//! The counters of each model's endpoints. Only requested ones are mapped: a mapped entry is 20 KiB of the agent's resident
//! memory, and most models have requests of one or two of the 14 endpoints.

use aya::maps::MapData;
use citadel_agent_common::abi::{ENDPOINTS, Endpoint, EndpointStats};

use super::error::ProbeError;
use super::handles::Handles;
use super::mapped::{MapEntry, Mapped};
use super::object;
use super::slots::Slots;

/// Name of the map.
pub(super) const MAP: &str = "ENDPOINT_STATS";

/// The entries of all slots.
pub(super) struct Endpoints {
    map: MapData,
    /// By slot and endpoint; `None` while it has no request.
    entries: Vec<[Option<Mapped<EndpointStats>>; ENDPOINTS]>,
}

impl Endpoints {
    /// # Errors
    /// The object has no such map.
    pub(super) fn of(handles: &Handles, slots: &Slots) -> Result<Self, ProbeError> {
        let entries = (0..slots.capacity()).map(|_| Default::default()).collect();
        Ok(Self { map: object::data(handles, MAP)?, entries })
    }

    /// The counters of those of a slot's endpoints that were requested. `begun` reads the number of the slot's requests.
    ///
    /// # Errors
    /// The kernel refuses to map the entries.
    pub(super) fn requested(
        &mut self,
        slot: usize,
        begun: impl FnOnce() -> u64,
    ) -> Result<impl Iterator<Item = (Endpoint, MapEntry<'_, EndpointStats>)>, ProbeError> {
        let Self { map, entries } = self;
        if let Some(entries) = entries.get_mut(slot) {
            // Read before `begun`. If they are equal, no request is in flight, and each was of an endpoint known by now.
            let ended: u64 = entries.iter().flatten().filter_map(|entry| entry.entry(0)).map(MapEntry::ended).sum();
            if ended != begun() {
                find(map, slot * ENDPOINTS, entries)?;
            }
        }
        let entries = entries.get(slot).into_iter().flatten();
        Ok(Endpoint::ALL
            .into_iter()
            .zip(entries)
            .filter_map(|(endpoint, entry)| Some((endpoint, entry.as_ref()?.entry(0)?))))
    }
}

/// Maps the entries that have been requested since the last time; `first` is the index of the slot's first one.
fn find(
    map: &MapData,
    first: usize,
    entries: &mut [Option<Mapped<EndpointStats>>; ENDPOINTS],
) -> Result<(), ProbeError> {
    if entries.iter().all(Option::is_some) {
        return Ok(());
    }
    // One mapping of all, for the moment, instead of one each.
    let all = object::map_entries(map, MAP, first, ENDPOINTS)?;
    for (endpoint, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| entry.is_none()) {
        if all.entry(endpoint).is_some_and(is_requested) {
            *entry = Some(object::map_entries(map, MAP, first + endpoint, 1)?);
        }
    }
    Ok(())
}

fn is_requested(entry: MapEntry<'_, EndpointStats>) -> bool {
    EndpointStats::TELLING.iter().any(|&word| entry.word(word) != 0)
}
