//! Processes that read a model's requests belong to the model, wherever they come from, such as a worker in another
//! session or unit that received or inherited the socket (`SCM_RIGHTS`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use crate::ebpf::readers::Reader;
use crate::host::pid::Pid;

/// Splits `readers` into living ones, by port, and those that have exited or whose PID was reused.
///
/// A process is the same if its start time is before the time when the request was read. `tick_ns` is the length of a
/// clock tick, the resolution of start times in `/proc`.
#[must_use]
pub fn living(readers: &[Reader], table: &Table, tick_ns: u64) -> (BTreeMap<u16, BTreeSet<Pid>>, Vec<Reader>) {
    let (mut by_port, mut gone) = (BTreeMap::<u16, BTreeSet<Pid>>::new(), Vec::new());
    for &reader in readers {
        match table.stat(reader.pid) {
            Some(stat) if stat.start_ticks.saturating_mul(tick_ns) <= reader.read_ns => {
                // A kernel thread has no memory: it reads for others.
                if stat.virtual_bytes > 0 {
                    by_port.entry(reader.port).or_default().insert(reader.pid);
                }
            }
            _ => gone.push(reader),
        }
    }
    (by_port, gone)
}
