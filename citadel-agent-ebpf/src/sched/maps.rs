//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi;
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::{Held, Owner, PROCESSES};
use citadel_agent_ebpf::shares::Shares;
use citadel_agent_ebpf::task::Models;
use citadel_agent_ebpf::threads::Entry;

/// A thread of a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// Since when it waits for a CPU; 0 if it does not.
    pub(crate) runnable_ns: u64,
    /// How long it had had a CPU when it last lost one, or was first seen as the model's.
    pub(crate) on_cpu_ns: u64,
    /// Its model.
    pub(crate) owner: Owner,
    /// The mark of its process when the slot was looked up: as long as it is the same, so is the slot.
    pub(crate) mark: u32,
    /// Its own number; 0 in a seat that is free.
    pub(crate) tid: u32,
    pub(crate) _reserved: u32,
}

// No padding, which the verifier would take for uninitialised memory: the sum of the fields.
const _: () = assert!(size_of::<Thread>() == 2 * size_of::<u64>() + 4 * size_of::<u32>());

impl Thread {
    /// One that is seen for the first time. Whose it is is entered as it is kept.
    pub(crate) const fn new(mark: u32, tid: u32, on_cpu_ns: u64) -> Self {
        Self { runnable_ns: 0, on_cpu_ns, owner: Owner(0), mark, tid, _reserved: 0 }
    }
}

impl Entry for Thread {
    const NONE: Self = Self::new(0, 0, 0);

    #[inline(always)]
    fn tid(&self) -> u32 {
        self.tid
    }

    #[inline(always)]
    fn owner(&mut self) -> &mut Owner {
        &mut self.owner
    }
}

/// Process -> slot of its model. Userspace writes it from what discovery found, each fork adds to it, and the end of a process
/// takes it out. Sized and shared out as `shares::PROCESSES` says: beyond its share, a model's new processes are not followed,
/// and counted.
#[map]
pub(crate) static TASKS: HashMap<u32, Owner> = HashMap::with_max_entries(1, 0);

/// What models hold of `TASKS`.
#[map]
static PROCESSES_HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `abi::mark` of a process -> not 0 if it may be in `TASKS`. Set before the process is there, never taken back: so it may tell
/// of too many in the long run, never of too few. Userspace counts it up after it has changed or taken back an entry.
#[map]
pub(crate) static MARKS: Array<u32> = Array::with_max_entries(abi::MARKS, 0);

/// All of these.
pub(crate) const MODELS: Models =
    Models { tasks: &TASKS, shares: Shares { held: &PROCESSES_HELD, own: PROCESSES.own }, marks: &MARKS };

// Thread -> what is known of it, until it dies. Preallocated: programs run under the run queue's lock.
citadel_agent_ebpf::threads!(Thread);

/// Slot -> time that threads waited for a CPU. Userspace sets the size to the number of slots before it loads.
#[map]
pub(crate) static RUN_QUEUE: Array<Histogram> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot -> nanoseconds on a CPU, to the last time that each thread left one. Sized like `RUN_QUEUE`.
#[map]
pub(crate) static ON_CPU: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
