//! What the models' processes use: CPU time at each tick, memory at each look.

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

/// How much longer the pause before the next reading of proportional shares is than the reading took. The kernel walks all
/// page tables for them, which takes a second for some hundred gigabytes.
const PSS_PAUSE: u32 = 100;

/// What one model's processes use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time since the agent first saw the model, and before that since its processes began.
    pub cpu: Option<CpuTime>,
    /// Memory, all processes together.
    pub memory: Option<Memory>,
}

/// Memory in bytes. Counted by process and not by cgroup, because a cgroup is charged for the pages that it was the first to
/// touch: a model file that an earlier run has read is in none of the later one's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// In RAM; what n of its processes share counts n times.
    pub rss: u64,
    /// In RAM; what n processes of the host share counts 1/n to each. `None` where the agent may not look.
    pub pss: Option<u64>,
    /// Swapped out.
    pub swap: u64,
}

/// Keeps count for all models.
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
    /// Nothing counted yet. `mount` is where cgroup v2 is mounted.
    #[must_use]
    pub fn new(roots: Roots, mount: Option<PathBuf>) -> Self {
        Self { roots, mount, tick_us: (1e6 / ticks_per_second()) as u64, by_port: BTreeMap::new() }
    }

    /// Reads CPU time, which takes little.
    pub fn read_cpu<'a>(&mut self, servers: impl IntoIterator<Item = &'a Server>, skipped: &mut Skipped) {
        let mut ports = BTreeSet::new();
        for server in servers {
            ports.insert(server.port);
            let reading = self.reading(server, skipped);
            let one = self.by_port.entry(server.port).or_default();
            one.usage.cpu = reading.map(|reading| one.meter.take(reading));
        }
        self.by_port.retain(|port, _| ports.contains(port));
    }

    /// Reads memory: some files of each process.
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
                Memory { pss: last, ..memory }
            });
        }
    }

    /// What each port's model uses.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u16, Usage> {
        self.by_port.iter().map(|(&port, one)| (port, one.usage)).collect()
    }

    /// By the cgroup where the model has one of its own, else by its processes; `None` once it has none.
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
    // Between the two reads the cgroup may be made anew; then the next reading sets it right.
    let id = cgroup::read_id(mount, path).ok()?;
    Some(Reading::Cgroup { id, time: skipped.unless_malformed(cgroup::read_cpu_time(mount, path), "cpu.stat")? })
}

/// The memory of a server's processes, and how long the proportional shares took if they were asked for; `None` once it has
/// no process.
///
/// A part of a sum would be a wrong number: where a process' memory cannot be read, there is none.
fn read_memory(
    roots: &Roots,
    server: &Server,
    with_pss: bool,
    skipped: &mut Skipped,
) -> Option<(Memory, Option<Duration>)> {
    let mut memory = Memory { pss: Some(0), ..Memory::default() };
    let mut any = false;
    let mut took = Duration::ZERO;
    for process in &server.processes {
        let resident = match pid::read_resident(roots, process.pid) {
            Ok(resident) => resident,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                skipped.note("/proc/PID/status", error);
                return None;
            }
            // It has ended.
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
