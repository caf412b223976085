//! The samples of series over a time window, and PromQL's range functions over it. Pure: the time is passed in with
//! each page.
//!
//! Rates and increases are extrapolated like `extrapolatedRate` (promql/functions.go) in version 3 of Prometheus does,
//! including resets. Earlier versions extrapolated a counter that started near zero within the window by up to 0.6 of
//! an interval more.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::histogram::{Buckets, Distribution};
use crate::metrics::catalogue::{Desc, Since};
use crate::metrics::family::LabelValues;

/// The label values that identify a series of a metric.
pub(super) type Key = LabelValues;

/// Milliseconds since 1970.
pub(super) type Millis = i64;

/// Prometheus' lookback delta: how long it uses the last sample of a series as its value.
const LOOKBACK: Millis = 5 * 60 * 1000;

/// One value of a series.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Reading {
    /// Value of a counter or a gauge.
    Number(f64),
    /// Value of a histogram.
    Buckets(Buckets),
}

impl Reading {
    /// The value, if it is a number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Buckets(_) => None,
        }
    }
}

/// A duration in milliseconds, saturating.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// The series of one operand, over its window.
#[derive(Debug)]
pub(super) struct Window {
    length: Millis,
    /// Whether a decrease of the counter means another device, instead of a reset to 0.
    of_devices: bool,
    /// Time of the newest page.
    newest: Option<Millis>,
    series: BTreeMap<Key, SeriesReadings>,
}

/// One series: its readings in the window and the last one before it. `None`: it was on the previous page, but not on
/// this one.
pub(super) type SeriesReadings = VecDeque<(Millis, Option<Reading>)>;

impl Window {
    /// A window of this length over series of this metric.
    pub(super) fn new(metric: &Desc, length: Duration) -> Self {
        let of_devices = metric.since == Some(Since::Lifetime);
        Self { length: millis(length), of_devices, newest: None, series: BTreeMap::new() }
    }

    /// Adds the readings of a page at `now`. If the clock went backwards, everything before is discarded.
    pub(super) fn push(&mut self, now: Millis, readings: BTreeMap<Key, Reading>) {
        if self.newest.replace(now).is_some_and(|last| last >= now) {
            self.series.clear();
        }
        let start = self.start(now);
        for (key, series) in &mut self.series {
            if !readings.contains_key(key) && series.back().is_some_and(|(_, reading)| reading.is_some()) {
                series.push_back((now, None));
            }
        }
        for (key, reading) in readings {
            self.series.entry(key).or_default().push_back((now, Some(reading)));
        }
        self.series.retain(|_, series| {
            forget(series, start);
            // Absent for the whole window.
            !matches!(series.back(), Some((at, None)) if *at <= start)
        });
    }

    /// Shifts all times after the clock was set by `by`.
    pub(super) fn clock_was_set(&mut self, by: Millis) {
        self.newest = self.newest.map(|at| at.saturating_add(by));
        self.series.values_mut().flatten().for_each(|(at, _)| *at = at.saturating_add(by));
    }

    /// Start of the window.
    pub(super) fn start(&self, now: Millis) -> Millis {
        now.saturating_sub(self.length)
    }

