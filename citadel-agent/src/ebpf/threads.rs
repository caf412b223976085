//! The threads that a family's programs follow: the maps of the kernel programs' `threads.rs`, of which userspace only wants to
//! know how full they are.

use aya::maps::{HashMap, MapData};
use aya::{Ebpf, Pod};
use citadel_agent_common::abi::{MAX_THREADS, SEATS};

use super::error::ProbeError;
use super::object;

/// The maps; `T` is as long as what the programs keep of a thread.
pub(super) struct Threads<T> {
    /// The threads that have a seat, by seat.
    seated: HashMap<MapData, u32, u32>,
    /// The others.
    unseated: HashMap<MapData, u32, T>,
}

impl<T: Pod> Threads<T> {
    /// Those of `ebpf`.
    ///
    /// # Errors
    /// When the object has no such maps.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        Ok(Self { seated: object::hash(ebpf, "SEATS_TAKEN")?, unseated: object::hash(ebpf, "UNSEATED")? })
    }

    /// Entries in use and capacity, of both maps together.
    pub(super) fn fill(&self) -> (u64, u64) {
        let used = self.seated.keys().count() + self.unseated.keys().count();
        (used as u64, u64::from(SEATS + MAX_THREADS))
    }
}
