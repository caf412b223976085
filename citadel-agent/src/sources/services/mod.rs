//! systemd units: those that serve models, and those that match the configured patterns.
//!
//! Their states are not polled: the task in `follow` keeps them in a slot, updated by signals, and a scrape reads that,
//! with memory and tasks from the units' cgroups.

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

/// The values of `ActiveState` that node_exporter exports.
const ACTIVE_STATES: [&str; 5] = ["active", "activating", "deactivating", "failed", "inactive"];

/// State of the units.
#[derive(Debug)]
pub(super) enum Known {
    /// There is no systemd on this host.
    Absent,
    /// The bus or systemd is unavailable; the reason.
    Lost(String),
    Units {
        /// By name.
        units: BTreeMap<String, Unit>,
        /// Number of units beyond the limit.
        left_out: usize,
        /// How much of systemd's data was unreadable so far.
        skipped: u64,
    },
}

/// The monitored units; dropping this stops monitoring.
#[derive(Debug)]
pub struct Services {
    known: Slot<Known>,
    wanted: watch::Sender<Wanted>,
    task: AbortHandle,
}

/// Which units to monitor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    /// Patterns as in `systemctl`.
    patterns: Vec<String>,
    /// Names of the units that serve models.
    models: BTreeSet<String>,
}

impl Services {
    /// Monitors the units that match these patterns, on the bus at `address`, or the system bus.
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

    /// Whether a unit is followed and was stopped: one that has failed is not.
    pub(super) fn is_stopped(&self, unit: &str) -> bool {
        let newest = self.known.newest();
        newest.is_some_and(|newest| match &*newest.value {
            Known::Units { units, .. } => units.get(unit).is_some_and(|unit| unit.active_state == "inactive"),
            _ => false,
        })
    }

    /// Whether systemd stopped or restarted a unit on request within the last minutes, and not because it failed.
    #[must_use]
    pub(super) fn is_stopped_on_request(&self, unit: &str, now: f64) -> bool {
        let newest = self.known.newest();
        newest.is_some_and(|newest| match &*newest.value {
            Known::Units { units, .. } => units.get(unit).is_some_and(|unit| unit.is_stopped_on_request(now)),
            _ => false,
        })
    }

    /// Whether it is known yet if this host has systemd; until then the source is absent.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        self.known.newest().is_some()
    }

    /// Sets the patterns.
    pub fn set_patterns(&self, patterns: &[String]) {
        self.wanted.send_if_modified(|wanted| {
            let differ = wanted.patterns != patterns;
            if differ {
                wanted.patterns = patterns.to_vec();
            }
            differ
        });
    }

    /// Sets the units that serve models.
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
                more => Outcome::Partly(format!("the patterns match {more} more units than the limit").into()),
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

/// Usage from the unit's cgroup, because systemd sends no signals when it changes. A unit that is not running has none.
fn add_usage(page: &mut Page, name: &str, cgroup: &Path, skipped: &mut Skipped) {
    for (file, desc) in [("memory.current", &UNIT_MEMORY), ("pids.current", &UNIT_TASKS)] {
        if let Some(number) = skipped.number(file, &cgroup.join(file)) {
            page.add(desc, [name], Value::Integer(number));
        }
    }
}
