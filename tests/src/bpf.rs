//! What the kernel knows of BPF objects, by the `bpf` system call alone: no bpftool is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Pid;

/// Kinds of kernel objects that must not outlive the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A loaded program.
    Program,
    /// The attachment of a program to a hook.
    Link,
}

impl Kind {
    /// `BPF_PROG_GET_NEXT_ID` and `BPF_LINK_GET_NEXT_ID` of `enum bpf_cmd` in the kernel's `include/uapi/linux/bpf.h`.
    const fn next_id_command(self) -> libc::c_long {
        match self {
            Self::Program => 11,
            Self::Link => 31,
        }
    }

    /// The field of `/proc/PID/fdinfo/FD` that names the object behind a descriptor.
    const fn fdinfo_field(self) -> &'static str {
        match self {
            Self::Program => "prog_id:",
            Self::Link => "link_id:",
        }
    }
}

/// The arguments of the `*_GET_NEXT_ID` commands in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// All objects of a kind that the kernel has now.
///
/// # Panics
/// Without `CAP_SYS_ADMIN`, which the walk needs.
#[must_use]
pub fn all(kind: Kind) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut attr = NextId::default();
    loop {
        // SAFETY: the pointer and the size are those of `attr`, which the commands read and write.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, kind.next_id_command(), &raw mut attr, size_of::<NextId>()) };
        if result != 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "listing BPF objects needs root: {error}");
            return ids;
        }
        ids.insert(attr.next_id);
        attr.start_id = attr.next_id;
    }
}

/// The objects of a kind that a process holds open.
///
/// # Panics
/// If its descriptors cannot be listed: the process is gone, or another user's.
#[must_use]
pub fn held_by(pid: Pid, kind: Kind) -> BTreeSet<u32> {
    fdinfo_of(pid).flat_map(|info| ids_in(&info, kind)).collect()
}

fn fdinfo_of(pid: Pid) -> impl Iterator<Item = String> {
    let dir = format!("/proc/{}/fdinfo", pid.as_raw_nonzero());
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    // A descriptor can be closed while this looks at it.
    entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok())
}

/// Has the kernel time each run of each program until the descriptor is closed (`BPF_ENABLE_STATS`, Linux 5.8).
///
/// # Panics
/// Without `CAP_SYS_ADMIN`.
#[must_use]
pub fn time_runs() -> OwnedFd {
    const BPF_ENABLE_STATS: libc::c_long = 32;
    const BPF_STATS_RUN_TIME: u32 = 0;
    let attr = BPF_STATS_RUN_TIME;
    // SAFETY: the pointer and the size are those of `attr`, which is only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const attr, size_of_val(&attr)) };
    assert!(result >= 0, "timing BPF programs needs root: {}", io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just given to us alone.
    unsafe { OwnedFd::from_raw_fd(result.try_into().expect("a descriptor")) }
}

/// How often the cgroup_skb programs that a process holds have run while they were timed, and for how many nanoseconds.
///
/// # Panics
/// If its descriptors cannot be listed: the process is gone, or another user's.
#[must_use]
pub fn runs_held_by(pid: Pid) -> (u64, u64) {
    const BPF_PROG_TYPE_CGROUP_SKB: u64 = 8;
    let runs = |info: String| {
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let ours = field("prog_type:")? == BPF_PROG_TYPE_CGROUP_SKB;
        ours.then_some((field("prog_id:")?, (field("run_cnt:")?, field("run_time_ns:")?)))
    };
    // By the programs' numbers, since a program can be behind several descriptors.
    let programs: BTreeMap<u64, (u64, u64)> = fdinfo_of(pid).filter_map(runs).collect();
    programs.values().fold((0, 0), |sum, runs| (sum.0 + runs.0, sum.1 + runs.1))
}

fn ids_in(fdinfo: &str, kind: Kind) -> Vec<u32> {
    let fields = fdinfo.lines().filter_map(|line| line.strip_prefix(kind.fdinfo_field()));
    fields.filter_map(|value| value.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_fdinfo() {
        let info = "pos:\t0\nlink_type:\tcgroup\nlink_id:\t7\nprog_tag:\t1234\nprog_id:\t9\n";
        assert_eq!(ids_in(info, Kind::Link), [7]);
        assert_eq!(ids_in(info, Kind::Program), [9]);
    }

    #[test]
    fn what_this_process_holds_is_among_all() {
        let held = held_by(rustix::process::getpid(), Kind::Link);
        assert!(held.is_subset(&all(Kind::Link)));
    }
}
