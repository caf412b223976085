//! The probe families and their programs. Pure.

use std::fmt;

use serde::Serialize;

use crate::config::resolved::Ebpf;

/// A probe family: programs that are loaded, attached and reported together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Requests, tokens and TCP.
    Net,
    /// Time of requests in the receive queue.
    Recvq,
    /// Age of the requests in flight.
    InFlight,
    /// Run queue latency and on-CPU time of threads.
    Sched,
    /// Duration and errors of system calls.
    Syscalls,
}

impl Family {
    /// All families, dependencies first.
    pub const ALL: [Self; 5] = [Self::Net, Self::Recvq, Self::InFlight, Self::Sched, Self::Syscalls];

    /// Name in `/status`, metrics and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Recvq => "recvq",
            Self::InFlight => "in_flight",
            Self::Sched => "sched",
            Self::Syscalls => "syscalls",
        }
    }

    /// Its programs, in the order in which they are attached.
    #[must_use]
    pub const fn programs(self) -> &'static [Program] {
        match self {
            // Connections first: one that opens while the others are being attached is known from its handshake.
            Self::Net => &[
                Program { name: "net_sockops", hook: Hook::SockOps },
                Program { name: "net_egress", hook: Hook::CgroupEgress },
                Program { name: "net_tokens", hook: Hook::TailCall },
                Program { name: "net_early", hook: Hook::TailCall },
                Program { name: "net_ingress", hook: Hook::CgroupIngress },
            ],
            Self::Recvq => &[Program { name: "recvq_read", hook: Hook::Tracepoint("tcp_rcv_space_adjust") }],
            Self::InFlight => &[Program { name: "in_flight_list", hook: Hook::Iterator("bpf_sk_storage_map") }],
            // Forks first: no child of a followed process is missed.
            Self::Sched => &[
                Program { name: "sched_process_fork", hook: Hook::Tracepoint("sched_process_fork") },
                Program { name: "sched_process_free", hook: Hook::Tracepoint("sched_process_free") },
                Program { name: "sched_process_exec", hook: Hook::Tracepoint("sched_process_exec") },
                Program { name: "sched_wakeup", hook: Hook::Tracepoint("sched_wakeup") },
                Program { name: "sched_wakeup_new", hook: Hook::Tracepoint("sched_wakeup_new") },
                Program { name: "sched_switch", hook: Hook::Tracepoint("sched_switch") },
            ],
            // Programs that end a call or a thread before those that start one: no start is left behind.
            Self::Syscalls => &[
                Program { name: "syscalls_fork", hook: Hook::Tracepoint("sched_process_fork") },
                Program { name: "syscalls_free", hook: Hook::Tracepoint("sched_process_free") },
                Program { name: "syscalls_exec", hook: Hook::Tracepoint("sched_process_exec") },
                Program { name: "syscalls_exit", hook: Hook::Tracepoint("sched_process_exit") },
                Program { name: "syscalls_leave", hook: Hook::SystemCall(Moment::End) },
                Program { name: "syscalls_enter", hook: Hook::SystemCall(Moment::Begin) },
            ],
        }
    }

    /// Whether it is enabled in the configuration.
    pub(super) const fn is_wanted(self, config: &Ebpf) -> bool {
        match self {
            // Costs nothing while nobody reads it, so it has no switch of its own.
            Self::Net | Self::InFlight => config.net,
            Self::Recvq => config.recvq,
            Self::Sched => config.sched,
            Self::Syscalls => config.syscalls,
        }
    }

    /// Whether two configurations are the same for it.
    pub(super) fn is_configured_alike(self, old: &Ebpf, new: &Ebpf) -> bool {
        let alike = self.is_wanted(old) == self.is_wanted(new);
        match self {
            // The number of connections can be changed while the programs run.
            Self::Net => alike && old.cgroup == new.cgroup,
            Self::Recvq | Self::InFlight | Self::Sched => alike,
            Self::Syscalls => alike && old.calls == new.calls && old.call_form == new.call_form,
        }
    }
}

/// An eBPF program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its hook.
    pub hook: Hook,
}

/// The hook of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Incoming segments.
    CgroupIngress,
    /// Outgoing segments.
    CgroupEgress,
    /// Connections that open and close.
    SockOps,
    /// Called from another program.
    TailCall,
    /// A BTF tracepoint.
    Tracepoint(&'static str),
    /// A BPF iterator over objects of this kind: runs when userspace reads it.
    Iterator(&'static str),
    /// System calls, in either [`Form`].
    SystemCall(Moment),
}

/// Start or end of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The start.
    Begin,
    /// The end.
    End,
}

/// How system calls are observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A pair of programs at each measured call's own function: other calls cost nothing.
    Fentry,
    /// Two programs at the start and end of all system calls of the host, as typed raw tracepoints.
    RawTp,
}

impl Form {
    /// Name in `/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::RawTp => "raw_tp",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CgroupIngress => write!(f, "cgroup_skb/ingress"),
            Self::CgroupEgress => write!(f, "cgroup_skb/egress"),
            Self::SockOps => write!(f, "sock_ops"),
            Self::TailCall => write!(f, "tail call"),
            Self::Tracepoint(name) => write!(f, "tp_btf/{name}"),
            Self::Iterator(name) => write!(f, "iter/{name}"),
            Self::SystemCall(Moment::Begin) => write!(f, "entry of all system calls"),
            Self::SystemCall(Moment::End) => write!(f, "exit of all system calls"),
        }
    }
}
