//! The engine: a page in, the state of all alerts and what has to be sent out. Pure: it is told what time it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::annotation::render;
use super::evaluate::{Memory, evaluate};
use super::notification::Notification;
use super::state::{Alert, Found, Phase, State, Texts};
use super::window::{Millis, millis};
use crate::config::resolved::alerts::{Rule, Severity};
use crate::metrics::family::Page;

/// How often what was sent is sent again.
const RESEND: Millis = 60 * 1000;

/// What the engine is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules, no two of one name.
    pub rules: Vec<Rule>,
    /// How often it is given a page.
    pub interval: Duration,
    /// How long after its start sources may still be silent that are not.
    pub settling: Duration,
    /// Labels that every alert gets, for what tells this host from others.
    pub labels: Texts,
    /// Where a person sees more.
    pub generator_url: String,
}

/// Rules, what they remember, and the alerts.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    memories: Vec<Memory>,
    state: State,
    started: Millis,
    /// What was last sent of each alert.
    sent: BTreeMap<Texts, Sent>,
}

/// What was last sent of an alert.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// When it was sent.
    at: Millis,
    /// Since when it had fired, or when it had ended: another time is news.
    changed: Millis,
}

impl Engine {
    /// An engine at `now` that takes up `alerts` as they were at `saved`.
    #[must_use]
    pub fn new(settings: Settings, alerts: Vec<Alert>, saved: Millis, now: Millis) -> Self {
        let memories = settings.rules.iter().map(Memory::new).collect();
        let state = State::restored(alerts, saved, now);
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

    /// What has to be sent at `now`: what began to fire or ended, and both again after a while.
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
            // Half an interval early rather than half an interval late.
            let recent = |last: &Sent| now.saturating_sub(last.at) < RESEND - interval / 2 && last.changed == changed;
            let last = self.sent.get(&alert.labels).copied().filter(recent);
            sent.insert(alert.labels.clone(), last.unwrap_or(Sent { at: now, changed }));
            if last.is_none() {
                due.push(Arc::new(Notification {
                    labels: alert.labels.clone(),
                    annotations: alert.annotations.clone(),
                    // Alertmanager refuses what ends before it begins.
                    starts_at: starts_at.min(ends_at.saturating_sub(1)),
                    ends_at,
                    generator_url: self.settings.generator_url.clone(),
                }));
            }
        }
        self.sent = sent;
        due
    }

    /// All alerts that are pending or firing, or have ended lately.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.state.alerts()
    }

    /// How many fire, by severity.
    #[must_use]
    pub fn firing(&self) -> [(Severity, u64); 3] {
        Severity::ALL.map(|severity| (severity, self.state.firing(severity)))
    }

    /// The clock was set by so much: all times move along.
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

/// An alert for what a rule found. The rule's labels cannot hide those of the series: the configuration refuses that.
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
