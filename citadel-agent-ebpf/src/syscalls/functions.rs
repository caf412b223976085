//! The form that costs other calls nothing: a pair of programs at each call's own function, `__x64_sys_NAME(regs)`,
//! which only 64-bit programs reach. Userspace loads the pairs of the measured calls.

use core::ffi::c_void;

use aya_ebpf::programs::FExitContext;
use citadel_agent_common::system_calls;

use super::{Running, enter, index, leave};

/// Generates a module per call, with `enter_NAME` and `leave_NAME`.
macro_rules! pairs {
    ($($name:ident $number:literal $nature:ident $default:ident,)*) => {
        $(mod $name {
            #[unsafe(export_name = concat!("enter_", stringify!($name)))]
            #[unsafe(link_section = "fentry")]
            extern "C" fn enter(_ctx: *mut super::c_void) -> i32 {
                super::entered($number)
            }

            #[unsafe(export_name = concat!("leave_", stringify!($name)))]
            #[unsafe(link_section = "fexit")]
            extern "C" fn leave(ctx: *mut super::c_void) -> i32 {
                super::left($number, ctx)
            }
        })*
    };
}
system_calls!(pairs);

#[inline(always)]
fn entered(number: u64) -> i32 {
    if let Some(thread) = Running::get() {
        enter(thread, index(number));
    }
    0
}

/// The context of fexit has the arguments, of which there is one, and then the return value.
#[inline(always)]
fn left(number: u64, ctx: *mut c_void) -> i32 {
    leave(index(number), FExitContext::new(ctx).arg(1));
    0
}
