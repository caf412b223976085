//! All processes at a point in time, with their parents.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::host::Roots;
use crate::host::pid::{MAX_PROCESSES, Pid, Process, Stat, read_pids, read_stat};
use crate::host::skipped::Skipped;

/// Maximum number of processes of a model; a server with its workers has a few hundred.
pub const MAX_TREE: usize = 2048;

/// The processes in `/proc`.
#[derive(Debug, Default)]
pub struct Table {
    stats: BTreeMap<Pid, Stat>,
    children: BTreeMap<Pid, Vec<Pid>>,
    /// Whether the host has more processes than the limit.
    cut: bool,
}

impl Table {
    /// Reads the table; processes that exit meanwhile are omitted.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn read(roots: &Roots, skipped: &mut Skipped) -> io::Result<Self> {
        let pids = read_pids(roots)?;
        let cut = pids.len() == MAX_PROCESSES;
        let stat = |pid| Some((pid, skipped.unless_malformed(read_stat(roots, pid), "/proc/PID/stat")?));
        let table: Self = pids.into_iter().filter_map(stat).collect();
        Ok(Self { cut, ..table })
    }

    /// Whether the host has more processes than the limit.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The `stat` of a process.
    #[must_use]
    pub fn stat(&self, pid: Pid) -> Option<&Stat> {
        self.stats.get(&pid)
    }

    /// CPU time of each process, in clock ticks.
    pub fn used(&self) -> impl Iterator<Item = (Process, u64)> {
        let process = |(&pid, stat): (&Pid, &Stat)| {
            (Process { pid, start_ticks: stat.start_ticks }, stat.used.user.saturating_add(stat.used.system))
        };
        self.stats.iter().map(process)
    }

    /// The process that has this PID now.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<Process> {
        Some(Process { pid, start_ticks: self.stat(pid)?.start_ticks })
    }

    /// Whether the process still exists, and its PID was not reused.
    #[must_use]
    pub fn lives(&self, process: Process) -> bool {
        self.process(process.pid) == Some(process)
    }

    /// All processes, starting with PID `first` and wrapping around.
    pub fn processes_from(&self, first: Pid) -> impl Iterator<Item = Process> {
        let stats = self.stats.range(first..).chain(self.stats.range(..first));
        stats.map(|(&pid, stat)| Process { pid, start_ticks: stat.start_ticks })
    }

    /// These processes and their descendants; if there are more than [`MAX_TREE`], one more than that.
    #[must_use]
    pub fn trees_of(&self, roots: impl IntoIterator<Item = Pid>) -> BTreeSet<Pid> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<Pid> = roots.into_iter().collect();
        while let Some(pid) = todo.pop() {
            // The table is read over some milliseconds, so it may contain a cycle.
            if found.len() > MAX_TREE {
                break;
            }
            if found.insert(pid) {
                todo.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        found
    }
}

impl FromIterator<(Pid, Stat)> for Table {
    fn from_iter<I: IntoIterator<Item = (Pid, Stat)>>(stats: I) -> Self {
        let stats: BTreeMap<Pid, Stat> = stats.into_iter().collect();
        let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        for (&pid, stat) in &stats {
            children.entry(stat.parent).or_default().push(pid);
        }
        Self { stats, children, cut: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(parents: &[(Pid, Pid)]) -> Table {
        parents
            .iter()
            .map(|&(pid, parent)| {
                let none = Default::default();
                (
                    pid,
                    Stat {
                        parent,
                        start_ticks: 1,
                        used: none,
                        used_by_children: none,
                        virtual_bytes: 0,
                        resident_pages: 0,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn a_tree_holds_all_descendants_and_nobody_else() {
        let table = table(&[(1, 0), (10, 1), (11, 10), (12, 11), (13, 10), (20, 1)]);
        assert_eq!(table.trees_of([10]), BTreeSet::from([10, 11, 12, 13]));
        assert_eq!(table.trees_of([12, 20]), BTreeSet::from([12, 20]));
    }

    #[test]
    fn a_tree_without_end_is_cut_and_shows_it() {
        let parents: Vec<_> = (2..10_000).map(|pid| (pid, 1)).collect();
        assert_eq!(table(&parents).trees_of([1]).len(), MAX_TREE + 1);
    }

    #[test]
    fn a_ring_ends() {
        assert_eq!(table(&[(5, 6), (6, 5)]).trees_of([5]), BTreeSet::from([5, 6]));
    }

    #[test]
    fn a_number_that_another_process_has_now_is_not_the_process() {
        let table = table(&[(5, 1)]);
        assert!(table.lives(Process { pid: 5, start_ticks: 1 }));
        assert!(!table.lives(Process { pid: 5, start_ticks: 0 }));
        assert!(!table.lives(Process { pid: 6, start_ticks: 1 }));
    }
}
