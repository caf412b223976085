//! Links: programs stay attached as long as a descriptor of their link is open. aya does not give the descriptors away, and creates
//! links of iterators without the map that they need.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd` in `<linux/bpf.h>`.
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;

/// `enum bpf_attach_type`.
pub(super) const CGROUP_INGRESS: u32 = 0;
pub(super) const CGROUP_EGRESS: u32 = 1;
pub(super) const CGROUP_SOCK_OPS: u32 = 3;
const TRACE_ITER: u32 = 28;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` uses.
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    _reserved: u32,
}

/// The part that `BPF_RAW_TRACEPOINT_OPEN` uses.
#[repr(C)]
struct Tracepoint {
    name: u64,
    program: u32,
    _reserved: u32,
}

/// The part that `BPF_ITER_CREATE` uses.
#[repr(C)]
struct Iteration {
    link: u32,
    flags: u32,
}

/// Attaches a program to a cgroup (since 5.7), beside those that are attached there.
pub(super) fn to_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    bpf(LINK_CREATE, &Link { program: number(program), target: number(cgroup), attach_type, ..Link::default() })
}

/// Attaches a program to the BTF tracepoint or function that it was loaded for.
pub(super) fn to_tracing_point(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(RAW_TRACEPOINT_OPEN, &Tracepoint { name: 0, program: number(program), _reserved: 0 })
}

/// Links an iterator to the map whose elements it visits.
pub(super) fn to_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`.
    let map = number(map);
    let (info, info_len) = ((&raw const map) as u64, size_of_val(&map) as u32);
    bpf(LINK_CREATE, &Link { program: number(program), attach_type: TRACE_ITER, info, info_len, ..Link::default() })
}

/// Starts an iteration: reading the result runs the program.
pub(super) fn iterate(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(ITER_CREATE, &Iteration { link: number(link), flags: 0 })
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// A command that creates a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes have the length that is passed; what they point to lives as long as they do.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_no_program_cannot_be_linked() {
        let file = File::open("/dev/null").unwrap();
        let fd = file.as_fd();
        assert!(to_map(fd, fd).is_err() && to_cgroup(fd, fd, CGROUP_EGRESS).is_err() && to_tracing_point(fd).is_err());
    }
}
