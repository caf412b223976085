//! Tasks, as tracepoints hand them over.

use core::ffi::c_void;

use aya_ebpf::maps::HashMap;

/// A `struct task_struct` of a tracepoint's arguments, which the verifier lets a program read like memory of its own.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    /// The four bytes at `offset`, a constant that userspace took from the running kernel's BTF.
    ///
    /// # Safety
    /// The pointer is a trusted argument of a BTF tracepoint, and a member of the task lies at the offset.
    #[inline(always)]
    #[must_use]
    pub unsafe fn field(self, offset: &'static u32) -> u32 {
        // SAFETY: the offset is in read-only data; as the caller promises.
        unsafe {
            let offset = (&raw const *offset).read_volatile();
            self.0.byte_add(offset as usize).cast::<u32>().read_volatile()
        }
    }
}

/// A process forks: a model's new process is the model's from its first moment, and a process that has taken the number of
/// one that is gone is not. False when `tasks` (process -> slot) is full.
///
/// # Safety
/// The tasks are the arguments of `sched_process_fork`, the offsets those of `pid` and `tgid` in `struct task_struct`.
#[inline(always)]
#[must_use]
pub unsafe fn fork(
    parent: Task,
    child: Task,
    pid: &'static u32,
    tgid: &'static u32,
    tasks: &HashMap<u32, u32>,
) -> bool {
    // SAFETY: as the caller promises.
    let (of, process, thread) = unsafe { (parent.field(tgid), child.field(tgid), child.field(pid)) };
    if process != thread {
        return true;
    }
    // SAFETY: a valid map and key.
    match unsafe { tasks.get(of) }.copied() {
        Some(slot) => tasks.insert(process, slot, 0).is_ok(),
        None => {
            _ = tasks.remove(process);
            true
        }
    }
}
