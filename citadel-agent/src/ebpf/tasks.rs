//! Tells the eBPF programs which processes belong to which model: the `TASKS` map of a family.
//!
//! Userspace writes the processes found by discovery. The programs immediately add each process that one of them forks;
//! so a process may be in the map before discovery has seen it.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, MapData, MapError};
use citadel_agent_common::abi::{Lost, mark};
use citadel_agent_common::shares::{Owner, PROCESSES};

use super::error::ProbeError;
use super::handles::Handles;
use super::object;
use super::shares::{SharedMap, Shares};
use super::slots::Slots;
use crate::discovery::inventory::Inventory;

/// Name of the map in each object that has one.
const MAP: &str = "TASKS";

/// The map, shared by the models.
pub(super) const SHARED: SharedMap = SharedMap { name: MAP, held: "PROCESSES_HELD", sharing: PROCESSES };

/// The threads of their processes, which the programs follow themselves.
pub(super) const THREADS: SharedMap =
    SharedMap { name: "UNSEATED", held: "THREADS_HELD", sharing: citadel_agent_common::shares::THREADS };

/// Name of the map with which programs quickly skip processes of no model.
const MARKS: &str = "MARKS";

/// The map, and the state needed to remove processes in time.
pub(super) struct Tasks {
    map: HashMap<MapData, u32, u32>,
    marks: Array<MapData, u32>,
    /// Usage of the map by model.
    shares: Shares,
    /// Usage of the thread maps by model.
    threads: Shares,
    /// Processes that did not fit in the last pass.
    unfit: BTreeSet<u32>,
    /// Processes in the map that discovery did not find in its last pass: new ones that it has yet to see, or exited
    /// ones.
    unseen: BTreeSet<u32>,
}

impl Tasks {
    /// Follows the processes in these maps.
    ///
    /// # Errors
    /// The object has no such maps.
    pub(super) fn of(handles: &Handles, slots: &Slots) -> Result<Self, ProbeError> {
        Ok(Self {
            shares: SHARED.open(handles, slots)?,
            threads: THREADS.open(handles, slots)?,
            map: object::hash(handles, MAP)?,
            marks: object::array(handles, MARKS)?,
            unfit: BTreeSet::new(),
            unseen: BTreeSet::new(),
        })
    }

    /// Adds the processes found by discovery ([`slots_of_processes`]) to the map, and removes those that it did not
    /// find twice in a row. Must be called once per discovery pass.
    ///
    /// # Errors
    /// The map cannot be read or written. A process that does not fit is not an error, but counted.
    pub(super) fn follow(&mut self, found: &BTreeMap<u32, u32>) -> Result<(), ProbeError> {
        let failed = |error| ProbeError::Map { map: MAP, error };
        let owned = self.map.iter().map(|entry| entry.map(|(process, owner)| (process, Owner(owner))));
        let owned: BTreeMap<u32, Owner> = owned.collect::<Result<_, _>>().map_err(failed)?;
        let held = owned.iter().map(|(&process, owner)| (process, owner.slot())).collect();
        let plan = plan(&held, found, &self.unseen);
        let changed = plan.write.iter().map(|(process, _)| process).filter(|process| held.contains_key(process));
        for process in plan.forget.iter().chain(changed) {
            match self.map.remove(process) {
                Ok(()) => {
                    self.shares.give(owned[process]);
                    self.count_up(*process)?;
                }
                // It has exited, and the programs have removed it.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mut unfit = BTreeSet::new();
        for (process, slot) in plan.write {
            let Some(owner) = self.shares.take(slot) else {
                if !self.unfit.contains(&process) {
                    self.shares.refuse(slot);
                }
                unfit.insert(process);
                continue;
            };
            // Before it is added; otherwise the programs would not look it up.
            self.count_up(process)?;
            if let Err(error) = self.map.insert(process, owner.0, NEW) {
                // A fork has added it meanwhile, or the map is full.
                self.shares.give(owner);
                if !is_there(&error) {
                    return Err(failed(error));
                }
            }
        }
        (self.unseen, self.unfit) = (plan.unseen, unfit);
        Ok(())
    }

    /// Makes the programs look up a process again.
    fn count_up(&mut self, process: u32) -> Result<(), ProbeError> {
        let failed = |error| ProbeError::Map { map: MARKS, error };
        let last = self.marks.get(&mark(process), 0).map_err(failed)?;
        // 0 means that the process cannot belong to a model.
        self.marks.set(mark(process), last.checked_add(1).unwrap_or(1), 0).map_err(failed)
    }

    /// Entries in use and capacity, for processes and threads.
    pub(super) fn fill(&self) -> [(u64, u64); 2] {
        [self.shares.fill(), self.threads.fill()]
    }

    /// What did not fit, by slot and reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (u32, Lost, u64)> {
        let of = |shares: &Shares, why| shares.refused().into_iter().map(move |(slot, count)| (slot, why, count));
        of(&self.shares, Lost::ProcessesFull).chain(of(&self.threads, Lost::ThreadsFull))
    }
}

/// Fails if there is an entry (`BPF_NOEXIST` from `<linux/bpf.h>`).
const NEW: u64 = 1;

fn is_there(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST))
}

/// Changes to the map.
#[derive(PartialEq, Eq, Debug)]
struct Plan {
    write: Vec<(u32, u32)>,
    forget: Vec<u32>,
    unseen: BTreeSet<u32>,
}

/// Compares the content of the map with discovery's results. Pure.
fn plan(held: &BTreeMap<u32, u32>, found: &BTreeMap<u32, u32>, unseen: &BTreeSet<u32>) -> Plan {
    let write =
        found.iter().filter(|(process, slot)| held.get(process) != Some(slot)).map(|(&process, &slot)| (process, slot));
    let absent = held.keys().filter(|process| !found.contains_key(process)).copied();
    let (forget, young): (Vec<_>, Vec<_>) = absent.partition(|process| unseen.contains(process));
    Plan { write: write.collect(), forget, unseen: young.into_iter().collect() }
}

/// The slot of each process of a model; the lowest port if several models share it.
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
