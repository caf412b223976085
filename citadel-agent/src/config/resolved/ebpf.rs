//! `ebpf`: the kernel programs.

use std::path::PathBuf;

use citadel_agent_common::calls::{CALLS, Call};
use serde_json::{Value as Json, json};

use crate::config::kind::{ABSOLUTE_PATH, BOOLEAN, COUNT, Describe, Kind, List, Optional, Scalar, Words, Written};
use crate::config::mistakes::{Mistakes, nearest, quoted};
use crate::config::section::section;
use crate::config::tree::{Node, Value};
use crate::config::value::{self, expected};
use crate::config::yaml::Yaml;

section! {
    /// Which kernel programs to load, and where to attach them.
    pub struct Ebpf {
        /// Whether to load the `net` programs: requests, tokens, TCP.
        net: bool = true, BOOLEAN;
        /// Whether to load the `recvq` program: time that requests wait in the receive queue. Requires `net`.
        recvq: bool = true, BOOLEAN;
        /// Whether to load the `sched` programs: run queue latency and on-CPU time of the models' threads.
        sched: bool = true, BOOLEAN;
        /// Whether to load the `syscalls` programs: duration and errors of the models' system calls.
        syscalls: bool = true, BOOLEAN;
        /// System calls that `syscalls` measures. Also available: munmap, pread64, pwrite64, select, madvise, connect, accept, fdatasync,
        /// ppoll, splice, recvmmsg, sendmmsg.
        #[key = "syscall_names"]
        calls: Vec<&'static Call> = CALLS.iter().filter(|call| call.is_default).collect(), Calls;
        /// How `syscalls` hooks system calls. `auto` uses fentry, which adds no cost to calls that are not measured; if the kernel does
        /// not support it, the family is disabled. `raw_tp` works on all kernels but slows down every system call of the host (nginx
        /// keeps 0.89 of its throughput, including on ports of no model).
        #[key = "syscall_form"]
        call_form: CallForm = CallForm::Auto, Words(CallForm::WORDS);
        /// Maximum number of connections that `net` follows at a time. Each uses kernel memory that is charged to the agent. Other
        /// connections are counted as open and closed, but not followed; this is logged and counted as lost (`connections_full`).
        /// Absent: as many as fit into a quarter of the memory limit of the agent's cgroup, or 65,536 without a limit.
        max_connections: Option<u64> = None, Optional(COUNT);
        /// Whether `citadel-agent trace` shows the addresses of clients, to root and the group `citadel-agent` only. They are in no metric.
        /// `false`: they are not kept.
        client_addresses: bool = true, BOOLEAN;
        /// cgroup v2 directory to attach the programs to; absent: the root of the mounted hierarchy.
        cgroup: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
    }
}

/// How system calls are hooked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallForm {
    /// With fentry; disabled if the kernel does not support it.
    Auto,
    /// At the entry and exit of all system calls of the host.
    RawTp,
}

impl CallForm {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("raw_tp", Self::RawTp)];
}

/// The list of measured system calls; at least one.
struct Calls;

const CALL_LIST: List<Scalar<&'static Call>> = List { of: SYSTEM_CALL, what: "system calls", most: CALLS.len() };

impl Describe for Calls {
    fn text(&self) -> String {
        "list of system calls, at least one".to_owned()
    }

    fn schema(&self) -> Json {
        let mut schema = CALL_LIST.schema();
        schema["minItems"] = 1.into();
        schema
    }
}

impl Kind for Calls {
    type Value = Vec<&'static Call>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        match &written.node.value {
            Value::List(items) if items.is_empty() => {
                written.mistake("is empty; to measure none, set ebpf.syscalls to false", mistakes);
                None
            }
            Value::List(_) => CALL_LIST.read(written, mistakes),
            _ => written.convert(|node| Err(expected("a list of system calls", node)), mistakes),
        }
    }

    fn write(&self, calls: &Self::Value) -> Yaml {
        CALL_LIST.write(calls)
    }
}

const SYSTEM_CALL: Scalar<&'static Call> = Scalar {
    text: "system call",
    schema: || json!({"enum": CALLS.iter().map(|call| call.name).collect::<Vec<_>>()}),
    read: system_call,
    write: |call| Yaml::text(call.name),
};

fn system_call(node: &Node) -> Result<&'static Call, String> {
    let value::Kind::Str(text) = value::kind(node) else { return Err(expected("a system call", node)) };
    CALLS.iter().find(|call| call.name == text).ok_or_else(|| {
        let near = nearest(text, CALLS.iter().map(|call| call.name));
        let hint = near.map_or_else(
            || format!("; supported: {}", CALLS.iter().map(|call| call.name).collect::<Vec<_>>().join(", ")),
            |name| format!("; did you mean {name}?"),
        );
        format!("{} is not a system call that can be measured{hint}", quoted(text))
    })
}
