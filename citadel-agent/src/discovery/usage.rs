//! Resource usage of the models' processes: CPU time at each tick, memory at each look.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::meter::{Meter, Reading, Used};
use super::server::Server;
use crate::host::Roots;
use crate::host::cgroup::{self, CpuTime};
use crate::host::pid::{self, Process};
use crate::host::process::ticks_per_second;
use crate::host::skipped::Skipped;

/// The pause between readings of proportional set sizes, as a multiple of the time that a reading takes. The kernel
/// walks all page tables for it, about a second for some hundred gigabytes.
const PSS_PAUSE: u32 = 100;

/// Resource usage of a model's processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time since the agent first saw the model, plus the time its processes had used before.
    pub cpu: Option<CpuTime>,
    /// How long its cgroup's CPU quota held its threads back, in microseconds; `None` where it has no cgroup of its own, or no
    /// CPU controller.
    pub throttled_us: Option<u64>,
    /// Major page faults of its cgroup; `None` where it has none of its own, or no memory controller.
    pub major_faults: Option<u64>,
    /// Memory of all processes together.
    pub memory: Option<ProcessMemory>,
}

/// Memory in bytes. Summed over processes instead of taken from the cgroup, because a cgroup is charged only for pages
/// that it touched first: a model file that an earlier run has read is not charged to the later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessMemory {
    /// In RAM; shared pages count once per process.
    pub rss: u64,
    /// In RAM; a page shared by n processes counts 1/n to each. `None` if access is denied.
    pub pss: Option<u64>,
    /// Swapped out.
    pub swap: u64,
}

/// Accumulates the usage of all models.
#[derive(Debug)]
pub struct Usages {
    roots: Roots,
    mount: Option<PathBuf>,
    tick_us: u64,
    by_port: BTreeMap<u16, One>,
}

#[derive(Debug, Default)]
struct One {
    meter: Meter,
    usage: Usage,
    next_pss: Option<Instant>,
}

impl Usages {
    /// Without any counts. `mount` is the mount point of cgroup v2.
    #[must_use]
    pub fn new(roots: Roots, mount: Option<PathBuf>) -> Self {
        Self { roots, mount, tick_us: (1e6 / ticks_per_second()) as u64, by_port: BTreeMap::new() }
    }

    /// Reads CPU time, which is cheap.
    pub fn read_cpu<'a>(&mut self, servers: impl IntoIterator<Item = &'a Server>, skipped: &mut Skipped) {
        let mut ports = BTreeSet::new();
        for server in servers {
            ports.insert(server.port);
            let reading = self.reading(server, skipped);
            let one = self.by_port.entry(server.port).or_default();
            let cgroup = self.mount.as_ref().zip(server.cgroup.as_ref());
            one.usage.throttled_us = cgroup.and_then(|(mount, path)| cgroup::read_throttled(mount, path).ok()?);
            one.usage.major_faults = cgroup.and_then(|(mount, path)| cgroup::read_major_faults(mount, path).ok()?);
            one.usage.cpu = reading.map(|reading| one.meter.take(reading));
        }
        self.by_port.retain(|port, _| ports.contains(port));
    }

    /// Reads memory: several files per process.
    pub fn read_memory<'a>(
        &mut self,
        servers: impl IntoIterator<Item = &'a Server>,
        now: Instant,
        skipped: &mut Skipped,
    ) {
        for server in servers {
            let one = self.by_port.entry(server.port).or_default();
            let due = one.next_pss.is_none_or(|next| now >= next);
            let last = one.usage.memory.and_then(|memory| memory.pss);
            one.usage.memory = read_memory(&self.roots, server, due, skipped).map(|(memory, took)| {
                if let Some(took) = took {
                    one.next_pss = Some(now + took * PSS_PAUSE);
                    return memory;
                }
                ProcessMemory { pss: last, ..memory }
            });
        }
    }

    /// The usage of each port's model.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u16, Usage> {
        self.by_port.iter().map(|(&port, one)| (port, one.usage)).collect()
    }

    /// From the cgroup if the model has its own, else from its processes; `None` if it has none left.
    fn reading(&self, server: &Server, skipped: &mut Skipped) -> Option<Reading> {
        if let (Some(mount), Some(path)) = (&self.mount, &server.cgroup) {
            return by_cgroup(mount, path, skipped);
        }
        let used = |&process: &Process| {
            let stat = skipped.unless_malformed(pid::read_stat(&self.roots, process.pid), "/proc/PID/stat")?;
            (stat.start_ticks == process.start_ticks).then(|| (process, Used::of(&stat, self.tick_us)))
        };
        let processes: BTreeMap<_, _> = server.processes.iter().filter_map(used).collect();
        (!processes.is_empty()).then_some(Reading::Processes(processes))
    }
}

fn by_cgroup(mount: &Path, path: &Path, skipped: &mut Skipped) -> Option<Reading> {
    // If the cgroup is recreated between the two reads, the next reading corrects it.
    let id = cgroup::read_id(mount, path).ok()?;
    Some(Reading::Cgroup { id, time: skipped.unless_malformed(cgroup::read_cpu_time(mount, path), "cpu.stat")? })
}

/// The memory of a server's processes, and how long the proportional set sizes took, if requested; `None` if it has no
/// process.
///
/// A partial sum would be wrong: if one process cannot be read, there is no value.
fn read_memory(
    roots: &Roots,
    server: &Server,
    with_pss: bool,
    skipped: &mut Skipped,
) -> Option<(ProcessMemory, Option<Duration>)> {
    let mut memory = ProcessMemory { pss: Some(0), ..ProcessMemory::default() };
    let mut any = false;
    let mut took = Duration::ZERO;
    for process in &server.processes {
        let resident = match pid::read_resident(roots, process.pid) {
            Ok(resident) => resident,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                skipped.note("/proc/PID/status", error);
                return None;
            }
            // It has exited.
            Err(_) => continue,
        };
        any = true;
        memory.rss += resident.rss;
        memory.swap += resident.swap;
        if with_pss {
            let begun = Instant::now();
            match pid::read_pss(roots, process.pid) {
                Ok(pss) => memory.pss = memory.pss.map(|sum| sum + pss),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => memory.pss = None,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    skipped.note("/proc/PID/smaps_rollup", error);
                    memory.pss = None;
                }
                Err(_) => {}
            }
            took += begun.elapsed();
        }
    }
    any.then_some((memory, with_pss.then_some(took)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_of_the_models_own_tells_what_it_had_to_wait_for() {
        let mount = tempfile::tempdir().unwrap();
        let folder = mount.path().join("phi3");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cpu.stat"), "user_usec 20\nsystem_usec 10\nthrottled_usec 7\n").unwrap();
        let server = Server { port: 11403, cgroup: Some("phi3".into()), ..Server::default() };
        let mut usages = Usages::new(Roots::default(), Some(mount.path().to_owned()));
        let mut read = || {
            usages.read_cpu([&server], &mut Skipped::default());
            usages.all()[&11403]
        };
        // Without a memory controller.
        assert_eq!((read().throttled_us, read().major_faults), (Some(7), None));
        fs::write(folder.join("memory.stat"), "anon 1\npgfault 5\npgmajfault 3\n").unwrap();
        assert_eq!(read().major_faults, Some(3));
        assert_eq!(read().cpu, Some(CpuTime { user_us: 20, system_us: 10 }));
    }
}
