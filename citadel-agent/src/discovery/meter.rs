//! Monotonic CPU time of a model, whichever of its processes exit. Pure.
//!
//! A cgroup's count includes exited processes. Without one, the processes are summed: the time of an exiting process is
//! added to the parent that waits for it, or is lost if none does (`SIGCHLD` ignored, parent exited first). In both
//! cases, counted time stays counted, and is counted once.

use std::collections::BTreeMap;

use crate::host::cgroup::CpuTime;
use crate::host::pid::{Pid, Process, Stat};

/// A reading of used CPU time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// From the model's own cgroup. `id` distinguishes it from a later one with the same name.
    Cgroup {
        /// ID of the cgroup.
        id: u64,
        /// Its CPU time.
        time: CpuTime,
    },
    /// From its processes.
    Processes(BTreeMap<Process, Used>),
}

/// CPU time of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    /// Its parent.
    pub parent: Pid,
    /// Its own time.
    pub own: CpuTime,
    /// Time of its waited-for children.
    pub children: CpuTime,
}

impl Used {
    /// From `stat`; `tick_us` is the length of a clock tick.
    #[must_use]
    pub fn of(stat: &Stat, tick_us: u64) -> Self {
        let time = |ticks: crate::host::pid::Ticks| CpuTime {
            user_us: ticks.user * tick_us,
            system_us: ticks.system * tick_us,
        };
        Self { parent: stat.parent, own: time(stat.used), children: time(stat.used_by_children) }
    }
}

/// Accumulates a model's CPU time.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    total: CpuTime,
    last: Option<Reading>,
}

impl Meter {
    /// Adds a reading and returns the total.
    pub fn take(&mut self, reading: Reading) -> CpuTime {
        let more = match (&self.last, &reading) {
            (Some(Reading::Cgroup { id: last_id, time: last }), Reading::Cgroup { id, time }) if id == last_id => {
                minus(*time, *last)
            }
            // The first reading, or a recreated cgroup: counts from its beginning.
            (None | Some(Reading::Cgroup { .. }), Reading::Cgroup { time, .. }) => *time,
            (None, Reading::Processes(now)) => growth(&BTreeMap::new(), now),
            (Some(Reading::Processes(before)), Reading::Processes(now)) => growth(before, now),
            // The kind of reading changed. The two cannot be compared, so counting continues from here.
            (Some(_), _) => CpuTime::default(),
        };
        self.total = plus(self.total, more);
        self.last = Some(reading);
        self.total
    }
}

/// The growth since `before`.
fn growth(before: &BTreeMap<Process, Used>, now: &BTreeMap<Process, Used>) -> CpuTime {
    let by_pid: BTreeMap<Pid, Process> = before.keys().map(|process| (process.pid, *process)).collect();
    // The time of exited processes has been counted. It is now in the parent, if that has waited for them; if the
    // parent has exited too, in its parent or in the process that adopts orphans.
    let mut with_parent: BTreeMap<Process, CpuTime> = BTreeMap::new();
    let mut with_anyone = CpuTime::default();
    for (_, used) in before.iter().filter(|(process, _)| !now.contains_key(process)) {
        let time = plus(used.own, used.children);
        match by_pid.get(&used.parent) {
            Some(parent) if now.contains_key(parent) => {
                let sum = with_parent.entry(*parent).or_default();
                *sum = plus(*sum, time);
            }
            Some(_) => with_anyone = plus(with_anyone, time),
            // Not a process of the model.
            None => {}
        }
    }
    let (mut own, mut children) = (CpuTime::default(), CpuTime::default());
    for (process, used) in now {
        let last = before.get(process);
        own = plus(own, minus(used.own, last.map_or(CpuTime::default(), |last| last.own)));
        let more = minus(used.children, last.map_or(CpuTime::default(), |last| last.children));
        children = plus(children, minus(more, with_parent.get(process).copied().unwrap_or_default()));
    }
    plus(own, minus(children, with_anyone))
}

fn plus(a: CpuTime, b: CpuTime) -> CpuTime {
    CpuTime { user_us: a.user_us + b.user_us, system_us: a.system_us + b.system_us }
}

/// Never negative: the kernel's counts sometimes go back by a tick.
fn minus(a: CpuTime, b: CpuTime) -> CpuTime {
    CpuTime { user_us: a.user_us.saturating_sub(b.user_us), system_us: a.system_us.saturating_sub(b.system_us) }
}
