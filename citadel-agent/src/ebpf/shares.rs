//! Models' usage of a shared map ([`citadel_agent_common::shares`]): the programs and userspace update the same
//! account.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use aya::EbpfLoader;
use citadel_agent_common::shares::{self, Charge, Held, Owner, Sharing};

use super::error::ProbeError;
use super::handles::Handles;
use super::mapped::Cells;
use super::object;
use super::slots::Slots;

/// The account of one shared map.
#[derive(Debug)]
pub(super) struct Shares {
    held: Cells,
    sharing: Sharing,
    slots: u32,
    cpus: u32,
}

/// A shared map: its name, the name of its account, and how it is shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedMap {
    pub(super) name: &'static str,
    pub(super) held: &'static str,
    pub(super) sharing: Sharing,
}

impl SharedMap {
    /// Sets the size of the map before loading.
    pub(super) fn size(self, loader: &mut EbpfLoader<'_>, slots: &Slots) {
        loader
            .map_max_entries(self.name, self.sharing.entries(slots.capacity(), cpus()))
            .map_max_entries(self.held, slots.capacity() + 1);
    }

    /// Opens its account.
    ///
    /// # Errors
    /// The object has no such map, or the kernel refuses to map it.
    pub(super) fn open(self, handles: &Handles, slots: &Slots) -> Result<Shares, ProbeError> {
        let words = (slots.capacity() as usize + 1) * WORDS;
        Ok(Shares {
            held: object::map_cells(handles, self.held, words)?,
            sharing: self.sharing,
            slots: slots.capacity(),
            cpus: cpus(),
        })
    }

    /// Fills the pool of a new account, before the programs are attached.
    ///
    /// # Errors
    /// The object has no such map, or the kernel refuses to map it.
    pub(super) fn fill(self, handles: &Handles, slots: &Slots) -> Result<(), ProbeError> {
        self.open(handles, slots)?.pool().store(u64::from(self.sharing.pool(cpus())), Relaxed);
        Ok(())
    }
}

/// Words of an entry.
const WORDS: usize = size_of::<Held>() / size_of::<u64>();

impl Shares {
    /// Charges an entry to a model; `None` if there is no room.
    pub(super) fn take(&self, slot: u32) -> Option<Owner> {
        let [own, pooled] = [self.own(slot), self.pooled(slot)].map(|cell| cell.load(Relaxed));
        let charge = shares::charge(u64::from(self.sharing.own), own, pooled, self.pool().load(Relaxed))?;
        self.change(slot, charge, 1);
        Some(Owner::new(slot, charge))
    }

    /// Returns an entry.
    pub(super) fn give(&self, owner: Owner) {
        self.change(owner.slot(), owner.charge(), 1_u64.wrapping_neg());
    }

    /// Counts an entry for which there was no room.
    pub(super) fn refuse(&self, slot: u32) {
        self.cell(slot + 1, offset_of!(Held, refused)).fetch_add(1, Relaxed);
    }

    /// Entries in use and capacity.
    pub(super) fn fill(&self) -> (u64, u64) {
        let held = |slot| self.own(slot).load(Relaxed) + self.pooled(slot).load(Relaxed);
        ((0..self.slots).map(held).sum(), u64::from(self.sharing.entries(self.slots, self.cpus)))
    }

    /// How often there was no room for an entry of a model, by slot.
    pub(super) fn refused(&self) -> BTreeMap<u32, u64> {
        let refused = |slot| (slot, self.cell(slot + 1, offset_of!(Held, refused)).load(Relaxed));
        (0..self.slots).map(refused).filter(|&(_, count)| count > 0).collect()
    }

    fn change(&self, slot: u32, charge: Charge, by: u64) {
        match charge {
            Charge::Own => _ = self.own(slot).fetch_add(by, Relaxed),
            Charge::Pool => {
                self.pooled(slot).fetch_add(by, Relaxed);
                self.pool().fetch_sub(by, Relaxed);
            }
        }
    }

    fn own(&self, slot: u32) -> &AtomicU64 {
        self.cell(slot + 1, offset_of!(Held, own))
    }

    fn pooled(&self, slot: u32) -> &AtomicU64 {
        self.cell(slot + 1, offset_of!(Held, pooled))
    }

    /// The number of free entries of the pool.
    fn pool(&self) -> &AtomicU64 {
        self.cell(0, offset_of!(Held, pooled))
    }

    fn cell(&self, entry: u32, at: usize) -> &AtomicU64 {
        self.held.cell(entry as usize * WORDS + at / size_of::<u64>())
    }
}

/// Number of CPUs, from which the number of threads of models is estimated.
fn cpus() -> u32 {
    // SAFETY: no arguments that are pointers.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    u32::try_from(cpus).unwrap_or(1)
}
