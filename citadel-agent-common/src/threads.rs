//! What the `sched` and `syscalls` programs store of each thread of a model.

use crate::shares::Owner;

/// What both kinds of entries have.
pub trait Thread: Copy + 'static {
    /// An empty entry.
    const NONE: Self;

    /// The TID; 0: no thread.
    fn tid(&self) -> u32;

    /// The model that it is charged to.
    fn owner(&mut self) -> &mut Owner;
}

/// A thread's scheduling: entry of the `sched` family.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct SchedThread {
    /// Since when it has been waiting for a CPU; 0 if it is not.
    pub runnable_ns: u64,
    /// On-CPU time when it last left a CPU, or was first attributed to the model.
    pub on_cpu_ns: u64,
    /// Its model.
    pub owner: Owner,
    /// The mark of its process when the slot was looked up: while it is unchanged, so is the slot.
    pub mark: u32,
    /// Its TID; 0 in a free seat.
    pub tid: u32,
    _reserved: u32,
}

impl SchedThread {
    /// A new entry. The owner is set when it is stored.
    #[inline(always)]
    #[must_use]
    pub const fn new(mark: u32, tid: u32, on_cpu_ns: u64) -> Self {
        Self { runnable_ns: 0, on_cpu_ns, owner: Owner(0), mark, tid, _reserved: 0 }
    }
}

impl Thread for SchedThread {
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

/// A thread's system call: entry of the `syscalls` family. Only the thread itself changes it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct SyscallThread {
    /// Start of the measured call that it is in; 0 if it is in none.
    pub since_ns: u64,
    /// Its model at that time.
    pub owner: Owner,
    /// The mark of its process when the slot was looked up: while it is unchanged, so is the slot.
    pub mark: u32,
    /// The call, a [`crate::calls::CallIndex`].
    pub call: u32,
    /// Its TID; 0 in a free seat.
    pub tid: u32,
}

impl Thread for SyscallThread {
    const NONE: Self = Self { since_ns: 0, owner: Owner(0), mark: 0, call: 0, tid: 0 };

    #[inline(always)]
    fn tid(&self) -> u32 {
        self.tid
    }

    #[inline(always)]
    fn owner(&mut self) -> &mut Owner {
        &mut self.owner
    }
}
