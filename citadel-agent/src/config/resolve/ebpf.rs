//! `ebpf`.

use citadel_agent_common::calls::Call;

use crate::config::mistakes::Mistakes;
use crate::config::resolved::Ebpf;
use crate::config::section::{self, Section};
use crate::config::tree::{Node, Value};
use crate::config::value;

pub(super) fn ebpf(section: &Section<'_>, defaults: &Ebpf, mistakes: &mut Mistakes) -> Option<Ebpf> {
    let net = section.read("net", defaults.net, value::boolean, mistakes);
    let recvq = section.read("recvq", defaults.recvq, value::boolean, mistakes);
    let sched = section.read("sched", defaults.sched, value::boolean, mistakes);
    let syscalls = section.read("syscalls", defaults.syscalls, value::boolean, mistakes);
    let calls = match section.node("syscall_names") {
        None => Some(defaults.calls.clone()),
        Some((path, node)) => calls(&path, node, mistakes),
    };
    let call_form = section.read("syscall_form", defaults.call_form, value::call_form, mistakes);
    let cgroup = section.optional("cgroup", value::absolute_path, mistakes);
    Some(Ebpf {
        net: net?.value,
        recvq: recvq?.value,
        sched: sched?.value,
        syscalls: syscalls?.value,
        calls: calls?,
        call_form: call_form?.value,
        cgroup: cgroup?,
    })
}

fn calls(path: &str, node: &Node, mistakes: &mut Mistakes) -> Option<Vec<&'static Call>> {
    match &node.value {
        Value::Refused => None,
        Value::List(items) if !items.is_empty() => Some(section::items(path, items, value::system_call, mistakes)),
        Value::List(_) => {
            mistakes.push(node.pos, path, "is empty; to measure none, set ebpf.syscalls to false");
            None
        }
        _ => {
            mistakes.push(node.pos, path, value::expected("a list of system calls", node));
            None
        }
    }
}
