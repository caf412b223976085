//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi;
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::{FAILURES, Held, Owner, PROCESSES};
use citadel_agent_ebpf::shares::Shares;
use citadel_agent_ebpf::task::Models;
use citadel_agent_ebpf::threads::Entry;

/// A thread of a model. Only the thread itself changes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// Since when it is in a measured call; 0 if it is in none.
    pub(crate) since_ns: u64,
    /// Whose it was then.
    pub(crate) owner: Owner,
    /// The mark of its process when the slot was looked up: as long as it is the same, so is the slot.
    pub(crate) mark: u32,
    /// Which call, by its place.
    pub(crate) place: u32,
    /// Its own number; 0 in a seat that is free.
    pub(crate) tid: u32,
}

// No padding, which the verifier would take for uninitialised memory: the sum of the fields.
const _: () = assert!(size_of::<Thread>() == size_of::<u64>() + 4 * size_of::<u32>());

impl Entry for Thread {
    const NONE: Self = Self { since_ns: 0, owner: Owner(0), mark: 0, place: 0, tid: 0 };

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

// Thread -> the call that it is in, until it ends: kept between calls, because changing an entry costs a third of making and
// removing one.
citadel_agent_ebpf::threads!(Thread);

/// Slot and call -> how long the calls took. Userspace sets the size before it loads: slots times `STRIDE`.
#[map]
pub(crate) static CALL_TIMES: Array<Histogram> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `Failure::key` -> how often. Sized and shared out as `shares::FAILURES` says: a process may make calls fail with any number
/// (seccomp). Beyond its share, a model's further kinds of failures are not counted, and that is.
#[map]
pub(crate) static CALL_ERRORS: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);

/// What models hold of `CALL_ERRORS`. Nothing is given back: counters do not go away.
#[map]
static FAILURES_HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Likewise.
pub(crate) const KINDS_OF_FAILURES: Shares = Shares { held: &FAILURES_HELD, own: FAILURES.own };
