//! Which processes the kernel programs charge to which model: the `TASKS` map of a family.
//!
//! Discovery finds the processes and userspace writes them here. The programs add each process that one of them forks, at
//! once; so a process may be in the map before discovery has seen it.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use citadel_agent_common::abi::{MAX_PROCESSES, mark};

use super::error::ProbeError;
use super::object;
use super::slots::Slots;
use crate::discovery::inventory::Inventory;

/// Name of the map in each object that has one.
const MAP: &str = "TASKS";

/// Name of the map by which programs tell soon that a process is no model's.
const MARKS: &str = "MARKS";

/// The map, and what is needed to forget processes in time.
pub(super) struct Tasks {
    map: HashMap<MapData, u32, u32>,
    marks: Array<MapData, u32>,
    /// Processes in the map that discovery did not find the last time it looked: young ones that it has yet to see, or gone.
    unseen: BTreeSet<u32>,
}

impl Tasks {
    /// Follows the processes that the maps of `ebpf` hold: none yet.
    ///
    /// # Errors
    /// When the object has no such maps.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        Ok(Self { map: object::hash(ebpf, MAP)?, marks: object::array(ebpf, MARKS)?, unseen: BTreeSet::new() })
    }

    /// Makes the map hold the processes that discovery found ([`slots_of_processes`]), and forgets those that it did not
    /// find twice in a row. To be called once for each time that discovery looked.
    ///
    /// # Errors
    /// When the map cannot be read or written; a full map is no error, the programs count what it costs.
    pub(super) fn follow(&mut self, found: &BTreeMap<u32, u32>) -> Result<(), ProbeError> {
        let failed = |error| ProbeError::Map { map: MAP, error };
        let held: BTreeMap<u32, u32> = self.map.iter().collect::<Result<_, _>>().map_err(failed)?;
        let plan = plan(&held, found, &self.unseen);
        for process in &plan.forget {
            match self.map.remove(process) {
                Ok(()) => self.count_up(*process)?,
                // It has ended, and another program has forgotten it.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let room = (MAX_PROCESSES as usize).saturating_sub(held.len() - plan.forget.len());
        let (changed, new): (Vec<_>, Vec<_>) =
            plan.write.into_iter().partition(|(process, _)| held.contains_key(process));
        for (process, slot) in changed {
            self.map.insert(process, slot, 0).map_err(failed)?;
            self.count_up(process)?;
        }
        for (process, slot) in new.into_iter().take(room) {
            // Before it is there, or the programs would not look for it.
            self.count_up(process)?;
            self.map.insert(process, slot, 0).map_err(failed)?;
        }
        self.unseen = plan.unseen;
        Ok(())
    }

    /// Has the programs look a process up again.
    fn count_up(&mut self, process: u32) -> Result<(), ProbeError> {
        let failed = |error| ProbeError::Map { map: MARKS, error };
        let last = self.marks.get(&mark(process), 0).map_err(failed)?;
        // 0 is that of a process which cannot be a model's.
        self.marks.set(mark(process), last.checked_add(1).unwrap_or(1), 0).map_err(failed)
    }

    /// Entries in use and capacity.
    pub(super) fn fill(&self) -> (u64, u64) {
        (self.map.keys().count() as u64, u64::from(MAX_PROCESSES))
    }
}

/// What is to be done with the map.
#[derive(PartialEq, Eq, Debug)]
struct Plan {
    write: Vec<(u32, u32)>,
    forget: Vec<u32>,
    unseen: BTreeSet<u32>,
}

/// Compares what the map holds with what discovery found. Pure.
fn plan(held: &BTreeMap<u32, u32>, found: &BTreeMap<u32, u32>, unseen: &BTreeSet<u32>) -> Plan {
    let write =
        found.iter().filter(|(process, slot)| held.get(process) != Some(slot)).map(|(&process, &slot)| (process, slot));
    let absent = held.keys().filter(|process| !found.contains_key(process)).copied();
    let (forget, young): (Vec<_>, Vec<_>) = absent.partition(|process| unseen.contains(process));
    Plan { write: write.collect(), forget, unseen: young.into_iter().collect() }
}

/// The slot of each process of a model; the first by port where several models share one.
pub(super) fn slots_of_processes(inventory: &Inventory, slots: &Slots) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for model in &inventory.models {
        if let Some(slot) = slots.get(model.port) {
            for &pid in &model.pids {
                found.entry(pid).or_insert(slot);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(u32, u32)]) -> BTreeMap<u32, u32> {
        entries.iter().copied().collect()
    }

    #[test]
    fn what_is_new_or_has_moved_is_written() {
        let plan = plan(&map(&[(1, 0), (2, 0)]), &map(&[(1, 0), (2, 1), (3, 1)]), &BTreeSet::new());
        assert_eq!(plan, Plan { write: vec![(2, 1), (3, 1)], forget: vec![], unseen: BTreeSet::new() });
    }

    #[test]
    fn a_process_is_forgotten_when_it_is_not_found_twice() {
        let held = map(&[(1, 0), (2, 0)]);
        let first = plan(&held, &map(&[(1, 0)]), &BTreeSet::new());
        assert_eq!(first, Plan { write: vec![], forget: vec![], unseen: [2].into() });
        let found = plan(&held, &map(&[(1, 0), (2, 0)]), &first.unseen);
        assert_eq!(
            found,
            Plan { write: vec![], forget: vec![], unseen: BTreeSet::new() },
            "a child that was too young"
        );
        let gone = plan(&held, &map(&[(1, 0)]), &first.unseen);
        assert_eq!(gone, Plan { write: vec![], forget: vec![2], unseen: BTreeSet::new() });
    }
}
