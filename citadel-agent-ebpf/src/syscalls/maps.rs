//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi;
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::{FAILURES, Held, Owner, PROCESSES};
use citadel_agent_common::threads::SyscallThread;
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

// Thread -> its current call, until it exits: kept between calls, because changing an entry costs a third of creating
// and deleting one.
citadel_agent_ebpf::threads!(SyscallThread);

/// Slot and call -> duration of the calls. Userspace sets the size before loading: slots times `STRIDE`.
#[map]
pub(crate) static CALL_TIMES: Array<Histogram> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `Failure::key` -> number of errors. Sized and shared according to `shares::FAILURES`: a process can make calls fail
/// with any error number (seccomp). Further kinds of errors beyond a model's share are dropped, and that is counted.
#[map]
pub(crate) static CALL_ERRORS: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);

/// Usage of `CALL_ERRORS` by model. Nothing is ever returned: counters are not deleted.
#[map]
static FAILURES_HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The shares of `CALL_ERRORS`.
pub(crate) const KINDS_OF_FAILURES: Shares = Shares { held: &FAILURES_HELD, own: FAILURES.own };
