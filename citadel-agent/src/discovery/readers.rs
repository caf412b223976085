//! Processes that read a model's requests belong to the model, wherever they come from, such as a worker in another
//! session or unit that received or inherited the socket (`SCM_RIGHTS`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use crate::host::pid::Pid;

/// A process that has read a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reader {
    /// The port that the request came to.
    pub port: u16,
    /// The process.
    pub pid: u32,
    /// When it last began to read a connection, in nanoseconds of `CLOCK_BOOTTIME`: the process had started by then.
    pub read_ns: u64,
}

/// Records which processes read requests.
pub trait NotedReaders: Send {
    /// All recorded readers.
    fn all(&self) -> Vec<Reader>;

    /// Removes readers that have exited, to make room.
    fn forget(&self, gone: &[Reader]);
}

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
