//! Tasks, as tracepoints hand them over.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::mark;
use citadel_agent_common::shares::Owner;

use crate::shares::Shares;

/// A `struct task_struct` of a tracepoint's arguments, which the verifier lets a program read like memory of its own.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    /// The member at `offset`, a constant that userspace took from the running kernel's BTF.
    ///
    /// # Safety
    /// The pointer is a trusted argument of a BTF tracepoint, and a member of this size lies at the offset.
    #[inline(always)]
    #[must_use]
    pub unsafe fn field<T: Copy>(self, offset: &'static u32) -> T {
        // SAFETY: as the caller promises.
        unsafe { member(self.0, offset) }
    }
}

/// The member of a kernel's struct at `offset`, a constant that userspace took from the running kernel's BTF.
///
/// # Safety
/// The pointer is one that the verifier knows the kernel's type of, and a member of that, of this size, lies at the offset.
#[inline(always)]
#[must_use]
pub unsafe fn member<T: Copy>(of: *const c_void, offset: &'static u32) -> T {
    // SAFETY: the offset is in read-only data; as the caller promises.
    unsafe {
        let offset = (&raw const *offset).read_volatile();
        of.byte_add(offset as usize).cast::<T>().read_volatile()
    }
}

/// Which processes are models'.
pub struct Models {
    /// Process -> slot.
    pub tasks: &'static HashMap<u32, Owner>,
    /// What models hold of it.
    pub shares: Shares,
    /// [`mark`] of a process -> not 0 if it, or another one that shares the mark, has ever been a model's; and another number
    /// since a slot in `tasks` was changed or taken back.
    pub marks: &'static Array<u32>,
}

impl Models {
    /// The mark of a process that can be a model's. A look-up in an array, which is some instructions in place: most processes of
    /// a host are no model's, and should not pay for the calls and the hash of a look-up in `tasks`.
    #[inline(always)]
    #[must_use]
    pub fn mark(&self, process: u32) -> Option<u32> {
        self.marks.get(mark(process)).copied().filter(|&marked| marked != 0)
    }

    /// The slot of a process, if it is a model's.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, process: u32) -> Option<u32> {
        self.mark(process)?;
        // SAFETY: a valid map and key.
        unsafe { self.tasks.get(process) }.map(|owner| owner.slot())
    }

    /// A process forks: a model's new process is the model's from its first moment, and a process that has taken the number of
    /// one that is gone is not. Where the model's share is full, the process is not followed, and counted.
    ///
    /// # Safety
    /// The tasks are the arguments of `sched_process_fork`, the offsets those of `pid` and `tgid` in `struct task_struct`.
    #[inline(always)]
    pub unsafe fn fork(&self, parent: Task, child: Task, pid: &'static u32, tgid: &'static u32) {
        // SAFETY: as the caller promises.
        let (of, process, thread) = unsafe { (parent.field(tgid), child.field(tgid), child.field(pid)) };
        if process != thread {
            return;
        }
        // Its number may be that of one that has just gone.
        self.forget(process);
        if let Some(slot) = self.slot(of) {
            if let Some(marked) = self.marks.get_ptr_mut(mark(process)) {
                // SAFETY: a map value. Userspace writes only numbers other than 0, so whoever is later is right.
                unsafe {
                    if marked.read_volatile() == 0 {
                        marked.write_volatile(1);
                    }
                }
            }
            let Some(owner) = self.shares.take(slot) else { return };
            if self.tasks.insert(process, owner, u64::from(BPF_NOEXIST)).is_err() {
                self.shares.fail(owner);
            }
        }
    }

    /// A task is gone for good. With a process's first thread, which is the last to go, the process is.
    ///
    /// # Safety
    /// The task is the argument of `sched_process_free`, the offsets those of `pid` and `tgid` in `struct task_struct`.
    #[inline(always)]
    pub unsafe fn free(&self, task: Task, pid: &'static u32, tgid: &'static u32) {
        // SAFETY: as the caller promises.
        let (process, thread) = unsafe { (task.field(tgid), task.field::<u32>(pid)) };
        if process == thread {
            self.forget(process);
        }
    }

    #[inline(always)]
    fn forget(&self, process: u32) {
        if self.mark(process).is_none() {
            return;
        }
        // SAFETY: a valid map and key.
        let owner = unsafe { self.tasks.get(process) }.copied();
        if let Some(owner) = owner
            && self.tasks.remove(process).is_ok()
        {
            self.shares.give(owner);
        }
    }
}
