//! The system calls that can be measured, and what is counted.

use core::fmt;

/// Passes the table to a macro, one row per call: name, number on x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`),
/// whether the call by nature waits for others (`waits`) or does work (`works`), whether it is measured by default
/// (`on`, `off`). Expanded by the eBPF programs to a pair of programs per call, and by userspace to [`CALLS`].
///
/// The kernel function must be named `sys_NAME` (for `sendfile` it is `sys_sendfile64`, which therefore is missing
/// here).
#[macro_export]
macro_rules! system_calls {
    ($expand:ident) => {
        $expand! {
            read 0 works on,
            write 1 works on,
            poll 7 waits on,
            mmap 9 works on,
            munmap 11 works off,
            ioctl 16 works on,
            pread64 17 works off,
            pwrite64 18 works off,
            readv 19 works on,
            writev 20 works on,
            select 23 waits off,
            madvise 28 works off,
            connect 42 waits off,
            accept 43 waits off,
            sendto 44 works on,
            recvfrom 45 works on,
            sendmsg 46 works on,
            recvmsg 47 works on,
            fsync 74 works on,
            fdatasync 75 works off,
            futex 202 waits on,
            epoll_wait 232 waits on,
            openat 257 works on,
            ppoll 271 waits off,
            splice 275 works off,
            epoll_pwait 281 waits on,
            accept4 288 waits on,
            recvmmsg 299 works off,
            sendmmsg 307 works off,
            io_uring_enter 426 waits on,
            epoll_pwait2 441 waits on,
        }
    };
}

/// A system call that can be measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Call {
    /// Its name, as in the manual pages.
    pub name: &'static str,
    /// Its number on x86-64.
    pub number: u32,
    /// Whether by nature it waits for others: its time is idle time as much as a stall.
    pub waits: bool,
    /// Whether it is measured by default.
    pub is_default: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! table {
    ($($name:ident $number:literal $nature:ident $default:ident,)*) => {
        /// All of them, by number.
        pub const CALLS: &[Call] = &[$(Call {
            name: stringify!($name),
            number: $number,
            waits: table!(@$nature),
            is_default: table!(@$default),
        },)*];
    };
    (@waits) => { true };
    (@works) => { false };
    (@on) => { true };
    (@off) => { false };
}
system_calls!(table);

/// System call numbers are below this.
pub const NUMBERS: usize = 512;

/// The [`CallIndex`] of each call by its number: read-only data of the programs.
pub type CallIndices = [CallIndex; NUMBERS];

/// The index of a call among the measured ones, starting at 1, or [`UNMEASURED`].
pub type CallIndex = u8;

/// The [`CallIndex`] of a call that is not measured.
pub const UNMEASURED: CallIndex = 0;

/// Number of a slot's histograms in `CALL_TIMES` for `calls` measured calls: even, so that a slot's entries can be
/// mapped separately.
#[must_use]
pub const fn stride(calls: u32) -> u32 {
    calls.next_multiple_of(2)
}

/// Errors returned by a call are -4095 to -1 (`MAX_ERRNO` in `<linux/err.h>`), even if a successful result is an
/// address.
pub const MAX_ERRNO: u64 = 4095;

/// An error of a call of a model: key of `CALL_ERRORS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Failure {
    /// The model's slot.
    pub slot: u32,
    /// The call.
    pub call: CallIndex,
    /// The error number.
    pub errno: u16,
}

impl Failure {
    /// As a key of the map.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> u64 {
        (self.slot as u64) << 32 | (self.call as u64) << 16 | self.errno as u64
    }

    /// The inverse of [`Self::key`].
    #[must_use]
    pub const fn of_key(key: u64) -> Self {
        Self { slot: (key >> 32) as u32, call: (key >> 16) as u8, errno: key as u16 }
    }
}

const _: () = {
    let mut i = 0;
    while i < CALLS.len() {
        assert!((CALLS[i].number as usize) < NUMBERS);
        assert!(i == 0 || CALLS[i - 1].number < CALLS[i].number);
        i += 1;
    }
    assert!(CALLS.len() <= CallIndex::MAX as usize);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failures_key_tells_the_failure() {
        for (slot, call, errno) in [(0, 1, 1), (132, 31, 4095), (u32::MAX, u8::MAX, u16::MAX)] {
            let failure = Failure { slot, call, errno };
            assert_eq!(Failure::of_key(failure.key()), failure);
        }
    }

    #[test]
    fn a_slots_histograms_fill_pages() {
        for calls in 1..=CALLS.len() as u32 {
            let bytes = stride(calls) as usize * size_of::<crate::hist::Histogram>();
            assert!(stride(calls) >= calls && bytes.is_multiple_of(4096));
        }
    }
}
