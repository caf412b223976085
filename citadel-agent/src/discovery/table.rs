//! All processes of a moment: who began whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::host::Roots;
use crate::host::pid::{Pid, Process, Stat, read_pids, read_stat};
use crate::host::skipped::Skipped;

/// The processes that `/proc` shows.
#[derive(Debug, Default)]
pub struct Table {
    stats: BTreeMap<Pid, Stat>,
    children: BTreeMap<Pid, Vec<Pid>>,
}

impl Table {
    /// Reads the table; a process that ends meanwhile is left out.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn read(roots: &Roots, skipped: &mut Skipped) -> io::Result<Self> {
        let stat = |pid| Some((pid, skipped.unless_malformed(read_stat(roots, pid), "/proc/PID/stat")?));
        Ok(read_pids(roots)?.into_iter().filter_map(stat).collect())
    }

    /// What `stat` said of a process.
    #[must_use]
    pub fn stat(&self, pid: Pid) -> Option<&Stat> {
        self.stats.get(&pid)
    }

    /// The process that has this number now.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<Process> {
        Some(Process { pid, start_ticks: self.stat(pid)?.start_ticks })
    }

    /// Whether it is still the process that it was.
    #[must_use]
    pub fn lives(&self, process: Process) -> bool {
        self.process(process.pid) == Some(process)
    }

    /// All processes.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        self.stats.iter().map(|(&pid, stat)| Process { pid, start_ticks: stat.start_ticks })
    }

    /// These processes and all that descend from them.
    #[must_use]
    pub fn trees_of(&self, roots: impl IntoIterator<Item = Pid>) -> BTreeSet<Pid> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<Pid> = roots.into_iter().collect();
        while let Some(pid) = todo.pop() {
            // Read over some milliseconds, the table may hold a ring.
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
        Self { stats, children }
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
