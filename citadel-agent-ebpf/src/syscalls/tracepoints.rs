//! The form that every kernel supports: programs at the start and end of all system calls of all processes.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use citadel_agent_common::calls::UNMEASURED;

use super::{Running, enter, index, leave};

/// Offset of `orig_ax`, the call's number, in `struct pt_regs` (`arch/x86/include/asm/ptrace.h`: the order in which the
/// kernel saves registers, unchanged since 64-bit processors are supported).
const ORIG_AX: usize = 15 * 8;
/// Offset of `cs`, the code segment.
const CS: usize = 17 * 8;
/// `__USER32_CS` from `<asm/segment.h>`: the caller is a 32-bit program, whose calls have other numbers.
const USER32_CS: u16 = 0x23;

/// The registers at the start of a system call.
#[derive(Clone, Copy)]
struct Registers(*const c_void);

impl Registers {
    /// The call's number.
    #[inline(always)]
    fn number(self) -> u64 {
        // SAFETY: an argument of the tracepoint, and a field of it.
        unsafe { self.0.byte_add(ORIG_AX).cast::<u64>().read_volatile() }
    }

    /// Whether a 32-bit program made the call.
    #[inline(always)]
    fn is_32_bit(self) -> bool {
        // SAFETY: as above.
        unsafe { self.0.byte_add(CS).cast::<u16>().read_volatile() == USER32_CS }
    }
}

/// `sys_enter(regs, id)`: in `syscall_trace_enter`.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscalls_enter(ctx: BtfTracePointContext) -> i32 {
    let call = index(ctx.arg(1));
    if call != UNMEASURED
        && let Some(thread) = Running::get()
        && !Registers(ctx.arg(0)).is_32_bit()
    {
        enter(thread, call);
    }
    0
}

/// `sys_exit(regs, ret)`: in `syscall_exit_work`, before signals are handled.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscalls_leave(ctx: BtfTracePointContext) -> i32 {
    let call = index(Registers(ctx.arg(0)).number());
    if call != UNMEASURED {
        leave(call, ctx.arg(1));
    }
    0
}
