//! Tasks passed by tracepoints.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::mark;
use citadel_agent_common::shares::Owner;

use crate::shares::Shares;

/// A `struct task_struct` from a tracepoint's arguments, which the verifier allows a program to read like its own
/// memory.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    /// The field at `offset`, a constant that userspace took from the running kernel's BTF.
    ///
    /// # Safety
    /// The pointer must be a trusted argument of a BTF tracepoint, with a field of this size at the offset.
    #[inline(always)]
    #[must_use]
    pub unsafe fn field<T: Copy>(self, offset: &'static u32) -> T {
        // SAFETY: guaranteed by the caller.
        unsafe { member(self.0, offset) }
    }
}

/// The field of a kernel struct at `offset`, a constant that userspace took from the running kernel's BTF.
///
/// # Safety
/// The verifier must know the pointer's type in the kernel, and it must have a field of this size at the offset.
#[inline(always)]
#[must_use]
pub unsafe fn member<T: Copy>(of: *const c_void, offset: &'static u32) -> T {
    // SAFETY: the offset is in read-only data; the rest is guaranteed by the caller.
    unsafe {
        let offset = (&raw const *offset).read_volatile();
        of.byte_add(offset as usize).cast::<T>().read_volatile()
    }
}

/// The processes that belong to models.
pub struct Models {
    /// Process -> slot.
    pub tasks: &'static HashMap<u32, Owner>,
    /// Usage of it by model.
    pub shares: Shares,
    /// [`mark`] of a process -> not 0 if it, or another one with the same mark, has ever belonged to a model; changes
    /// when a slot in `tasks` is changed or removed.
    pub marks: &'static Array<u32>,
}

impl Models {
    /// The mark of a process that may belong to a model. An array look-up, inlined to a few instructions: most
    /// processes of a host belong to no model, and should not pay for the calls and the hash of a look-up in `tasks`.
    #[inline(always)]
    #[must_use]
    pub fn mark(&self, process: u32) -> Option<u32> {
        self.marks.get(mark(process)).copied().filter(|&marked| marked != 0)
    }

    /// The slot of a process, if it belongs to a model.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, process: u32) -> Option<u32> {
        self.mark(process)?;
        // SAFETY: a valid map and key.
        unsafe { self.tasks.get(process) }.map(|owner| owner.slot())
    }

    /// A process forks: a new process of a model belongs to the model from the start, and a process that reuses the PID
    /// of an exited one does not. If the model's share is full, the process is not followed, and counted.
    ///
    /// # Safety
    /// The tasks must be the arguments of `sched_process_fork`, the offsets those of `pid` and `tgid` in `struct
    /// task_struct`.
    #[inline(always)]
    pub unsafe fn fork(&self, parent: Task, child: Task, pid: &'static u32, tgid: &'static u32) {
        // SAFETY: guaranteed by the caller.
        let (of, process, thread) = unsafe { (parent.field(tgid), child.field(tgid), child.field(pid)) };
        if process != thread {
            return;
        }
        // Its PID may be that of one that has just exited.
        self.remove(process);
        if let Some(slot) = self.slot(of) {
            if let Some(marked) = self.marks.get_ptr_mut(mark(process)) {
                // SAFETY: a map value. Userspace only writes numbers other than 0, so the last writer is right.
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

    /// A task is freed. A process ends with its first thread, which is freed last.
    ///
    /// # Safety
    /// The task must be the argument of `sched_process_free`, the offsets those of `pid` and `tgid` in `struct
    /// task_struct`.
    #[inline(always)]
    pub unsafe fn free(&self, task: Task, pid: &'static u32, tgid: &'static u32) {
        // SAFETY: guaranteed by the caller.
        let (process, thread) = unsafe { (task.field(tgid), task.field::<u32>(pid)) };
        if process == thread {
            self.remove(process);
        }
    }

    #[inline(always)]
    fn remove(&self, process: u32) {
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
