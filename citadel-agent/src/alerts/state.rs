//! The state of alerts: inactive, pending, firing, resolved. Pure: results and the time are passed in.
//!
//! The transitions are those of Prometheus' alerting rules (rules/alerting.go), with one addition: until a rule has
//! seen its whole time range after a restart, an alert from before the restart keeps its state.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::window::{Millis, millis};
use crate::config::resolved::alerts::{Rule, Severity};

/// Names and values of an alert's labels or annotations.
pub type Texts = BTreeMap<String, String>;

/// How long a resolved alert is repeated, so that a peer that was down still receives it.
pub(super) const RESOLVED_RETENTION: Millis = 15 * 60 * 1000;

/// How long after the last save a pending alert is still restored.
const PENDING_RETENTION: Millis = 60 * 60 * 1000;

/// The year 2020: a clock before that has not been set since the host booted.
const CLOCK_IS_SET: Millis = 1_577_836_800_000;

/// Maximum age of an alert, whatever a file contains: a hundred years.
const OLDEST: Millis = 100 * 366 * 24 * 60 * 60 * 1000;

/// One label set for which a rule is or was true.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// All identifying labels, including `alertname` and `severity`.
    pub labels: Texts,
    /// The annotations, rendered with the values from when it was last true.
    pub annotations: Texts,
    /// The current phase.
    pub phase: Phase,
}

/// The phase of an alert. Times are milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// True, but not yet for the duration in the rule's `for`.
    Pending {
        /// Since when.
        since: Millis,
    },
    /// Firing.
    Firing {
        /// Since when.
        since: Millis,
        /// When it stopped being true, while the rule's `keep_firing_for` keeps it firing.
        untrue_since: Option<Millis>,
    },
    /// It was firing, and no longer is.
    Resolved {
        /// When it started firing.
        since: Millis,
        /// When it was resolved.
        at: Millis,
    },
}

impl Phase {
    /// Its first time, and the second one if there is one.
    fn times(&mut self) -> (&mut Millis, Option<&mut Millis>) {
        match self {
            Self::Pending { since } => (since, None),
            Self::Firing { since, untrue_since } => (since, untrue_since.as_mut()),
            Self::Resolved { since, at } => (since, Some(at)),
        }
    }

    /// Shifts its times.
    fn move_by(&mut self, by: Millis) {
        let (since, later) = self.times();
        *since = since.saturating_add(by);
        later.into_iter().for_each(|at| *at = at.saturating_add(by));
    }

    /// Limits its times to those that an alert can have at `now`.
    fn bound(&mut self, now: Millis) {
        let (since, later) = self.times();
        *since = (*since).clamp(now.saturating_sub(OLDEST), now);
        later.into_iter().for_each(|at| *at = (*at).clamp(*since, now));
    }
}

impl Alert {
    /// Value of the label `alertname`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

/// A result of a rule.
pub(super) struct Found {
    pub(super) labels: Texts,
    pub(super) annotations: Texts,
}

/// All alerts of all rules, by their labels.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct AlertStates {
    alerts: BTreeMap<Texts, Alert>,
    /// Alerts from before the restart that have not been true since.
    from_before: BTreeSet<Texts>,
}

impl AlertStates {
    /// Restores at `now` what was saved at `saved`. The time in between does not count toward a pending alert's `for`;
    /// after a long time it is forgotten.
    ///
    /// If the clock was set back in between, or is set for the first time only now, the length of that time is unknown:
    /// all times are shifted as if it had been zero. No time is later than `now`, whatever was saved.
    pub(super) fn restored(alerts: Vec<Alert>, saved: Millis, now: Millis) -> Self {
        let step = now.saturating_sub(saved);
        let clock_was_set = step < 0 || (saved < CLOCK_IS_SET && now >= CLOCK_IS_SET);
        let (step, away) = if clock_was_set { (step, 0) } else { (0, step) };
        let taken_up = alerts.into_iter().filter_map(|mut alert| {
            alert.phase.move_by(step);
            if let Phase::Pending { since } = &mut alert.phase {
                *since = since.saturating_add(away);
                if away > PENDING_RETENTION {
                    return None;
                }
            }
            alert.phase.bound(now);
            Some((alert.labels.clone(), alert))
        });
        let alerts: BTreeMap<_, _> = taken_up.collect();
        let from_before = alerts.keys().cloned().collect();
        Self { alerts, from_before }
    }

