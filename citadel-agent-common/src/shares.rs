//! How models share a kernel map that can be full, so that none can use up the room of the others.
//!
//! Each model has a share of its own, which no other model can use. Beyond it there is a common pool: a model may hold
//! at most as many of its entries as it leaves free. So one model uses at most half of the pool, and every model keeps
//! its own share whatever the others do. A map has room for all shares and the pool together.

/// A model's usage of a map: an entry of the array map next to it, at `slot + 1`. The entry at 0 is the pool's, in
/// which only [`Self::pooled`] is used: the number of free entries.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Held {
    /// Used entries of the model's own share.
    pub own: u64,
    /// Used entries of the pool.
    pub pooled: u64,
    /// How often there was no room for an entry of the model.
    pub refused: u64,
    _reserved: u64,
}

/// Where an entry is charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charge {
    /// The model's own share.
    Own,
    /// The pool.
    Pool,
}

/// Where to charge one more entry of a model; `None` if there is no room. If several CPUs ask at the same time, each of
/// them adds at most one entry too many, for which a map has [`SPARE`] ones.
#[inline(always)]
#[must_use]
pub const fn charge(own_share: u64, own: u64, pooled: u64, free: u64) -> Option<Charge> {
    if own < own_share {
        Some(Charge::Own)
    } else if (pooled as i64) < free as i64 {
        Some(Charge::Pool)
    } else {
        None
    }
}

/// Entries of a map beyond its shares and its pool.
pub const SPARE: u32 = 256;

/// The owner of an entry: a slot and a [`Charge`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Owner(pub u32);

impl Owner {
    const POOLED: u32 = 1 << 31;

    /// The owner of an entry with this charge.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: u32, charge: Charge) -> Self {
        Self(match charge {
            Charge::Own => slot,
            Charge::Pool => slot | Self::POOLED,
        })
    }

    /// The model's slot.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 & !Self::POOLED
    }

    /// Where the entry is charged.
    #[inline(always)]
    #[must_use]
    pub const fn charge(self) -> Charge {
        if self.0 & Self::POOLED == 0 { Charge::Own } else { Charge::Pool }
    }
}

/// How a map is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sharing {
    /// Number of entries reserved for each model.
    pub own: u32,
    /// Number of entries of the pool on a host with few CPUs.
    pub pool: u32,
    /// Number of entries of the pool per CPU, if that is more.
    pub pool_per_cpu: u32,
}

impl Sharing {
    /// More CPUs than this do not make the pool larger.
    const MOST_CPUS: u32 = 512;

    /// Number of entries of the pool on a host with this many CPUs.
    #[must_use]
    pub const fn pool(&self, cpus: u32) -> u32 {
        let cpus = if cpus < Self::MOST_CPUS { cpus } else { Self::MOST_CPUS };
        let pool = self.pool_per_cpu * cpus;
        if pool > self.pool { pool } else { self.pool }
    }

    /// Number of entries of the map for this many slots and CPUs.
    #[must_use]
    pub const fn entries(&self, slots: u32, cpus: u32) -> u32 {
        self.own * slots + self.pool(cpus) + SPARE
    }
}

/// Processes of models (`TASKS`).
pub const PROCESSES: Sharing = Sharing { own: 64, pool: 4096, pool_per_cpu: 64 };

/// Threads of models (`UNSEATED`, which has room for all of them in case they share seats). A vLLM server has some
/// hundreds; libraries start one per CPU and process.
pub const THREADS: Sharing = Sharing { own: 128, pool: 12288, pool_per_cpu: 256 };

/// Processes that read requests (`READERS`), one entry per model whose requests they read.
pub const READERS: Sharing = Sharing { own: 16, pool: 1024, pool_per_cpu: 16 };

/// Errors of system calls (`CALL_ERRORS`), by call and number. About ten per model occur; they are kept until the agent
/// exits.
pub const FAILURES: Sharing = Sharing { own: 32, pool: 4096, pool_per_cpu: 0 };

const _: () = assert!(size_of::<Held>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    /// A map's account, as both sides keep it.
    struct Account {
        held: std::vec::Vec<(u64, u64)>,
        free: u64,
    }

    impl Account {
        fn take(&mut self, slot: usize) -> bool {
            let (own, pooled) = &mut self.held[slot];
            match charge(4, *own, *pooled, self.free) {
                Some(Charge::Own) => *own += 1,
                Some(Charge::Pool) => (*pooled, self.free) = (*pooled + 1, self.free - 1),
                None => return false,
            }
            true
        }
    }

    #[test]
    fn a_model_gets_its_share_whatever_the_others_take() {
        let mut account = Account { held: std::vec![(0, 0); 5], free: 64 };
        let most = |account: &mut Account, slot| (0..1000).filter(|_| account.take(slot)).count();
        assert_eq!(most(&mut account, 0), 4 + 32, "its own and half of the pool");
        assert_eq!(most(&mut account, 1), 4 + 16, "half of the rest");
        for slot in 2..5 {
            assert!(most(&mut account, slot) >= 4, "{slot}");
        }
        let held: u64 = account.held.iter().map(|(own, pooled)| own + pooled).sum();
        assert!(held <= 4 * 5 + 64);
    }

    #[test]
    fn a_pool_that_was_overdrawn_gives_nothing() {
        assert_eq!(charge(4, 4, 0, u64::MAX), None, "one too many");
        assert_eq!(charge(4, 3, 9, 0), Some(Charge::Own));
    }

    #[test]
    fn an_owner_keeps_slot_and_charge() {
        for slot in [0, 132, (1 << 31) - 1] {
            for charge in [Charge::Own, Charge::Pool] {
                let owner = Owner::new(slot, charge);
                assert_eq!((owner.slot(), owner.charge()), (slot, charge));
            }
        }
    }

    #[test]
    fn pools_grow_with_the_host() {
        assert_eq!(THREADS.pool(2), 12288);
        assert_eq!(THREADS.pool(256), 65536);
        assert_eq!(THREADS.pool(100_000), THREADS.pool(512));
        assert_eq!(PROCESSES.entries(133, 2), 64 * 133 + 4096 + SPARE);
    }
}
