//! The course of a model over a longer time, for sparklines and heat maps. Pure.

use crate::history::Millis;
use crate::history::window::{Distribution, Window};

use super::view::errors;

/// Points of equal length, the oldest first.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Trend {
    /// Length of a point, in seconds.
    pub(super) step_seconds: f64,
    /// One per step; `None` if nothing was measured.
    pub(super) points: Vec<Option<Point>>,
}

/// One point.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Point {
    /// Requests that ended per second.
    pub(super) requests: f64,
    /// Mean number of requests in flight.
    pub(super) in_flight: Option<f64>,
    /// Requests per second that ended with 5xx or were aborted.
    pub(super) failed: f64,
    /// CPUs in use.
    pub(super) cpus: f64,
    /// SM utilisation, 0 to 1, summed over all GPUs.
    pub(super) gpu_sm: Option<f64>,
    /// Times to first token.
    pub(super) first_token: Distribution,
    /// Times between chunks.
    pub(super) inter_token: Distribution,
}

/// Which times a heat map shows.
pub(super) type Times = fn(&Point) -> &Distribution;

impl Trend {
    /// From windows of `step_ms` between two times, as the history gives them: those without numbers are left out.
    #[must_use]
    pub(super) fn of(windows: &[Window], from_ms: Millis, to_ms: Millis, step_ms: Millis) -> Self {
        let steps = usize::try_from((to_ms - from_ms) / step_ms.max(1)).unwrap_or(0);
        let mut points = vec![None; steps];
        for window in windows.iter().filter(|window| window.covered_seconds > 0.0) {
            let middle = window.from_ms + (window.to_ms - window.from_ms) / 2;
            let step = usize::try_from((middle - from_ms).div_euclid(step_ms.max(1)));
            if let Some(point) = step.ok().and_then(|step| points.get_mut(step)) {
                *point = Some(Point::of(window));
            }
        }
        Self { step_seconds: step_ms as f64 / 1000.0, points }
    }

    /// The newest `count` points.
    #[must_use]
    pub(super) fn newest(&self, count: usize) -> &[Option<Point>] {
        &self.points[self.points.len().saturating_sub(count)..]
    }
}

impl Point {
    fn of(window: &Window) -> Self {
        let by_second = |count: f64| count / window.covered_seconds;
        let times = |key: &str| window.histogram(key).cloned().unwrap_or_default();
        let sm = window.gauges_of("gpu_sm_ratio").map(|(_, gauge)| gauge.mean).reduce(|a, b| a + b);
        Self {
            requests: by_second(window.count_of_users()),
            in_flight: window.gauge("in_flight").map(|gauge| gauge.mean),
            failed: by_second(errors(window) + window.total_of("aborted")),
            cpus: by_second(window.total_of("cpu_seconds")),
            gpu_sm: sm,
            first_token: times("first_token"),
            inter_token: times("inter_token"),
        }
    }
}

/// A row of a heat map: times up to a bound.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Band {
    /// The longest time in it, in seconds.
    pub(super) up_to: f64,
    /// The count at each point.
    pub(super) counts: Vec<u64>,
}

/// The heat map of `points` in at most `rows` bands, the longest times first. Bands are octaves, or as many of them together as it
/// takes. Empty where nothing was observed.
#[must_use]
pub(super) fn heat(points: &[Option<Point>], times: Times, rows: usize) -> Vec<Band> {
    let octave = |index: i16| i32::from(index + 7).div_euclid(8);
    let all = || points.iter().flatten().flat_map(|point| &times(point).buckets).map(|&(index, _)| octave(index));
    let (Some(lowest), Some(highest)) = (all().min(), all().max()) else { return Vec::new() };
    let rows = i32::try_from(rows.max(1)).unwrap_or(i32::MAX);
    let octaves = highest - lowest + 1;
    let together = (octaves + rows - 1) / rows;
    let bands = (octaves + together - 1) / together;
    let mut heat: Vec<_> = (0..bands)
        .map(|band| Band { up_to: 2f64.powi(highest - band * together), counts: vec![0; points.len()] })
        .collect();
    for (at, point) in points.iter().enumerate() {
        for &(index, count) in point.iter().flat_map(|point| &times(point).buckets) {
            let band = usize::try_from((highest - octave(index)) / together).unwrap_or(0);
            if let Some(cell) = heat.get_mut(band).and_then(|band| band.counts.get_mut(at)) {
                *cell = cell.saturating_add(count);
            }
        }
    }
    heat
}
