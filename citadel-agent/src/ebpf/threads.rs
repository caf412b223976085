//! The threads that a family's programs follow (the kernel programs' `threads.rs`): userspace only wants to know how many.

use aya::Ebpf;
use citadel_agent_common::abi::{MAX_THREADS, SEATS};

use super::error::ProbeError;
use super::mapped::Mapped;
use super::object;

/// Their number, which the programs keep: to find it out here, all of two maps would have to be walked through.
pub(super) struct Threads(Mapped<u64>);

impl Threads {
    /// Those of `ebpf`.
    ///
    /// # Errors
    /// When the object has no such map, or the kernel does not map it.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, ProbeError> {
        Ok(Self(object::map_into_memory(ebpf, "FOLLOWED", 1)?))
    }

    /// Entries in use and capacity, of all maps together.
    pub(super) fn fill(&self) -> (u64, u64) {
        (self.0.first_word(0), u64::from(SEATS + MAX_THREADS))
    }
}
