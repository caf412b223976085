//! The increase of counters, depending on what they count from. Pure.
//!
//! PromQL's `increase` treats the first value in the window as the baseline, so it never sees the event with which a
//! series appears. Treating every new series as starting from 0 would be just as wrong: a GPU's lifetime ECC errors
//! appear when NVML is opened. The catalogue records which is which ([`Since`]), and `prometheus.rs` writes the same
//! cases as expressions.

use std::time::Duration;

use super::window::{Key, Millis, SeriesReadings, Window};
use crate::metrics::catalogue::agent::{PROBE_START, PROCESS_START};
use crate::metrics::catalogue::{Desc, Since};
use crate::metrics::family::{Page, Value};

/// The pages that had the metric in [`Desc::beside`] of a counter: if a page has it but not the counter, the counter
/// was 0.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) metric: &'static Desc,
    /// Its series.
    pub(super) window: Window,
    /// Positions of the metric's labels among those of the counter.
    labels: Vec<usize>,
}

impl Beside {
    /// For a counter that has such a metric.
    pub(super) fn of(counter: &'static Desc, length: Duration) -> Option<Self> {
        let metric = counter.beside?;
        let place = |name| counter.labels.iter().position(|label| label == name);
        let labels = metric.labels.iter().map(place).collect::<Option<_>>()?;
        Some(Self { metric, window: Window::new(metric, length), labels })
    }

    /// Whether a page in the window has the metric but not the counter with these labels.
    fn counter_was_zero(&self, key: &Key, counter: &SeriesReadings, now: Millis) -> bool {
        let own: Key = self.labels.iter().filter_map(|&place| key.get(place).cloned()).collect();
        let there = self.window.series(&own).map_or(0, |series| self.window.samples(series, now).count());
        self.window.samples(counter, now).count() < there
    }
}

/// When a counter of the agent's own was 0, according to the page: at the agent's start, or, if the kernel programs are older, when
/// they were attached.
pub(super) fn counted_from(page: &Page, counter: &Desc) -> Option<Millis> {
    let start = if counter.since == Some(Since::Programs) { gauge(page, &PROBE_START) } else { None };
    Some((start.or_else(|| gauge(page, &PROCESS_START))? * 1e3) as Millis)
}

fn gauge(page: &Page, desc: &Desc) -> Option<f64> {
    let family = page.families.iter().find(|family| family.desc.name == desc.name)?;
    match family.samples.first()?.value {
        Value::Integer(seconds) => Some(seconds as f64),
        Value::Float(seconds) => Some(seconds),
        Value::Histogram(_) => None,
    }
}

/// The increase of each series of a counter in the window. `started`: see [`counted_from`].
pub(super) fn increases<'a>(
    counter: &'static Desc,
    window: &'a Window,
    beside: Option<&'a Beside>,
    started: Option<Millis>,
    now: Millis,
) -> impl Iterator<Item = (&'a Key, f64)> {
    // Everything that such a counter has counted lies in this window.
    let from_start = counter.counts_since_start() && started.is_some_and(|started| started > window.start(now));
    window.all().filter_map(move |(key, series)| {
        let new = |beside: &&Beside| !window.was_there(series, now) && beside.counter_was_zero(key, series, now);
        let growth = if from_start && let Some(value) = window.newest(series) {
            Some(value)
        } else if !from_start && beside.as_ref().is_some_and(new) {
            window.last(series, now)
        } else {
            window.increase(series, now)
        };
        Some((key, growth?))
    })
}

#[cfg(test)]
#[path = "increase_tests.rs"]
mod tests;