    /// All series.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &SeriesReadings)> {
        self.series.iter()
    }

    /// The series with these labels.
    pub(super) fn series(&self, key: &Key) -> Option<&SeriesReadings> {
        self.series.get(key)
    }

    /// The samples of a series in the window.
    pub(super) fn samples<'a>(
        &self,
        series: &'a SeriesReadings,
        now: Millis,
    ) -> impl Iterator<Item = (Millis, &'a Reading)> {
        within(series, self.start(now))
    }

    /// Whether a series existed at the start of the window, as PromQL's `offset` finds it.
    pub(super) fn was_there(&self, series: &SeriesReadings, now: Millis) -> bool {
        let start = self.start(now);
        let then = series.iter().rev().find(|(at, _)| *at <= start);
        then.is_some_and(|(at, reading)| reading.is_some() && *at > start.saturating_sub(LOOKBACK))
    }

    /// The value of a series on the newest page.
    pub(super) fn newest(&self, series: &SeriesReadings) -> Option<f64> {
        series.back().and_then(|(_, reading)| reading.as_ref()?.number())
    }

    /// The last value of a series in the window, even if the series has ended.
    pub(super) fn last(&self, series: &SeriesReadings, now: Millis) -> Option<f64> {
        self.samples(series, now).last().and_then(|(_, reading)| reading.number())
    }

    /// PromQL's `increase`; `None` if a device's counter decreased.
    pub(super) fn increase(&self, series: &SeriesReadings, now: Millis) -> Option<f64> {
        self.growth(series, now, 1.0)
    }

    /// Growth over the whole window, divided by `seconds`.
    fn growth(&self, series: &SeriesReadings, now: Millis, seconds: f64) -> Option<f64> {
        let samples = numbers(series, self.start(now));
        let [(_, first), .., (_, last)] = samples.as_slice() else { return None };
        let drops = samples.windows(2).filter(|pair| pair[1].1 < pair[0].1);
        if self.of_devices && drops.clone().next().is_some() {
            return None;
        }
        let growth = last - first + drops.map(|pair| pair[0].1).sum::<f64>();
        let times: Vec<_> = samples.iter().map(|&(at, _)| at).collect();
        Some(growth * (extrapolation(&times, *first, growth, self.start(now), now) / seconds))
    }

    /// Growth per second of each series with at least two samples.
    pub(super) fn rates(&self, now: Millis) -> impl Iterator<Item = (&Key, f64)> {
        let seconds = self.length as f64 / 1e3;
        self.all().filter_map(move |(key, series)| Some((key, self.growth(series, now, seconds)?)))
    }

    /// Observations per second of each histogram.
    pub(super) fn distributions(&self, now: Millis) -> impl Iterator<Item = (&Key, Distribution)> {
        let (start, seconds) = (now.saturating_sub(self.length), self.length as f64 / 1e3);
        self.series.iter().filter_map(move |(key, series)| {
            let samples: Vec<_> = within(series, start)
                .filter_map(|(at, reading)| match reading {
                    Reading::Buckets(buckets) => Some((at, buckets)),
                    Reading::Number(_) => None,
                })
                .collect();
            let [(_, first), .., (_, last)] = samples.as_slice() else { return None };
            let mut growth = Distribution::empty();
            growth.add(last, 1.0);
            growth.add(first, -1.0);
            for pair in samples.windows(2) {
                let mut step = Distribution::empty();
                step.add(pair[1].1, 1.0);
                step.add(pair[0].1, -1.0);
                if step.shrank() {
                    growth.add(pair[0].1, 1.0);
                }
            }
            let times: Vec<_> = samples.iter().map(|&(at, _)| at).collect();
            let factor = extrapolation(&times, first.count() as f64, growth.count(), start, now);
            let mut rate = Distribution::empty();
            rate.add_scaled(&growth, factor / seconds);
            Some((key, rate))
        })
    }

    /// The extrapolated value of each series `ahead` from now.
    pub(super) fn predictions(&self, now: Millis, ahead: Duration) -> impl Iterator<Item = (&Key, f64)> {
        let start = now.saturating_sub(self.length);
        self.series.iter().filter_map(move |(key, series)| {
            let samples = numbers(series, start);
            (samples.len() >= 2).then(|| (key, on_the_line(&samples, now, ahead.as_secs_f64())))
        })
    }
}

/// Drops readings before `start`, except the last of them.
fn forget(series: &mut SeriesReadings, start: Millis) {
    while series.get(1).is_some_and(|(second, _)| *second <= start) {
        series.pop_front();
    }
}

/// The samples since `start`.
fn within(series: &SeriesReadings, start: Millis) -> impl Iterator<Item = (Millis, &Reading)> {
    series.iter().filter(move |(at, _)| *at >= start).filter_map(|(at, reading)| Some((*at, reading.as_ref()?)))
}

fn numbers(series: &SeriesReadings, start: Millis) -> Vec<(Millis, f64)> {
    within(series, start).filter_map(|(at, reading)| Some((at, reading.number()?))).collect()
}

/// The factor that extrapolates the growth between the first and the last sample to the whole window. `times` has at
/// least two elements.
fn extrapolation(times: &[Millis], first: f64, growth: f64, start: Millis, now: Millis) -> f64 {
    let seconds = |from: Millis, to: Millis| (to - from) as f64 / 1e3;
    let (Some(&begin), Some(&end)) = (times.first(), times.last()) else { return 0.0 };
    let sampled = seconds(begin, end);
    let between = sampled / (times.len() - 1) as f64;
    // If samples are missing at an end for longer than this, the series started or ended there.
    let threshold = between * 1.1;
    let extended = |gap: f64| if gap < threshold { gap } else { between / 2.0 };
    let mut to_start = extended(seconds(start, begin));
    // A counter cannot have been below zero.
    if growth > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / growth));
    }
    (sampled + to_start + extended(seconds(end, now))) / sampled
}

/// Linear regression by least squares; the value on the line `ahead` seconds after `now`.
fn on_the_line(samples: &[(Millis, f64)], now: Millis, ahead: f64) -> f64 {
    let first = samples[0].1;
    if samples.iter().all(|&(_, value)| value.to_bits() == first.to_bits()) {
        return first;
    }
    let count = samples.len() as f64;
    let (mut x, mut y, mut xy, mut xx) = (0.0, 0.0, 0.0, 0.0);
    for &(at, value) in samples {
        // Relative to now and to the first value, to keep the precision of small slopes of large values.
        let (time, value) = ((at - now) as f64 / 1e3, value - first);
        (x, y, xy, xx) = (x + time, y + value, xy + time * value, xx + time * time);
    }
    let slope = (xy - x * y / count) / (xx - x * x / count);
    first + (y - slope * x) / count + slope * ahead
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
