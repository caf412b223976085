//! Fields of kernel objects with which the verifier allows no arithmetic.

use core::arch::asm;

/// The four bytes at offset `AT` of an object such as `struct bpf_sock`. In assembly, because the compiler would compute an address
/// where it depends on a condition which of two fields is read, and the verifier refuses that.
///
/// # Safety
/// The verifier must know the object, and it must have a readable field at this offset.
#[inline(always)]
#[must_use]
pub unsafe fn word<const AT: usize, T>(object: *const T) -> u32 {
    let value: u64;
    // SAFETY: guaranteed by the caller.
    unsafe {
        asm!(
            "{value} = *(u32 *)({object} + {at})",
            value = out(reg) value,
            object = in(reg) object,
            at = const AT,
            options(nostack, readonly),
        );
    }
    value as u32
}
