//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi;
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::{Held, Owner, PROCESSES};
use citadel_agent_common::threads::SchedThread;
use citadel_agent_ebpf::shares::Shares;
use citadel_agent_ebpf::task::Models;

/// Process -> slot of its model. Userspace writes it from discovery's results, each fork adds to it, and the end of a
/// process removes it. Sized and shared according to `shares::PROCESSES`: new processes beyond a model's share are not
/// followed, and counted.
#[map]
pub(crate) static TASKS: HashMap<u32, Owner> = HashMap::with_max_entries(1, 0);

/// Usage of `TASKS` by model.
#[map]
static PROCESSES_HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `abi::mark` of a process -> not 0 if it may be in `TASKS`. Set before the process is added, never reset: so it may
/// report too many in the long run, never too few. Userspace increments it after changing or removing an entry.
#[map]
pub(crate) static MARKS: Array<u32> = Array::with_max_entries(abi::MARKS, 0);

/// All of these maps.
pub(crate) const MODELS: Models =
    Models { tasks: &TASKS, shares: Shares { held: &PROCESSES_HELD, own: PROCESSES.own }, marks: &MARKS };

// Thread -> its entry, until it exits. Preallocated, because programs run under the run queue's lock.
citadel_agent_ebpf::threads!(SchedThread);

/// Slot -> time that threads waited for a CPU. Userspace sets the size to the number of slots before loading.
#[map]
pub(crate) static RUN_QUEUE: Array<Histogram> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot -> on-CPU nanoseconds, up to the last time that each thread left a CPU. Sized like `RUN_QUEUE`.
#[map]
pub(crate) static ON_CPU: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
