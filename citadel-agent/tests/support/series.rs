//! Made-up series for alert engines: as a page at each step, and as promtool's notation of the same values.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use citadel_agent::metrics::Buckets;
use citadel_agent::metrics::catalogue::agent::PROCESS_START;
use citadel_agent::metrics::catalogue::{Desc, Kind};
use citadel_agent::metrics::family::{Family, LabelValues, Page, Sample, Value};
use citadel_agent_common::hist::{Histogram, SCHEMA, SUM_CELL};
use smol_str::SmolStr;

use super::chance::Chance;

/// How much the values change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Small steps.
    Calm,
    /// Large ones, resets, and series that come and go.
    Lively,
    /// Gauges only sink, each at its own pace, until they are 0.
    Ebbing,
}

/// Some series of each of some metrics, for some steps; the same for the same seed.
pub struct World {
    /// Time between two steps.
    pub interval: Duration,
    /// Number of steps.
    pub steps: usize,
    /// When the agent of each step started, in seconds.
    pub started: Vec<f64>,
    /// By name and label values.
    series: BTreeMap<(&'static str, LabelValues), Series>,
}

struct Series {
    desc: &'static Desc,
    /// One a step; `None`: it is not there.
    values: Vec<Option<Value>>,
}

/// A series that a test gives: metric, label values, and one value a step.
pub type Given<'a> = (&'static Desc, &'a [&'a str], Vec<Option<u32>>);

/// Values of labels that rules ask for by name.
const LABELS: [(&str, &[&str]); 19] = [
    ("latency", &["inter_token", "receive_queue"]),
    ("model", &["alpha", "beta"]),
    ("port", &["11400"]),
    ("endpoint", &["chat_completions", "health"]),
    ("code", &["200", "503"]),
    ("side", &["server", "client"]),
    ("phase", &["streaming", "waiting"]),
    ("status", &["broken"]),
    ("sensor", &["gpu", "memory"]),
    ("xid", &["13", "79"]),
    ("reason", &["hw_slowdown", "idle"]),
    ("state", &["failed", "active", "unauthorised"]),
    ("protocol", &["tls", "http1"]),
    ("kind", &["uncorrected", "failure"]),
    ("mountpoint", &["/", "/data"]),
    ("fstype", &["ext4"]),
    ("location", &[""]),
    ("result", &["failed"]),
    ("event", &["cuda_out_of_memory", "nccl_timeout", "engine_dead", "oom_kill", "xid"]),
];

/// Models of metrics that are also the host's.
const MODEL_OR_HOST: &[&str] = &["alpha", ""];

/// Series of one metric, at most.
const MOST: usize = 10;

impl World {
    /// These series, of an agent that started at `started`.
    pub fn of(interval: Duration, started: Vec<f64>, series: Vec<Given<'_>>) -> Self {
        let steps = started.len();
        let one = |(desc, labels, values): Given<'_>| {
            assert_eq!((desc.labels.len(), steps), (labels.len(), values.len()), "{}", desc.name);
            let values = values.into_iter().map(|value| value.map(|value| Value::Integer(value.into()))).collect();
            ((desc.name, labels.iter().map(SmolStr::new).collect()), Series { desc, values })
        };
        Self { interval, steps, started, series: series.into_iter().map(one).collect() }
    }

    /// Series of `metrics`, gauges around the given values, counters from `counted` on.
    pub fn new(
        metrics: &BTreeMap<&'static str, (&'static Desc, f64)>,
        (counted, started): (usize, f64),
        interval: Duration,
        steps: usize,
        seed: u64,
        behaviour: Behaviour,
    ) -> Self {
        let mut series = BTreeMap::new();
        for &(desc, around) in metrics.values() {
            let mut random = chance(seed, desc.name);
            for labels in label_sets(desc) {
                let values = values(desc, (around, counted), steps, behaviour, &mut random);
                series.insert((desc.name, labels), Series { desc, values });
            }
        }
        Self { interval, steps, started: vec![started; steps], series }
    }

    /// When a step is, in milliseconds.
    pub fn at(&self, step: usize) -> i64 {
        i64::try_from(self.interval.as_millis()).unwrap() * i64::try_from(step).unwrap()
    }

    /// The page at a step.
    pub fn page(&self, step: usize) -> Page {
        let mut page = Page::default();
        page.add(&PROCESS_START, [], Value::Float(self.started[step]));
        for ((_, labels), Series { desc, values }) in &self.series {
            let Some(value) = &values[step] else { continue };
            let sample = Sample { labels: labels.clone(), value: value.clone() };
            match page.families.iter_mut().find(|family| family.desc.name == desc.name) {
                Some(family) => family.samples.push(sample),
                None => page.families.push(Family { desc, samples: vec![sample], began: None }),
            }
        }
        page
    }

    /// Series and values in promtool's notation, with `target` among the labels; histograms as native ones or as classic
    /// buckets. The agent's start time is on every page.
    pub fn promtool_series(&self, target: &[(&str, &str)], native: bool) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for ((name, labels), Series { desc, values }) in &self.series {
            let labels: Vec<_> = desc.labels.iter().copied().zip(labels.iter().map(SmolStr::as_str)).collect();
            let mut push = |suffix: &str, more: &[(&str, &str)], written: &dyn Fn(&Value) -> String| {
                let named = [labels.as_slice(), target, more].concat();
                let named: Vec<_> = named.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let values: Vec<_> = values.iter().map(|value| value.as_ref().map(written)).collect();
                all.push((format!("{name}{suffix}{{{}}}", named.join(",")), notation(&values)));
            };
            if desc.kind != Kind::Histogram || native {
                push("", &[], &|value| match value {
                    Value::Integer(value) => value.to_string(),
                    Value::Float(value) => value.to_string(),
                    Value::Histogram(histogram) => native_notation(desc.buckets.unwrap(), histogram),
                });
                continue;
            }
            for &bound in desc.buckets.into_iter().flat_map(Buckets::bounds) {
                let le = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
                push("_bucket", &[("le", &le)], &move |value| match value {
                    Value::Histogram(histogram) => desc.buckets.unwrap().cumulative_to(histogram, bound).to_string(),
                    _ => String::new(),
                });
            }
        }
        let named: Vec<_> = target.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let start = format!("process_start_time_seconds{{{}}}", named.join(","));
        let started: Vec<_> = self.started.iter().map(|started| Some(started.to_string())).collect();
        all.push((start, notation(&started)));
        all
    }
}