    /// All alerts.
    pub(super) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// Number of firing alerts with this severity.
    pub(super) fn firing(&self, severity: Severity) -> u64 {
        let of_severity = |alert: &&Alert| alert.labels.get("severity").is_some_and(|name| name == severity.name());
        let firing = |alert: &&Alert| matches!(alert.phase, Phase::Firing { .. });
        self.alerts().filter(firing).filter(of_severity).count() as u64
    }

    /// Applies the results of `rule` at `now`. `settled`: the rule has seen enough since the restart to know that what
    /// was true before no longer is. Returns whether anything changed its phase.
    pub(super) fn step(&mut self, rule: &Rule, found: Vec<Found>, now: Millis, settled: bool) -> bool {
        let (hold, keep_firing) = (millis(rule.hold), millis(rule.keep_firing));
        let mut changed = false;
        let mut found: BTreeMap<_, _> = found.into_iter().map(|found| (found.labels, found.annotations)).collect();
        self.alerts.retain(|labels, alert| {
            if alert.name() != rule.name {
                return true;
            }
            let before = alert.phase;
            let kept = match found.remove(labels) {
                Some(annotations) => {
                    self.from_before.remove(labels);
                    alert.annotations = annotations;
                    alert.phase = when_true(alert.phase, now, hold);
                    true
                }
                None if !settled && self.from_before.contains(labels) => true,
                None => match when_untrue(alert.phase, now, keep_firing) {
                    Some(phase) => {
                        alert.phase = phase;
                        true
                    }
                    None => false,
                },
            };
            changed |= !kept || alert.phase != before;
            kept
        });
        for (labels, annotations) in found {
            let phase = when_true(Phase::Pending { since: now }, now, hold);
            self.alerts.insert(labels.clone(), Alert { labels, annotations, phase });
            changed = true;
        }
        changed
    }

    /// Resolves the alerts of rules that no longer exist. Returns whether there were any.
    pub(super) fn end_others(&mut self, is_rule: impl Fn(&str) -> bool, now: Millis) -> bool {
        let mut changed = false;
        self.alerts.retain(|_, alert| {
            if is_rule(alert.name()) {
                return true;
            }
            let next = when_untrue(alert.phase, now, 0);
            changed |= next != Some(alert.phase);
            next.is_some_and(|phase| {
                alert.phase = phase;
                true
            })
        });
        changed
    }

    /// Shifts all times after the clock was set by `by`.
    pub(super) fn clock_was_set(&mut self, by: Millis) {
        self.alerts.values_mut().for_each(|alert| alert.phase.move_by(by));
    }
}

fn when_true(phase: Phase, now: Millis, hold: Millis) -> Phase {
    match phase {
        Phase::Pending { since } if now.saturating_sub(since) >= hold => {
            Phase::Firing { since: now, untrue_since: None }
        }
        Phase::Pending { .. } => phase,
        Phase::Firing { since, .. } => Phase::Firing { since, untrue_since: None },
        Phase::Resolved { .. } => when_true(Phase::Pending { since: now }, now, hold),
    }
}

/// The next phase when the rule is not true; `None`: the alert is forgotten.
fn when_untrue(phase: Phase, now: Millis, keep_firing: Millis) -> Option<Phase> {
    match phase {
        Phase::Pending { .. } => None,
        Phase::Firing { since, untrue_since } => {
            let untrue_since = untrue_since.unwrap_or(now);
            Some(match now.saturating_sub(untrue_since) < keep_firing {
                true => Phase::Firing { since, untrue_since: Some(untrue_since) },
                false => Phase::Resolved { since, at: now },
            })
        }
        Phase::Resolved { at, .. } => (now.saturating_sub(at) <= RESOLVED_RETENTION).then_some(phase),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
