//! `ebpf`: the kernel probes.

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
    /// Which kernel probes run, and where.
    pub struct Ebpf {
        /// Whether the `net` probes run: requests, tokens, TCP.
        net: bool = true, BOOLEAN;
        /// Whether the `recvq` probe runs: how long requests wait in the receive queue. Needs `net`.
        recvq: bool = true, BOOLEAN;
        /// Whether the `sched` probes run: how long the models' threads wait for a CPU, and have one.
        sched: bool = true, BOOLEAN;
        /// Whether the `syscalls` probes run: how long the models' system calls take, and which fail.
        syscalls: bool = true, BOOLEAN;
        /// Which system calls `syscalls` measures. Also: munmap, pread64, pwrite64, select, madvise, connect, accept, fdatasync,
        /// ppoll, splice, recvmmsg, sendmmsg.
        #[key = "syscall_names"]
        calls: Vec<&'static Call> = CALLS.iter().filter(|call| call.is_default).collect(), Calls;
        /// How `syscalls` sees them: `auto` takes fentry, which costs calls that are not measured nothing, and leaves the family
        /// out where the kernel does not allow it; `raw_tp` works on all kernels and slows every system call of the host (nginx
        /// keeps 0.89 of its throughput, also on ports of no model).
        #[key = "syscall_form"]
        call_form: CallForm = CallForm::Auto, Words(CallForm::WORDS);
        /// How many connections `net` follows at a time. Each takes kernel memory, which counts as the agent's. Further ones are
        /// counted as open and closed, but not followed, which is logged and counted as lost (`connections_full`). Absent: as
        /// many as a quarter of the memory limit of the agent's cgroup holds, and 65,536 without a limit.
        max_connections: Option<u64> = None, Optional(COUNT);
        /// The cgroup v2 directory that the probes attach to; absent: the root of the mounted hierarchy.
        cgroup: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
    }
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
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("raw_tp", Self::RawTp)];
}

/// The system calls that are measured; at least one.
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
            || format!("; known are {}", CALLS.iter().map(|call| call.name).collect::<Vec<_>>().join(", ")),
            |name| format!("; did you mean {name}?"),
        );
        format!("{} is no system call that can be measured{hint}", quoted(text))
    })
}
