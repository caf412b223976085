//! The engine: takes a page, updates the state of all alerts, and returns the notifications that are due. Pure: the
//! time is passed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::annotation::render;
use super::evaluate::{CarryOver, evaluate};
use super::notification::Notification;
use super::state::{Alert, AlertStates, Found, Phase, Texts};
use super::window::{Millis, millis};
use crate::config::resolved::alerts::{Rule, Severity};
use crate::metrics::family::Page;

/// Interval at which notifications are repeated.
const RESEND: Millis = 60 * 1000;

/// Input of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules, with distinct names.
    pub rules: Vec<Rule>,
    /// Interval between two pages.
    pub interval: Duration,
    /// How long after the start a source may be missing although it will appear.
    pub settling: Duration,
    /// Labels added to every alert, which identify the host.
    pub labels: Texts,
    /// Link to a page with more details.
    pub generator_url: String,
}

/// Rules, their memory, and the alerts.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    memories: Vec<CarryOver>,
    state: AlertStates,
    started: Millis,
    /// What was last sent for each alert.
    sent: BTreeMap<Texts, Sent>,
}

/// The last notification of an alert.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// When it was sent.
    at: Millis,
    /// Since when the alert had been firing, or when it was resolved: a different time means a change.
    changed: Millis,
}

impl Engine {
    /// Creates an engine at `now` that continues with `alerts`, saved at `saved`.
    #[must_use]
    pub fn new(settings: Settings, alerts: Vec<Alert>, saved: Millis, now: Millis) -> Self {
        let memories = settings.rules.iter().map(CarryOver::new).collect();
        let state = AlertStates::restored(alerts, saved, now);
        Self { settings, memories, state, started: now, sent: BTreeMap::new() }
    }

    /// Evaluates every rule on `page`, which was read at `now`. Returns whether any alert changed its phase.
    pub fn evaluate(&mut self, page: &Page, now: Millis) -> bool {
        let mut changed = false;
        for (rule, memory) in self.settings.rules.iter().zip(&mut self.memories) {
            let vector = evaluate(rule, memory, page, now);
            let found = vector.into_iter().map(|(labels, value)| found(rule, &self.settings.labels, labels, value));
            let seen = Duration::from_millis(u64::try_from(now.saturating_sub(self.started)).unwrap_or(0));
            let settled = seen >= rule.longest_window() + self.settings.settling;
            changed |= self.state.step(rule, found.collect(), now, settled);
        }
        let rules = &self.settings.rules;
        changed | self.state.end_others(|name| rules.iter().any(|rule| rule.name == name), now)
    }

    /// Notifications due at `now`: new firing and resolved alerts, and repetitions of both.
    pub fn due(&mut self, now: Millis) -> Vec<Arc<Notification>> {
        let interval = millis(self.settings.interval);
        let valid_until = now.saturating_add(interval.max(RESEND).saturating_mul(4));
        let mut due = Vec::new();
        let mut sent = BTreeMap::new();
        for alert in self.state.alerts() {
            let (starts_at, ends_at, changed) = match alert.phase {
                Phase::Pending { .. } => continue,
                Phase::Firing { since, .. } => (since, valid_until, since),
                Phase::Resolved { since, at } => (since, at, at),
            };
            // Rather half an interval early than half an interval late.
            let recent = |last: &Sent| now.saturating_sub(last.at) < RESEND - interval / 2 && last.changed == changed;
            let last = self.sent.get(&alert.labels).copied().filter(recent);
            sent.insert(alert.labels.clone(), last.unwrap_or(Sent { at: now, changed }));
            if last.is_none() {
                due.push(Arc::new(Notification {
                    labels: alert.labels.clone(),
                    annotations: alert.annotations.clone(),
                    // Alertmanager refuses an alert that ends before it starts.
                    starts_at: starts_at.min(ends_at.saturating_sub(1)),
                    ends_at,
                    generator_url: self.settings.generator_url.clone(),
                }));
            }
        }
        self.sent = sent;
        due
    }

    /// All alerts that are pending, firing or recently resolved.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.state.alerts()
    }

    /// Number of firing alerts by severity.
    #[must_use]
    pub fn firing(&self) -> [(Severity, u64); 3] {
        Severity::ALL.map(|severity| (severity, self.state.firing(severity)))
    }

    /// Shifts all times after the clock was set by `by`.
    pub fn clock_was_set(&mut self, by: Millis) {
        self.started = self.started.saturating_add(by);
        self.state.clock_was_set(by);
        self.memories.iter_mut().for_each(|memory| memory.clock_was_set(by));
        for sent in self.sent.values_mut() {
            sent.at = sent.at.saturating_add(by);
            sent.changed = sent.changed.saturating_add(by);
        }
    }
}

/// An alert for a result of a rule. The rule's labels cannot override those of the series: the configuration refuses
/// that.
fn found(rule: &Rule, everywhere: &Texts, series: BTreeMap<&'static str, String>, value: f64) -> Found {
    let mut labels = everywhere.clone();
    labels.extend(series.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let text = |template| render(template, &labels, value, rule.condition.threshold);
    let annotations = rule.annotations.iter().map(|(name, template)| (name.clone(), text(template))).collect();
    labels.extend(rule.labels.clone());
    labels.insert("alertname".to_owned(), rule.name.clone());
    labels.insert("severity".to_owned(), rule.severity.name().to_owned());
    Found { labels, annotations }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
