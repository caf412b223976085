//! Models' usage of shared maps: see [`citadel_agent_common::shares`].

use aya_ebpf::maps::Array;
use citadel_agent_common::shares::{Charge, Held, Owner, charge};

use crate::count::add;

/// The account of one shared map.
pub struct Shares {
    /// The pool, then the models by slot. Userspace sets the size and the free entries of the pool before attaching.
    pub held: &'static Array<Held>,
    /// Number of entries reserved for each model.
    pub own: u32,
}

impl Shares {
    /// Charges an entry to a model if there is room; otherwise counts the refusal.
    #[inline(always)]
    #[must_use]
    pub fn take(&self, slot: u32) -> Option<Owner> {
        let (held, pool) = (self.held(slot)?, self.pool()?);
        let Some(charge) = charge(self.own as u64, held.own, held.pooled, pool.pooled) else {
            add(&mut held.refused, 1);
            return None;
        };
        self.change(slot, charge, 1);
        Some(Owner::new(slot, charge))
    }

    /// Returns an entry.
    #[inline(always)]
    pub fn give(&self, owner: Owner) {
        self.change(owner.slot(), owner.charge(), -1);
    }

    /// Returns an entry that could not be created, and counts that.
    #[inline(always)]
    pub fn fail(&self, owner: Owner) {
        self.give(owner);
        if let Some(held) = self.held(owner.slot()) {
            add(&mut held.refused, 1);
        }
    }

    #[inline(always)]
    fn change(&self, slot: u32, charge: Charge, by: i64) {
        let (Some(held), Some(pool)) = (self.held(slot), self.pool()) else { return };
        match charge {
            Charge::Own => add(&mut held.own, by as u64),
            Charge::Pool => {
                add(&mut held.pooled, by as u64);
                add(&mut pool.pooled, by.wrapping_neg() as u64);
            }
        }
    }

    #[inline(always)]
    fn held(&self, slot: u32) -> Option<&'static mut Held> {
        // SAFETY: a map value; other CPUs, and userspace, only add atomically.
        self.held.get_ptr_mut(slot.wrapping_add(1)).map(|held| unsafe { &mut *held })
    }

    #[inline(always)]
    fn pool(&self) -> Option<&'static mut Held> {
        // SAFETY: as above.
        self.held.get_ptr_mut(0).map(|held| unsafe { &mut *held })
    }
}
