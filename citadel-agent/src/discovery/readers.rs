//! Processes that read a model's requests -> processes of the model, wherever they come from: a worker of another session or
//! unit, to which a socket was passed (`SCM_RIGHTS`) or left. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use crate::ebpf::readers::Reader;
use crate::host::pid::Pid;

/// Those of `readers` that live, by port; and those that have ended, or whose number another process has by now.
///
/// A process lives if the one with its number began before the request was read. `tick_ns` is how long a clock tick is, in
/// which `/proc` tells when a process began.
#[must_use]
pub fn living(readers: &[Reader], table: &Table, tick_ns: u64) -> (BTreeMap<u16, BTreeSet<Pid>>, Vec<Reader>) {
    let (mut by_port, mut gone) = (BTreeMap::<u16, BTreeSet<Pid>>::new(), Vec::new());
    for &reader in readers {
        match table.stat(reader.pid) {
            Some(stat) if stat.start_ticks.saturating_mul(tick_ns) <= reader.read_ns => {
                // A kernel thread has no memory: it reads on behalf of others.
                if stat.virtual_bytes > 0 {
                    by_port.entry(reader.port).or_default().insert(reader.pid);
                }
            }
            _ => gone.push(reader),
        }
    }
    (by_port, gone)
}
