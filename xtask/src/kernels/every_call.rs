//! Makes every system call that the agent can measure once, with arguments that make it fail: it has no effect, and the
//! error is the same on every kernel.

use std::io;

use citadel_agent_common::calls::{CALLS, Call};

/// An invalid file descriptor.
const NONE: i64 = -1;
/// An unaligned address.
const ODD: i64 = 1;
/// A page.
const PAGE: i64 = 4096;
/// More file descriptors than a process may have.
const TOO_MANY: i64 = i32::MAX as i64;
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;

/// The calls, their arguments, and the resulting error.
const FAILING: [(&str, [i64; 6], &str); 28] = [
    ("write", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    // Zero bytes.
    ("mmap", [0, 0, 0, PRIVATE, NONE, 0], "EINVAL"),
    ("munmap", [ODD, PAGE, 0, 0, 0, 0], "EINVAL"),
    ("ioctl", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("pread64", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("pwrite64", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("readv", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("writev", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    // A negative number of file descriptors.
    ("select", [NONE, 0, 0, 0, 0, 0], "EINVAL"),
    ("madvise", [ODD, PAGE, 0, 0, 0, 0], "EINVAL"),
    ("connect", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("accept", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("sendto", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("recvfrom", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("sendmsg", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("recvmsg", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("fsync", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("fdatasync", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("futex", [ODD, libc::FUTEX_WAIT as i64, 0, 0, 0, 0], "EINVAL"),
    ("epoll_wait", [NONE, 0, 1, 0, 0, 0], "EBADF"),
    ("ppoll", [0, TOO_MANY, 0, 0, 0, 0], "EINVAL"),
    // One byte: with zero, it succeeds.
    ("splice", [NONE, 0, NONE, 0, 1, 0], "EBADF"),
    ("epoll_pwait", [NONE, 0, 1, 0, 0, 0], "EBADF"),
    ("accept4", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("recvmmsg", [NONE, 0, 1, 0, 0, 0], "EBADF"),
    ("sendmmsg", [NONE, 0, 1, 0, 0, 0], "EBADF"),
    ("io_uring_enter", [NONE, 0, 0, 0, 0, 0], "EBADF"),
    ("epoll_pwait2", [NONE, 0, 1, 0, 0, 0], "EBADF"),
];

/// The calls of the catalogue that are made here, with their errors.
pub(super) fn failing() -> impl Iterator<Item = (&'static Call, &'static str)> {
    CALLS.iter().filter_map(|call| FAILING.iter().find(|row| row.0 == call.name).map(|row| (call, row.2)))
}

/// Names of all calls of the catalogue, as a YAML list.
pub(super) fn names() -> String {
    CALLS.iter().map(|call| call.name).collect::<Vec<_>>().join(", ")
}

/// Makes each call once; returns those that this kernel lacks.
///
/// # Errors
/// A call succeeds.
pub(super) fn make() -> io::Result<Vec<&'static str>> {
    let mut lacking = Vec::new();
    for (name, [a, b, c, d, e, f], _) in FAILING {
        let Some(call) = CALLS.iter().find(|call| call.name == name) else { continue };
        // SAFETY: with these arguments the kernel accesses no memory of ours and changes nothing.
        if unsafe { libc::syscall(i64::from(call.number), a, b, c, d, e, f) } >= 0 {
            return Err(io::Error::other(format!("{name} succeeded unexpectedly")));
        }
        if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            lacking.push(name);
        }
    }
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that are made in greater number by `calls`.
    const MADE_ELSEWHERE: [&str; 3] = ["read", "poll", "openat"];

    #[test]
    fn every_call_of_the_catalogue_is_made_somewhere() {
        for call in CALLS {
            let made = FAILING.iter().any(|row| row.0 == call.name) != MADE_ELSEWHERE.contains(&call.name);
            assert!(made, "{call} is made nowhere, or twice");
        }
        assert_eq!(FAILING.len() + MADE_ELSEWHERE.len(), CALLS.len());
    }

    #[test]
    fn each_fails_on_the_running_kernel_as_the_table_says() {
        for (name, [a, b, c, d, e, f], errno) in FAILING {
            let call = CALLS.iter().find(|call| call.name == name).unwrap();
            // SAFETY: as in `make`.
            let result = unsafe { libc::syscall(i64::from(call.number), a, b, c, d, e, f) };
            let error = io::Error::last_os_error().raw_os_error();
            let expected = if errno == "EBADF" { libc::EBADF } else { libc::EINVAL };
            assert_eq!((result, error), (-1, Some(expected)), "{name}");
        }
    }
}
