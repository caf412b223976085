//! Run time of eBPF programs, while the kernel's BPF statistics are on (`kernel.bpf_stats_enabled`).

use std::io;
use std::ops::Add;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::family::Family;
use super::handles::Handles;

/// Runs of a program and the time spent in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunStats {
    /// Number of runs.
    pub runs: u64,
    /// Nanoseconds spent in all of them.
    pub nanoseconds: u64,
}

impl Add for RunStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { runs: self.runs + other.runs, nanoseconds: self.nanoseconds + other.nanoseconds }
    }
}

/// What `read` tells of each loaded program of a family.
pub(super) fn each<T>(
    handles: &Handles,
    family: Family,
    read: fn(BorrowedFd<'_>) -> Option<T>,
) -> impl Iterator<Item = (&'static str, T)> {
    family.programs().iter().filter_map(move |program| Some((program.name, read(handles.program(program.name)?)?)))
}

/// How many instructions the verifier followed until it accepted a program (since Linux 5.16): most of the time that loading
/// takes.
pub(super) fn verified(program: BorrowedFd<'_>) -> Option<u32> {
    info(program).ok().map(|info| info.verified).filter(|&verified| verified > 0)
}

/// The statistics of a loaded program (since Linux 5.1). `None` while there are none.
#[must_use]
pub fn read(program: BorrowedFd<'_>) -> Option<RunStats> {
    let Info { runs, nanoseconds, .. } = info(program).ok()?;
    (runs > 0).then_some(RunStats { runs, nanoseconds })
}

/// How often the kernel skipped a program because it was already running on that CPU (since Linux 5.12).
#[must_use]
pub fn missed(program: BorrowedFd<'_>) -> Option<u64> {
    Some(info(program).ok()?.missed)
}

/// The part of `struct bpf_prog_info` (`<linux/bpf.h>`) up to the last field that is used; aya does not provide that
/// one. A kernel with a shorter struct leaves the rest unchanged.
#[repr(C)]
#[derive(Default)]
struct Info {
    /// From `type` to `prog_tags`.
    before: [u64; 24],
    /// `run_time_ns`.
    nanoseconds: u64,
    /// `run_cnt`.
    runs: u64,
    /// `recursion_misses`.
    missed: u64,
    /// `verified_insns`.
    verified: u32,
    /// `attach_btf_obj_id`.
    _btf: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` uses.
#[repr(C)]
struct Ask {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd`.
const INFO_BY_FD: libc::c_long = 15;

/// Queries the kernel; much cheaper than formatting and parsing `/proc/PID/fdinfo`: a scrape queries up to a hundred
/// programs.
fn info(program: BorrowedFd<'_>) -> io::Result<Info> {
    let mut info = Info::default();
    let ask = Ask {
        descriptor: program.as_raw_fd().cast_unsigned(),
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes have the length that is passed, and point to an info struct of this length. Zeros in it
    // mean that nothing is written elsewhere.
    let result = unsafe { libc::syscall(libc::SYS_bpf, INFO_BY_FD, &raw const ask, size_of::<Ask>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_no_program_has_no_statistics() {
        let file = File::open("/dev/null").unwrap();
        let file = file.as_fd();
        assert_eq!((read(file), missed(file)), (None, None));
    }
}
