//! What readers get: sums, gauges and histograms between two times. The answers of the control socket are these types
//! as JSON.

use std::collections::BTreeMap;

use citadel_agent_common::hist::{FIRST_INDEX, SCHEMA};
use serde::{Deserialize, Serialize};

/// Windows of one subject.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SubjectHistory {
    /// `host`, a model's port, or `gpu:UUID`.
    pub subject: String,
    /// The model's name; for a GPU, its index.
    pub name: String,
    /// Consecutive windows; empty if nothing is known.
    pub windows: Vec<Window>,
}

/// The measurements between two times.
///
/// Keys are names, with label values appended after dots if there are several: `requests.chat_completions.200`,
/// `syscall_seconds.fsync`. They are listed in `docs/history.md`. A missing key was not measured or, for a sum, did not
/// increase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// Start of its first interval, in milliseconds since 1970; 0 in an empty window.
    pub from_ms: i64,
    /// End of its last interval; 0 in an empty window.
    pub to_ms: i64,
    /// Seconds for which there are measurements: less than from start to end if the agent or the model was not running.
    pub covered_seconds: f64,
    /// Increase of counters, in their unit.
    pub sums: BTreeMap<String, f64>,
    /// Gauges.
    pub gauges: BTreeMap<String, Gauge>,
    /// Histograms.
    pub histograms: BTreeMap<String, Distribution>,
}

/// A gauge over a period.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gauge {
    /// Mean over the time in which there was a value.
    pub mean: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
    /// Last value.
    pub last: f64,
}

/// Observed durations, in native buckets (schema 3: eight per power of two).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of observations.
    pub count: u64,
    /// Sum in seconds.
    pub sum: f64,
    /// Width of the buckets, in eighths of a power of two: 1 in the short intervals; in minutes 2 (first_token,
    /// inter_token), 8 (run_queue) or 4.
    pub width: u8,
    /// Non-empty buckets by native index: bucket `i` covers `2^((i-width)/8)` s to `2^(i/8)` s, and the lowest one
    /// everything shorter.
    pub buckets: Vec<(i16, u64)>,
}

/// Values of the label `endpoint` for requests that are no user's.
pub(crate) const CHECKED: [&str; 3] = ["health", "metrics", "models"];

/// Index of the bucket of everything shorter than a microsecond.
pub const ZERO_BUCKET: i16 = (FIRST_INDEX - 1) as i16;

/// Upper bound of a native bucket, in seconds.
#[must_use]
pub fn upper_bound(index: i16) -> f64 {
    2f64.powf(f64::from(index) / f64::from(1 << SCHEMA))
}

impl Distribution {
    /// Mean in seconds; `None` without observations.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Standard deviation in seconds, with each observation in the middle of its bucket; `None` without observations.
    #[must_use]
    pub fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let middle = |index: i16| 2f64.powf((f64::from(index) - 0.5 * f64::from(self.width)) / f64::from(1 << SCHEMA));
        let square = |&(index, count): &(i16, u64)| count as f64 * (middle(index) - mean).powi(2);
        Some((self.buckets.iter().map(square).sum::<f64>() / self.count as f64).sqrt())
    }

    /// A quantile in seconds, interpolated within its bucket like Prometheus does; `None` without observations.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let wanted = quantile * self.count as f64;
        let mut below = 0;
        for &(index, count) in &self.buckets {
            if (below + count) as f64 >= wanted {
                let part = ((wanted - below as f64) / count as f64).clamp(0.0, 1.0);
                if index == ZERO_BUCKET {
                    return Some(upper_bound(index) * part);
                }
                return Some(
                    2f64.powf((f64::from(index) - (1.0 - part) * f64::from(self.width)) / f64::from(1 << SCHEMA)),
                );
            }
            below += count;
        }
        self.buckets.last().map(|&(index, _)| upper_bound(index))
    }

    /// Upper bound of the longest observation, in seconds.
    #[must_use]
    pub fn longest(&self) -> Option<f64> {
        self.buckets.last().map(|&(index, _)| upper_bound(index))
    }
}

impl Distribution {
    /// Adds the observations of another one; the buckets are then taken to be as wide as the wider ones.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.width = self.width.max(other.width);
        let mut buckets: BTreeMap<_, _> = self.buckets.iter().copied().collect();
        for &(index, count) in &other.buckets {
            *buckets.entry(index).or_insert(0) += count;
        }
        self.buckets = buckets.into_iter().collect();
    }
}

impl Window {
    /// Adds a later window.
    pub fn merge(&mut self, later: &Self) {
        if self.covered_seconds == 0.0 {
            self.from_ms = later.from_ms;
        }
        self.to_ms = later.to_ms;
        for (key, sum) in &later.sums {
            *self.sums.entry(key.clone()).or_insert(0.0) += sum;
        }
        for (key, gauge) in &later.gauges {
            let (before, weight) = (self.covered_seconds, later.covered_seconds);
            let merged = self.gauges.get(key).map_or(*gauge, |known| Gauge {
                mean: (known.mean * before + gauge.mean * weight) / (before + weight).max(f64::MIN_POSITIVE),
                min: known.min.min(gauge.min),
                max: known.max.max(gauge.max),
                last: gauge.last,
            });
            self.gauges.insert(key.clone(), merged);
        }
        for (key, histogram) in &later.histograms {
            self.histograms.entry(key.clone()).or_default().merge(histogram);
        }
        self.covered_seconds += later.covered_seconds;
    }

    /// A sum; 0 if it did not increase or is not measured.
    #[must_use]
    pub fn sum(&self, key: &str) -> f64 {
        self.sums.get(key).copied().unwrap_or(0.0)
    }

    /// Sums whose key starts with `prefix` and a dot, with the rest of the key.
    pub fn sums_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let begin = format!("{prefix}.");
        self.sums.range(begin.clone()..).map_while(move |(key, value)| Some((key.strip_prefix(&begin)?, *value)))
    }

    /// Total of all sums whose key starts with `prefix` and a dot.
    #[must_use]
    pub fn total_of(&self, prefix: &str) -> f64 {
        self.sums_of(prefix).map(|(_, value)| value).sum()
    }

    /// Requests by endpoint and code, without the endpoints that health checks, load balancers and scrapers ask: where those
    /// count, a model without users has requests, and a failing health check is an error of theirs.
    pub(crate) fn requests_of_users(&self) -> impl Iterator<Item = (&str, f64)> {
        let checked = |key: &str| CHECKED.contains(&key.split('.').next().unwrap_or_default());
        self.sums_of("requests").filter(move |(key, _)| !checked(key))
    }

    /// How many of them there are.
    #[must_use]
    pub(crate) fn count_of_users(&self) -> f64 {
        self.requests_of_users().map(|(_, count)| count).sum()
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, key: &str) -> Option<Gauge> {
        self.gauges.get(key).copied()
    }

    /// Gauges whose key starts with `prefix` and a dot, with the rest of the key.
    pub fn gauges_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Gauge)> {
        let begin = format!("{prefix}.");
        self.gauges.range(begin.clone()..).map_while(move |(key, value)| Some((key.strip_prefix(&begin)?, *value)))
    }

    /// A histogram; `None` without observations.
    #[must_use]
    pub fn histogram(&self, key: &str) -> Option<&Distribution> {
        self.histograms.get(key).filter(|histogram| histogram.count > 0)
    }
}
