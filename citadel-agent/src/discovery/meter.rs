//! CPU time of a model that only grows, whichever of its processes end. Pure.
//!
//! A cgroup's own count keeps what ended processes used. Without one, the processes are summed up: a process that ends
//! hands its time to the parent that waits for it, and takes it along if nobody does (`SIGCHLD` ignored, parent gone
//! first). What was counted stays counted in both cases, and is counted once.

use std::collections::BTreeMap;

use crate::host::cgroup::CpuTime;
use crate::host::pid::{Pid, Process, Stat};

/// One look at what has been used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// By the model's own cgroup. `id` tells it from a later one of the same name.
    Cgroup {
        /// The cgroup's number.
        id: u64,
        /// Its count.
        time: CpuTime,
    },
    /// By its processes.
    Processes(BTreeMap<Process, Used>),
}

/// What one process has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    /// Its parent.
    pub parent: Pid,
    /// Itself.
    pub own: CpuTime,
    /// Its children that it has waited for.
    pub children: CpuTime,
}

impl Used {
    /// From `stat`; `tick_us` is how long a clock tick is.
    #[must_use]
    pub fn of(stat: &Stat, tick_us: u64) -> Self {
        let time = |ticks: crate::host::pid::Ticks| CpuTime {
            user_us: ticks.user * tick_us,
            system_us: ticks.system * tick_us,
        };
        Self { parent: stat.parent, own: time(stat.used), children: time(stat.used_by_children) }
    }
}

/// Counts one model's CPU time.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    total: CpuTime,
    last: Option<Reading>,
}

impl Meter {
    /// Takes a reading; the total with it.
    pub fn take(&mut self, reading: Reading) -> CpuTime {
        let more = match (&self.last, &reading) {
            (Some(Reading::Cgroup { id: last_id, time: last }), Reading::Cgroup { id, time }) if id == last_id => {
                minus(*time, *last)
            }
            // The first reading, or a cgroup that was made anew: since it began.
            (None | Some(Reading::Cgroup { .. }), Reading::Cgroup { time, .. }) => *time,
            (None, Reading::Processes(now)) => growth(&BTreeMap::new(), now),
            (Some(Reading::Processes(before)), Reading::Processes(now)) => growth(before, now),
            // The same time, told in another way: the two cannot be compared, so counting goes on from here.
            (Some(_), _) => CpuTime::default(),
        };
        self.total = plus(self.total, more);
        self.last = Some(reading);
        self.total
    }
}

/// What the processes have used since `before`.
fn growth(before: &BTreeMap<Process, Used>, now: &BTreeMap<Process, Used>) -> CpuTime {
    let by_pid: BTreeMap<Pid, Process> = before.keys().map(|process| (process.pid, *process)).collect();
    // What ended processes had used is counted. The parent has it now, if it waited for them; where the parent has ended as
    // well, either its own parent or whoever adopts orphans has it.
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
            // One that is no process of the model.
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

/// Never below zero: the kernel's own counts go back by a tick now and then.
fn minus(a: CpuTime, b: CpuTime) -> CpuTime {
    CpuTime { user_us: a.user_us.saturating_sub(b.user_us), system_us: a.system_us.saturating_sub(b.system_us) }
}
