//! Prometheus' protobuf format: length-delimited [`MetricFamily`] messages, the only format with native histograms.
//!
//! The messages are a subset of
//! [`io.prometheus.client`](https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto),
//! written by hand so that the build does not need `protoc`. Fields are `required` here, so that prost writes zeros
//! too: proto2 readers distinguish an absent field from 0.
//!
//! Histograms have both forms. Prometheus keeps the native one, and also the classic one if the scrape configuration
//! has `always_scrape_classic_histograms` (version 2: `scrape_classic_histograms`).

use std::collections::BTreeMap;

use citadel_agent_common::hist::{self, SCHEMA};
use prost::Message;

use super::buckets::{self, Classic};
use super::catalogue::{Desc, Kind};
use super::family::{self, Page, Value};
use super::foreign::{Families, ForeignSample};

/// A label of a metric.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// Label name.
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// Label value, any UTF-8.
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// Type of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum MetricType {
    /// The metrics have `counter` set.
    Counter = 0,
    /// The metrics have `gauge` set.
    Gauge = 1,
    /// The metrics have `untyped` set.
    Untyped = 3,
    /// The metrics have `histogram` set.
    Histogram = 4,
}

/// Value of a gauge.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// The value.
    #[prost(double, required, tag = "1")]
    pub value: f64,
}

/// Value of a metric of unknown type.
#[derive(Clone, PartialEq, Message)]
pub struct Untyped {
    /// The value.
    #[prost(double, required, tag = "1")]
    pub value: f64,
}

/// Value of a counter.
#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    /// The value.
    #[prost(double, required, tag = "1")]
    pub value: f64,
    /// Start of counting.
    #[prost(message, optional, tag = "3")]
    pub created_timestamp: Option<Timestamp>,
}

/// A point in time, `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A histogram in both forms.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Number of observations.
    #[prost(uint64, required, tag = "1")]
    pub sample_count: u64,
    /// Sum of the observations, in the unit of the family.
    #[prost(double, required, tag = "2")]
    pub sample_sum: f64,
    /// Classic buckets, by increasing bound.
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    /// Native form: log2 of the number of buckets per power of two.
    #[prost(sint32, required, tag = "5")]
    pub schema: i32,
    /// Native form: the widest value in the zero bucket.
    #[prost(double, required, tag = "6")]
    pub zero_threshold: f64,
    /// Native form: observations in the zero bucket.
    #[prost(uint64, required, tag = "7")]
    pub zero_count: u64,
    /// Native form: runs of buckets.
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    /// Native form: each bucket's count as the difference to the previous one. Not packed, as in proto2.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_delta: Vec<i64>,
    /// Start of counting.
    #[prost(message, optional, tag = "15")]
    pub created_timestamp: Option<Timestamp>,
}

/// A classic bucket.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    /// Observations up to the bound.
    #[prost(uint64, required, tag = "1")]
    pub cumulative_count: u64,
    /// The bound, inclusive.
    #[prost(double, required, tag = "2")]
    pub upper_bound: f64,
}

/// A run of native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct BucketSpan {
    /// Empty buckets since the last span; for the first span, the index of its first bucket.
    #[prost(sint32, required, tag = "1")]
    pub offset: i32,
    /// Buckets in the run.
    #[prost(uint32, required, tag = "2")]
    pub length: u32,
}

/// One label set and its value.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// The labels.
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    /// Set in families of gauges.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Gauge>,
    /// Set in families of counters.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Counter>,
    /// Set in families of unknown type.
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Untyped>,
    /// Set in families of histograms.
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

/// A family: one delimited message of a page.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    /// Full name, counters with `_total`.
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// HELP, unescaped.
    #[prost(string, required, tag = "2")]
    pub help: String,
    /// Type of all metrics in it.
    #[prost(enumeration = "MetricType", required, tag = "3")]
    pub r#type: i32,
    /// The metrics.
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
    /// The unit, which is also the suffix of the name.
    #[prost(string, optional, tag = "5")]
    pub unit: Option<String>,
}

