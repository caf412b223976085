//! `ebpf`: the kernel probes.

use std::path::PathBuf;

/// Which kernel probes run, and where.
#[derive(Clone, PartialEq, Debug)]
pub struct Ebpf {
    /// The `net` family: requests, tokens, TCP.
    pub net: bool,
    /// The `recvq` family: how long requests lie in the receive queue. Needs `net`.
    pub recvq: bool,
    /// The `sched` family: how long threads wait for a CPU, and have one.
    pub sched: bool,
    /// The cgroup v2 directory that programs attach to; `None`: the root of the mount that mountinfo names.
    pub cgroup: Option<PathBuf>,
}
