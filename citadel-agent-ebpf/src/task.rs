//! Tasks, as tracepoints hand them over.

use core::ffi::c_void;

use aya_ebpf::maps::{Array, HashMap};
use citadel_agent_common::abi::mark;

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
    pub tasks: &'static HashMap<u32, u32>,
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
        unsafe { self.tasks.get(process) }.copied()
    }

    /// A process forks: a model's new process is the model's from its first moment, and a process that has taken the number of
    /// one that is gone is not. False when `tasks` is full.
    ///
    /// # Safety
    /// The tasks are the arguments of `sched_process_fork`, the offsets those of `pid` and `tgid` in `struct task_struct`.
    #[inline(always)]
    #[must_use]
    pub unsafe fn fork(&self, parent: Task, child: Task, pid: &'static u32, tgid: &'static u32) -> bool {
        // SAFETY: as the caller promises.
        let (of, process, thread) = unsafe { (parent.field(tgid), child.field(tgid), child.field(pid)) };
        if process != thread {
            return true;
        }
        if let Some(slot) = self.slot(of) {
            if let Some(marked) = self.marks.get_ptr_mut(mark(process)) {
                // SAFETY: a map value. Userspace writes only numbers other than 0, so whoever is later is right.
                unsafe {
                    if marked.read_volatile() == 0 {
                        marked.write_volatile(1);
                    }
                }
            }
            return self.tasks.insert(process, slot, 0).is_ok();
        }
        if self.mark(process).is_some() {
            _ = self.tasks.remove(process);
        }
        true
    }
}