/// Encodes a sorted page as delimited messages, one family at a time, so that at most one is in memory twice.
pub(super) fn encode(page: &Page) -> Vec<u8> {
    let start = page.start_seconds();
    let mut out = Vec::new();
    for family in &page.families {
        out.extend_from_slice(
            &message(family, family::began(family, start).map(timestamp)).encode_length_delimited_to_vec(),
        );
    }
    for (name, samples) in foreign_names(&page.foreign) {
        out.extend_from_slice(&foreign_message(name, &samples).encode_length_delimited_to_vec());
    }
    out
}

fn timestamp(seconds: f64) -> Timestamp {
    Timestamp { seconds: seconds.floor() as i64, nanos: (seconds.fract() * 1e9) as i32 }
}

fn message(family: &family::Family, created: Option<Timestamp>) -> MetricFamily {
    let desc = family.desc;
    MetricFamily {
        name: desc.name.to_owned(),
        help: desc.help.to_owned(),
        r#type: match desc.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Unknown => MetricType::Untyped,
        }
        .into(),
        metric: family.samples.iter().map(|sample| metric(desc, sample, created)).collect(),
        unit: Some(desc.unit.name()).filter(|unit| !unit.is_empty()).map(str::to_owned),
    }
}

/// Relayed samples by their own names: scraped without a type, a bucket is a series like any other.
fn foreign_names(families: &Families) -> BTreeMap<&str, Vec<&ForeignSample>> {
    let mut names: BTreeMap<&str, Vec<&ForeignSample>> = BTreeMap::new();
    for sample in families.values().flat_map(|family| &family.samples) {
        names.entry(&sample.name).or_default().push(sample);
    }
    names
}

fn foreign_message(name: &str, samples: &[&ForeignSample]) -> MetricFamily {
    let pair = |(name, value): (&String, &String)| LabelPair { name: name.clone(), value: value.clone() };
    let metric = |sample: &&ForeignSample| Metric {
        label: sample.labels.iter().map(pair).collect(),
        untyped: Some(Untyped { value: sample.value }),
        ..Metric::default()
    };
    MetricFamily {
        name: name.to_owned(),
        r#type: MetricType::Untyped.into(),
        metric: samples.iter().map(metric).collect(),
        ..MetricFamily::default()
    }
}

fn metric(desc: &Desc, sample: &family::Sample, created_timestamp: Option<Timestamp>) -> Metric {
    let label = (desc.labels.iter().zip(&sample.labels))
        .map(|(name, value)| LabelPair { name: (*name).to_owned(), value: value.to_string() })
        .collect();
    let mut metric = Metric { label, ..Metric::default() };
    match (&sample.value, desc.kind) {
        (Value::Histogram(value), _) => {
            metric.histogram = Some(histogram(value, buckets::classic(Some(desc)), created_timestamp));
        }
        (value, Kind::Counter) => metric.counter = Some(Counter { value: value.number(), created_timestamp }),
        (value, Kind::Unknown) => metric.untyped = Some(Untyped { value: value.number() }),
        (value, _) => metric.gauge = Some(Gauge { value: value.number() }),
    }
    metric
}

fn histogram(histogram: &hist::Histogram, classic: &Classic, created_timestamp: Option<Timestamp>) -> Histogram {
    let (spans, positive_delta) = buckets::native(classic.buckets, histogram);
    let bucket = (classic.bounds.iter().zip(classic.cumulative(histogram)))
        .map(|(&upper_bound, cumulative_count)| Bucket { cumulative_count, upper_bound })
        .collect();
    Histogram {
        sample_count: histogram.count(),
        sample_sum: classic.buckets.sum(histogram),
        bucket,
        schema: SCHEMA,
        zero_threshold: classic.buckets.zero_threshold(),
        zero_count: histogram.cells[0],
        positive_span: spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect(),
        positive_delta,
        created_timestamp,
    }
}
