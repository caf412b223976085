//! What readers get: sums, levels and distributions between two times. The answers of the control socket have these types as
//! JSON.

use std::collections::BTreeMap;

use citadel_agent_common::hist::{FIRST_INDEX, SCHEMA};
use serde::{Deserialize, Serialize};

/// Windows of one subject.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// `host`, a model's port, or `gpu:UUID`.
    pub subject: String,
    /// The model's name; of a GPU its index.
    pub name: String,
    /// One after the other; none where nothing is known.
    pub windows: Vec<Window>,
}

/// What happened between two times.
///
/// Keys are names, with label values behind dots where there are several: `requests.chat_completions.200`, `syscall_seconds.fsync`.
/// `docs/explain.md` lists them. What is not there was not measured, or, of a sum, did not grow.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// Begin of its first interval, milliseconds since the epoch; 0 in an empty window.
    pub from_ms: i64,
    /// End of its last interval; 0 in an empty window.
    pub to_ms: i64,
    /// For how long numbers exist in it, in seconds: less than from begin to end where the agent or the model was not there.
    pub covered_seconds: f64,
    /// How much counters grew, in their unit.
    pub sums: BTreeMap<String, f64>,
    /// Levels.
    pub gauges: BTreeMap<String, Gauge>,
    /// Distributions.
    pub histograms: BTreeMap<String, Distribution>,
}

/// A level over some time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gauge {
    /// Mean over the time in which there was a value.
    pub mean: f64,
    /// Lowest.
    pub min: f64,
    /// Highest.
    pub max: f64,
    /// Newest.
    pub last: f64,
}

/// Durations that were observed, in native buckets (schema 3: eight an octave).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All together, in seconds.
    pub sum: f64,
    /// How wide buckets are, in eighths of an octave: 1 in the short intervals; in minutes 2 (first_token, inter_token), 8 (run_queue)
    /// or 4.
    pub width: u8,
    /// Buckets that hold something, by their native index: bucket `i` goes from `2^((i-width)/8)` s to `2^(i/8)` s, and the lowest
    /// takes everything shorter.
    pub buckets: Vec<(i16, u64)>,
}

/// Index of the bucket of everything that is shorter than a microsecond.
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

    /// A quantile in seconds, interpolated within its bucket as Prometheus does; `None` without observations.
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

    /// Upper bound of the longest, in seconds.
    #[must_use]
    pub fn longest(&self) -> Option<f64> {
        self.buckets.last().map(|&(index, _)| upper_bound(index))
    }
}

impl Window {
    /// A sum; 0 where it did not grow or is not measured.
    #[must_use]
    pub fn sum(&self, key: &str) -> f64 {
        self.sums.get(key).copied().unwrap_or(0.0)
    }

    /// Sums whose key begins with `prefix` and a dot, with the rest of the key.
    pub fn sums_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let begin = format!("{prefix}.");
        self.sums.range(begin.clone()..).map_while(move |(key, value)| Some((key.strip_prefix(&begin)?, *value)))
    }

    /// All sums whose key begins with `prefix` and a dot, together.
    #[must_use]
    pub fn total_of(&self, prefix: &str) -> f64 {
        self.sums_of(prefix).map(|(_, value)| value).sum()
    }

    /// A level.
    #[must_use]
    pub fn gauge(&self, key: &str) -> Option<Gauge> {
        self.gauges.get(key).copied()
    }

    /// Levels whose key begins with `prefix` and a dot, with the rest of the key.
    pub fn gauges_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Gauge)> {
        let begin = format!("{prefix}.");
        self.gauges.range(begin.clone()..).map_while(move |(key, value)| Some((key.strip_prefix(&begin)?, *value)))
    }

    /// A distribution; `None` without observations.
    #[must_use]
    pub fn histogram(&self, key: &str) -> Option<&Distribution> {
        self.histograms.get(key).filter(|histogram| histogram.count > 0)
    }
}
