//! The processes outside the models that use the most CPU time: what takes the CPUs from a model.

use std::collections::BTreeMap;
use std::time::Instant;

use super::table::Table;
use crate::host::Roots;
use crate::host::pid::{Pid, Process, read_command_name};
use crate::host::process::ticks_per_second;
use crate::printable::escaped;

/// Maximum number of processes that are named.
pub const MAX_BUSIEST: usize = 5;

/// A process that uses fewer CPUs is not named.
const LEAST: f64 = 0.1;

/// A shorter time says little: the kernel counts in hundredths of a second.
const SHORTEST: f64 = 1.0;

/// A process, and how many CPUs it used between the last two readings of the process table.
#[derive(Clone, PartialEq, Debug)]
pub struct Busy {
    /// PID.
    pub pid: Pid,
    /// Command name, printable.
    pub command: String,
    /// CPU seconds per second.
    pub cpus: f64,
}

/// Compares readings of the process table.
#[derive(Debug, Default)]
pub struct Busiest {
    used: BTreeMap<Process, u64>,
    read: Option<Instant>,
    found: Vec<Busy>,
}

impl Busiest {
    /// Adds a reading; `is_model` says which processes are measured as models.
    pub fn read(&mut self, roots: &Roots, table: &Table, is_model: impl Fn(Pid) -> bool, now: Instant) {
        let passed = self.read.map_or(f64::INFINITY, |read| now.duration_since(read).as_secs_f64());
        if passed < SHORTEST {
            return;
        }
        self.read = Some(now);
        let used: BTreeMap<Process, u64> = table.used().collect();
        let per_second = 1.0 / (ticks_per_second() * passed);
        let cpus = |(process, ticks): (&Process, &u64)| {
            let cpus = ticks.saturating_sub(*self.used.get(process)?) as f64 * per_second;
            (cpus >= LEAST && !is_model(process.pid)).then_some((process.pid, cpus))
        };
        let mut busy: Vec<_> = used.iter().filter_map(cpus).collect();
        busy.sort_by(|a, b| b.1.total_cmp(&a.1));
        busy.truncate(MAX_BUSIEST);
        let named =
            |(pid, cpus)| Some(Busy { pid, command: escaped(&read_command_name(roots, pid).ok()?).into(), cpus });
        self.found = busy.into_iter().filter_map(named).collect();
        self.used = used;
    }

    /// The busiest first.
    #[must_use]
    pub fn found(&self) -> &[Busy] {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::host::pid::{Stat, Ticks};

    /// Processes with the CPU seconds that each has used.
    fn table(processes: &[(Pid, u64, f64)]) -> Table {
        let stat = |&(pid, start_ticks, seconds): &(Pid, u64, f64)| {
            let used = Ticks { user: (seconds * ticks_per_second()) as u64, system: 0 };
            let none = Ticks::default();
            (pid, Stat { parent: 1, start_ticks, used, used_by_children: none, virtual_bytes: 0, resident_pages: 0 })
        };
        processes.iter().map(stat).collect()
    }

    #[test]
    fn who_took_the_cpus_is_named_and_models_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for (pid, name) in [(10, "stress\n"), (11, "ba\u{1b}d\n"), (12, "model\n"), (13, "idle\n"), (14, "new\n")] {
            let folder = folder.path().join("proc").join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("comm"), name).unwrap();
        }
        let roots = Roots::below(folder.path());
        let (mut busiest, start) = (Busiest::default(), Instant::now());
        let is_model = |pid| pid == 12;
        let first = table(&[(10, 1, 5.0), (11, 1, 100.0), (12, 1, 0.0), (13, 1, 7.0), (14, 1, 50.0)]);
        busiest.read(&roots, &first, is_model, start);
        assert_eq!(busiest.found(), [], "nothing to compare with");
        // PID 14 is another process now.
        let second = table(&[(10, 1, 15.0), (11, 1, 105.0), (12, 1, 10.0), (13, 1, 7.5), (14, 9, 90.0)]);
        busiest.read(&roots, &second, is_model, start + Duration::from_secs(10));
        let found: Vec<_> = busiest.found().iter().map(|busy| (busy.pid, busy.command.as_str(), busy.cpus)).collect();
        assert_eq!(found, [(10, "stress", 1.0), (11, "ba\\u{1b}d", 0.5)]);
        // Too early to tell.
        busiest.read(&roots, &first, is_model, start + Duration::from_millis(10_500));
        assert_eq!(busiest.found().len(), 2);
    }

    #[test]
    fn at_most_five_are_named() {
        let (roots, mut busiest, start) = (Roots::default(), Busiest::default(), Instant::now());
        // Only this process has a name for certain.
        let own = std::process::id();
        let all = |seconds| -> Vec<_> { (0..20).map(|nth| (own, nth, seconds)).collect() };
        busiest.read(&roots, &table(&all(0.0)), |_| false, start);
        busiest.read(&roots, &table(&all(9.0)), |_| false, start + Duration::from_secs(1));
        assert!(busiest.found().len() <= MAX_BUSIEST);
    }
}
