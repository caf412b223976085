//! `ebpf`: the kernel probes.

use std::path::PathBuf;

use citadel_agent_common::calls::{CALLS, Call};

/// Which kernel probes run, and where.
#[derive(Clone, PartialEq, Debug)]
pub struct Ebpf {
    /// The `net` family: requests, tokens, TCP.
    pub net: bool,
    /// The `recvq` family: how long requests lie in the receive queue. Needs `net`.
    pub recvq: bool,
    /// The `sched` family: how long threads wait for a CPU, and have one.
    pub sched: bool,
    /// The `syscalls` family: how long system calls take, and which fail.
    pub syscalls: bool,
    /// The system calls that it measures; at least one.
    pub calls: Vec<&'static Call>,
    /// How it sees them.
    pub call_form: CallForm,
    /// The cgroup v2 directory that programs attach to; `None`: the root of the mount that mountinfo names.
    pub cgroup: Option<PathBuf>,
}

/// How system calls are seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallForm {
    /// By fentry, and not at all where the kernel does not take it.
    Auto,
    /// Where all system calls of the host begin and end.
    RawTp,
}

impl CallForm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Auto, Self::RawTp];

    /// As in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::RawTp => "raw_tp",
        }
    }
}

impl Default for Ebpf {
    fn default() -> Self {
        let calls = CALLS.iter().filter(|call| call.is_default).collect();
        Self { net: true, recvq: true, sched: true, syscalls: true, calls, call_form: CallForm::Auto, cgroup: None }
    }
}
