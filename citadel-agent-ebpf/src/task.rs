//! Tasks, as tracepoints hand them over.

use core::ffi::c_void;

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
