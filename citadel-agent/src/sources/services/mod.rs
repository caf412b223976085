//! systemd's units: those that serve models and those of the configured patterns.
//!
//! Their states are followed, not asked for: the task of `follow` keeps what systemd says of them in a slot, and a scrape reads that, with
//! memory and tasks from the units' cgroups.

mod bus;
mod follow;
mod guard;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(super) use unit::Unit;

use super::{Origin, Outcome, Reading};
use crate::host::mountinfo::read_cgroup2_mount;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::services::{
    UNIT_ACTIVE_STATE, UNIT_LAST_EXIT_STATUS, UNIT_MEMORY, UNIT_RESTARTS, UNIT_RESULT, UNIT_START_TIME, UNIT_SUB_STATE,
    UNIT_TASKS,
};
use crate::metrics::family::{Page, Value};
use crate::slot::Slot;

/// Every value of a unit's `ActiveState` that node_exporter knows.
const ACTIVE_STATES: [&str; 5] = ["active", "activating", "deactivating", "failed", "inactive"];

/// What is known of the units.
#[derive(Debug)]
pub(super) enum Known {
    /// There is no systemd on this host.
    Absent,
    /// The bus or systemd is gone; why.
    Lost(String),
    /// The units.
    Units {
        /// By name.
        units: BTreeMap<String, Unit>,
        /// How many more there are than are followed.
        left_out: usize,
        /// How much of what systemd said could not be read so far.
        skipped: u64,
    },
}

/// The units that are followed; following ends when this is dropped.
#[derive(Debug)]
pub struct Services {
    known: Slot<Known>,
    wanted: watch::Sender<Wanted>,
    task: AbortHandle,
}

/// Which units are followed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    /// Patterns as `systemctl` takes them.
    patterns: Vec<String>,
    /// Names of the units that serve models.
    models: BTreeSet<String>,
}

impl Services {
    /// Follows the units of these patterns, on the bus at `address`, or the system's.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(patterns: Vec<String>, address: Option<String>) -> Self {
        let known = Slot::default();
        let (wanted, changes) = watch::channel(Wanted { patterns, models: BTreeSet::new() });
        let task = tokio::spawn(follow::follow(address, changes, known.clone())).abort_handle();
        Self { known, wanted, task }
    }

    /// Follows these patterns from now on.
    pub fn set_patterns(&self, patterns: &[String]) {
        self.wanted.send_if_modified(|wanted| {
            let differ = wanted.patterns != patterns;
            if differ {
                wanted.patterns = patterns.to_vec();
            }
            differ
        });
    }

    /// Follows the units that serve models, too.
    pub fn set_models<'a>(&self, units: impl Iterator<Item = &'a str>) {
        let models: BTreeSet<String> = units.map(str::to_owned).collect();
        self.wanted.send_if_modified(|wanted| {
            let differ = wanted.models != models;
            if differ {
                wanted.models = models;
            }
            differ
        });
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(newest) = origin.services.and_then(|services| services.known.newest()) else { return Ok(Outcome::Absent) };
    match &*newest.value {
        Known::Absent => Ok(Outcome::Absent),
        Known::Lost(why) => Err(why.clone().into()),
        Known::Units { units, left_out, skipped: elsewhere } => {
            skipped.count_elsewhere(*elsewhere);
            let cgroups = read_cgroup2_mount(origin.roots).ok().flatten();
            for (name, unit) in units {
                add(page, name, unit);
                if let (Some(mount), Some(path)) = (&cgroups, unit.cgroup_below_mount()) {
                    add_usage(page, name, &mount.join(path), skipped);
                }
            }
            Ok(match left_out {
                0 => Outcome::Read,
                more => Outcome::Partly(format!("the patterns match {more} units more than are followed").into()),
            })
        }
    }
}

fn add(page: &mut Page, name: &str, unit: &Unit) {
    for state in ACTIVE_STATES {
        let value = Value::Integer(u64::from(unit.active_state == state));
        page.add(&UNIT_ACTIVE_STATE, [name, state, unit.kind.as_deref().unwrap_or_default()], value);
    }
    page.add(&UNIT_SUB_STATE, [name, &unit.sub_state], Value::Integer(1));
    if let Some(seconds) = unit.active_since {
        page.add(&UNIT_START_TIME, [name], Value::Float(seconds));
    }
    if let Some(restarts) = unit.restarts {
        page.add(&UNIT_RESTARTS, [name], Value::Integer(restarts));
    }
    if let Some(result) = &unit.result {
        page.add(&UNIT_RESULT, [name, result], Value::Integer(1));
    }
    if let Some((how, status)) = unit.last_exit {
        page.add(&UNIT_LAST_EXIT_STATUS, [name, how], Value::Integer(status));
    }
}

/// Of the unit's cgroup, because systemd does not say when these change. A unit that does not run has none.
fn add_usage(page: &mut Page, name: &str, cgroup: &Path, skipped: &mut Skipped) {
    for (file, desc) in [("memory.current", &UNIT_MEMORY), ("pids.current", &UNIT_TASKS)] {
        if let Some(number) = skipped.number(file, &cgroup.join(file)) {
            page.add(desc, [name], Value::Integer(number));
        }
    }
}