/// A native histogram.
fn native_notation(of: Buckets, histogram: &Histogram) -> String {
    let cells = &histogram.cells[1..SUM_CELL];
    let first = cells.iter().position(|&count| count > 0).unwrap_or(0);
    let last = cells.iter().rposition(|&count| count > 0).unwrap_or(0);
    let buckets: Vec<_> = cells[first..=last].iter().map(u64::to_string).collect();
    format!(
        "{{{{schema:{SCHEMA} count:{} sum:{} z_bucket:{} z_bucket_w:{} offset:{} buckets:[{}]}}}}",
        histogram.count(),
        of.sum(histogram),
        histogram.cells[0],
        of.zero_threshold(),
        of.first_index() + i32::try_from(first).unwrap(),
        buckets.join(" "),
    )
}

/// `stale` where a series ends, `_` where it is not there.
fn notation(values: &[Option<String>]) -> String {
    let mut text = String::new();
    let mut there = false;
    for value in values {
        match value {
            Some(value) => _ = write!(text, "{value} "),
            None => text.push_str(if there { "stale " } else { "_ " }),
        }
        there = value.is_some();
    }
    text
}

/// Combinations of label values, the first ones of many.
fn label_sets(desc: &Desc) -> Vec<LabelValues> {
    let mut sets: Vec<LabelValues> = vec![vec![]];
    for label in desc.labels {
        let of_host = *label == "model" && desc.labels.contains(&"event");
        let values = match LABELS.iter().find(|(name, _)| name == label) {
            Some(_) if of_host => MODEL_OR_HOST,
            Some((_, values)) => values,
            None => &["x"],
        };
        let with = |set: &LabelValues, value: &&str| [set.as_slice(), &[(*value).into()]].concat();
        sets = sets.iter().flat_map(|set| values.iter().map(move |value| with(set, value))).collect();
    }
    // Spread over all of them, so that each value occurs.
    let stride = sets.len().div_ceil(MOST) | 1;
    sets.into_iter().step_by(stride).collect()
}

fn values(
    desc: &Desc,
    (around, counted): (f64, usize),
    steps: usize,
    behaviour: Behaviour,
    random: &mut Chance,
) -> Vec<Option<Value>> {
    let lively = behaviour == Behaviour::Lively;
    // A time in which the series is not there: at the beginning, in the middle, or never.
    let gap = match random.index(if lively { 3 } else { 6 }) {
        0 => 0..steps / 5 + random.index(steps / 5),
        1 if lively => steps / 2..steps / 2 + random.index(steps / 8),
        _ => 0..0,
    };
    let mut number = random.index(30) as f64;
    if desc.kind == Kind::Counter {
        number += counted as f64;
    }
    let mut histogram = Histogram::EMPTY;
    // Prometheus extrapolates each classic bucket by itself, and not below zero: one that has just left zero counts for less
    // than its neighbours, which is no property of the rules. So none is near zero.
    (0..20).for_each(|octave| (0..1000).for_each(|_| histogram.observe(1_000_000 << octave)));
    let pace = (2 + random.index(4)) as f64 / 2.0;
    let (mut regime, mut held) = (0, None);
    let mut values = Vec::new();
    for step in 0..steps {
        if step % 37 == 0 {
            regime = random.index(4);
            held = (random.index(4) == 0).then(|| random.index(2) as f64);
        }
        match desc.kind {
            Kind::Counter => {
                // Versions also extrapolate otherwise where all that was seen is a first value and a reset.
                if lively && random.index(150) == 0 && step != gap.end + 1 {
                    number = counted as f64;
                }
                let growth = [0, 1, 3, if lively { 900 } else { 30 }][regime];
                number += if growth == 1 {
                    f64::from(u8::from(random.index(9) == 0))
                } else {
                    random.index(growth + 1) as f64
                };
            }
            Kind::Histogram => {
                (0..regime * 3).for_each(|_| histogram.observe(1_000_000 << (random.index(8) + 3 * regime)));
            }
            _ if behaviour == Behaviour::Ebbing => {
                number = (100.0 - 100.0 * pace * step as f64 / steps as f64).max(0.0);
            }
            // A flag that stays, for rules that want that.
            _ if held.is_some() => number = held.unwrap_or_default(),
            // Flags and counts, and now and then a slope.
            _ => {
                number = match regime {
                    0 => random.index(2) as f64,
                    1 => (number - 2.5).max(0.0),
                    2 => number + random.index(4) as f64,
                    _ => random.index(6) as f64,
                }
            }
        }
        let value = match desc.kind {
            Kind::Histogram => Value::Histogram(Box::new(histogram)),
            // No round numbers: engines that add in another order would round a tie otherwise.
            Kind::Counter => Value::Float(number * 1.000_371),
            _ => Value::Float(number * (around / 4.0).max(1.0)),
        };
        values.push((!gap.contains(&step)).then_some(value));
    }
    values
}

/// Chance of a metric, so that the values of one do not change with which others there are.
fn chance(seed: u64, name: &str) -> Chance {
    let name = name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    Chance::new(name.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
