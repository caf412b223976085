//! The state of alerts: inactive, pending, firing, resolved. Pure: what is true and what time it is come in.
//!
//! The transitions are those of Prometheus' alerting rules (rules/alerting.go), with one more: until a rule has seen as
//! much as it looks back over, an alert from before the restart stays what it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::window::{Millis, millis};
use crate::config::resolved::alerts::{Rule, Severity};

/// Names and values of an alert's labels, or of its annotations.
pub type Texts = BTreeMap<String, String>;

/// How long a resolved alert is repeated, so that a peer that was away still hears of it.
pub(super) const RESOLVED_RETENTION: Millis = 15 * 60 * 1000;

/// How long after the last save what was pending counts as pending still.
const PENDING_RETENTION: Millis = 60 * 60 * 1000;

/// The year 2020: a clock that says less has not been set since the host booted.
const CLOCK_IS_SET: Millis = 1_577_836_800_000;

/// Alerts are not older than this, whatever a file says: a hundred years.
const OLDEST: Millis = 100 * 366 * 24 * 60 * 60 * 1000;

/// One label set of one rule that is, or was, true.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// Everything that tells it from others, `alertname` and `severity` among them.
    pub labels: Texts,
    /// What a person is told, with the values of when it was last true.
    pub annotations: Texts,
    /// Where it stands.
    pub phase: Phase,
}

/// Where an alert stands. Times are milliseconds since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// True, but not yet for as long as the rule asks.
    Pending {
        /// Since when.
        since: Millis,
    },
    /// Firing.
    Firing {
        /// Since when.
        since: Millis,
        /// When it was first found to be no longer true, while it is kept firing.
        untrue_since: Option<Millis>,
    },
    /// It fired, and no longer does.
    Resolved {
        /// When it began to fire.
        since: Millis,
        /// When it ended.
        at: Millis,
    },
}

impl Phase {
    /// Its times: the first one, and the one after it.
    fn times(&mut self) -> (&mut Millis, Option<&mut Millis>) {
        match self {
            Self::Pending { since } => (since, None),
            Self::Firing { since, untrue_since } => (since, untrue_since.as_mut()),
            Self::Resolved { since, at } => (since, Some(at)),
        }
    }

    /// Moves its times along with a clock.
    fn move_by(&mut self, by: Millis) {
        let (since, later) = self.times();
        *since = since.saturating_add(by);
        later.into_iter().for_each(|at| *at = at.saturating_add(by));
    }

    /// Makes its times such as an alert can have at `now`.
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

/// What a rule found true.
pub(super) struct Found {
    pub(super) labels: Texts,
    pub(super) annotations: Texts,
}

/// All alerts of all rules, by their labels.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct State {
    alerts: BTreeMap<Texts, Alert>,
    /// Alerts from before the restart that have not been found true since.
    from_before: BTreeSet<Texts>,
}

impl State {
    /// What was saved at `saved`, taken up at `now`. The time in between counts neither for nor against what was pending,
    /// and after long enough it is forgotten.
    ///
    /// Where the clock was set back in between, or only now is set at all, nobody knows how long that was: all times move
    /// along, as if it had been none. No time is after `now`, whatever was saved.
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

    /// How many fire, by severity.
    pub(super) fn firing(&self, severity: Severity) -> u64 {
        let of_severity = |alert: &&Alert| alert.labels.get("severity").is_some_and(|name| name == severity.name());
        let firing = |alert: &&Alert| matches!(alert.phase, Phase::Firing { .. });
        self.alerts().filter(firing).filter(of_severity).count() as u64
    }

    /// Takes what `rule` found true at `now`. `settled`: the rule has seen enough since the restart to say that what was
    /// true before is no longer.
    /// Returns whether anything changed its phase.
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

    /// Ends the alerts of rules that are no more. Returns whether there were any.
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

    /// Moves all times along with a clock that was set.
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

/// `None`: it is forgotten.
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
