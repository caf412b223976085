//! A pair of cgroup_skb programs that only return: the lower bound of the cost of any probe at these hooks.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::stats::Runs;

// From <linux/bpf.h>.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
const BPF_CGROUP_INET_INGRESS: u32 = 0;
const BPF_CGROUP_INET_EGRESS: u32 = 1;

/// `r0 = 1` (BPF_ALU64 | BPF_MOV | BPF_K) and `exit` (BPF_JMP | BPF_EXIT), as little-endian `struct bpf_insn`.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The attached pair; detached on drop.
pub(super) struct EmptyPair {
    ingress: (OwnedFd, OwnedFd),
    egress: (OwnedFd, OwnedFd),
}

impl EmptyPair {
    /// Attaches the pair at the root of the cgroup2 mount, next to whatever is attached there.
    pub(super) fn attach() -> Result<Self> {
        let root = cgroup_root()?;
        let cgroup = File::open(&root).with_context(|| format!("cannot open {}", root.display()))?;
        let one = |attach_type| -> Result<(OwnedFd, OwnedFd)> {
            let program = bpf(
                BPF_PROG_LOAD,
                &Load {
                    prog_type: BPF_PROG_TYPE_CGROUP_SKB,
                    insn_cnt: PASS.len() as u32,
                    insns: PASS.as_ptr() as u64,
                    license: c"GPL".as_ptr() as u64,
                    expected_attach_type: attach_type,
                    ..Load::default()
                },
            )
            .context("the kernel refused the empty program")?;
            let link = Link {
                prog_fd: program.as_raw_fd() as u32,
                target_fd: cgroup.as_raw_fd() as u32,
                attach_type,
                flags: 0,
            };
            let link = bpf(BPF_LINK_CREATE, &link).context("the kernel refused to attach the empty program")?;
            Ok((program, link))
        };
        Ok(Self { ingress: one(BPF_CGROUP_INET_INGRESS)?, egress: one(BPF_CGROUP_INET_EGRESS)? })
    }

    /// Runs and run time of ingress and egress since BPF statistics were switched on.
    pub(super) fn runs(&self) -> Result<[Runs; 2]> {
        let runs = |program: &OwnedFd| {
            let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            Runs::parse(&text).with_context(|| format!("no run statistics in {path}"))
        };
        Ok([runs(&self.ingress.0)?, runs(&self.egress.0)?])
    }
}

/// The `bpf` system call; both commands return a new file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are a prefix of `union bpf_attr` of the size passed, and everything they point to outlives
    // the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this file descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Where cgroup2 is mounted.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let root = mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    });
    root.map(PathBuf::from).context("cgroup2 is not mounted")
}
