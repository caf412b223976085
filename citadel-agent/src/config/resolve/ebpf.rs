//! `ebpf`.

use crate::config::mistakes::Mistakes;
use crate::config::resolved::Ebpf;
use crate::config::section::Section;
use crate::config::value;

pub(super) fn ebpf(section: &Section<'_>, defaults: &Ebpf, mistakes: &mut Mistakes) -> Option<Ebpf> {
    let net = section.read("net", defaults.net, value::boolean, mistakes);
    let recvq = section.read("recvq", defaults.recvq, value::boolean, mistakes);
    let sched = section.read("sched", defaults.sched, value::boolean, mistakes);
    let cgroup = section.optional("cgroup", value::absolute_path, mistakes);
    Some(Ebpf { net: net?.value, recvq: recvq?.value, sched: sched?.value, cgroup: cgroup? })
}
