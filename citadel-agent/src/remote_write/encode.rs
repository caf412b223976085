//! Samples of a record -> the body of a request, in either protocol. Pure.
//!
//! One series is encoded at a time, so that a request costs its own bytes and not a tree of small strings besides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use citadel_agent_common::hist::{self, SCHEMA, ZERO_THRESHOLD_LOG2};
use prost::encoding::{message, string};

use super::record::{Point, Record, Sample, Symbols};
use super::series::{self, Labels};
use super::wire::{self, BucketSpan, NAN, STALE, v1, v2};
use crate::metrics::buckets::{self, LE};
use crate::metrics::catalogue::{self, Desc, Kind};

/// Most series in a request: 2000, as Prometheus' own sender, unless a single histogram has more.
pub const MAX_SERIES: usize = 2000;

/// Which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

impl Protocol {
    /// The header `Content-Type`. Without a space: Prometheus compares the parameter as it stands.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V1 => "application/x-protobuf",
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The header `X-Prometheus-Remote-Write-Version`.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// How samples go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// The message.
    pub protocol: Protocol,
    /// Histograms as native ones.
    pub native: bool,
    /// Histograms as classic ones: `_bucket`, `_sum` and `_count`.
    pub classic: bool,
}

/// The body of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Compressed, as it goes out.
    pub bytes: Vec<u8>,
    /// Numbers and histograms in it, as a receiver counts them.
    pub series: u64,
}

/// What the catalogue says of each metric that a record can hold: it was perhaps written by another version.
static CATALOGUE: LazyLock<HashMap<&str, &Desc>> =
    LazyLock::new(|| catalogue::all().map(|desc| (desc.name, desc)).collect());

/// Where a request that begins with the sample at `from` has to end: the first sample that is not in it.
#[must_use]
pub fn batch_end(record: &Record, from: u32, form: Form) -> u32 {
    let mut series = 0;
    for (sample, at) in record.samples(from..u32::MAX).zip(from..) {
        series += form.series(&sample);
        if series > MAX_SERIES && at > from {
            return at;
        }
    }
    record.len()
}

/// The samples at `range`, as a request.
///
/// # Errors
/// When it is too large for snappy (4 GiB), which [`MAX_SERIES`] does not let happen.
pub fn body(record: &Record, range: Range<u32>, form: Form) -> Result<Body, snap::Error> {
    let mut request = Request { form, timeseries: Vec::new(), symbols: Symbols::default(), series: 0 };
    // The message begins its symbols with an empty one, which is what a reference of 0 means.
    request.symbols.position("");
    let identity: Vec<_> =
        record.identity.chunks(2).map(|pair| (record.symbol(pair[0]), record.symbol(pair[1]))).collect();
    for sample in record.samples(range) {
        request.sample(record, &identity, &sample);
    }
    let mut message = Vec::new();
    if form.protocol == Protocol::V2 {
        string::encode_repeated(4, &request.symbols.into_strings(), &mut message);
    }
    message.append(&mut request.timeseries);
    Ok(Body { bytes: snap::raw::Encoder::new().compress_vec(&message)?, series: request.series })
}

/// A sample as the log names it.
#[must_use]
pub fn display(record: &Record, sample: &Sample<'_>) -> String {
    let identity: Vec<_> =
        record.identity.chunks(2).map(|pair| (record.symbol(pair[0]), record.symbol(pair[1]))).collect();
    series::display(&labels(record, &identity, sample, record.symbol(sample.family.name).into(), None))
}

impl Form {
    /// How many series a sample becomes.
    fn series(self, sample: &Sample<'_>) -> usize {
        match sample.family.histogram {
            true => usize::from(self.native) + if self.classic { buckets::CLASSIC + 2 } else { 0 },
            false => 1,
        }
    }
}

/// A request under way.
struct Request {
    form: Form,
    timeseries: Vec<u8>,
    symbols: Symbols,
    series: u64,
}

/// What is the same for all series that a sample becomes.
struct Context<'a> {
    desc: Option<&'static Desc>,
    time_ms: i64,
    start_ms: i64,
    labels: &'a dyn Fn(Cow<'a, str>, Option<&'a str>) -> Labels<'a>,
}

impl Request {
    fn sample(&mut self, record: &Record, identity: &[(&str, &str)], sample: &Sample<'_>) {
        let name = record.symbol(sample.family.name);
        let context = Context {
            desc: CATALOGUE.get(name).copied(),
            time_ms: record.time_ms,
            start_ms: if sample.family.since_start && sample.point != Point::Stale { record.start_ms } else { 0 },
            labels: &|name, le| labels(record, identity, sample, name, le),
        };
        match &sample.point {
            Point::Number(value) => self.number(&context, name.into(), None, canonical(*value)),
            Point::Stale if !sample.family.histogram => {
                self.number(&context, name.into(), None, f64::from_bits(STALE));
            }
            Point::Stale => self.histogram(&context, name, None),
            Point::Histogram(histogram) => self.histogram(&context, name, Some(histogram)),
        }
    }

    /// A histogram, or the marker that it ended.
    fn histogram(&mut self, context: &Context<'_>, name: &str, histogram: Option<&hist::Histogram>) {
        if self.form.native {
            let point = native(histogram, context);
            self.push((context.labels)(name.to_owned().into(), None), context, Wire::Histogram(point));
        }
        if !self.form.classic {
            return;
        }
        let mut or_stale = |suffix: &str, le, value: Option<f64>| {
            let value = value.unwrap_or(f64::from_bits(STALE));
            self.number(context, format!("{name}{suffix}").into(), le, value);
        };
        let counts = histogram.map(buckets::classic);
        let mut cumulative = 0;
        for (i, le) in LE.iter().enumerate() {
            cumulative += counts.map_or(0, |counts| counts[i]);
            or_stale("_bucket", Some(le.as_str()), counts.map(|_| cumulative as f64));
        }
        or_stale("_sum", None, histogram.map(buckets::sum_seconds));
        or_stale("_count", None, histogram.map(|histogram| histogram.count() as f64));
    }

    fn number(&mut self, context: &Context<'_>, name: Cow<'_, str>, le: Option<&'static str>, value: f64) {
        let labels = (context.labels)(Cow::Owned(name.into_owned()), le);
        let sample = wire::Sample { value, timestamp: context.time_ms, start_timestamp: context.start_ms };
        self.push(labels, context, Wire::Number(sample));
    }

    fn push(&mut self, labels: Labels<'_>, context: &Context<'_>, point: Wire) {
        self.series += 1;
        let (mut samples, mut histograms) = (vec![], vec![]);
        match (point, self.form.protocol) {
            (Wire::Number(sample), Protocol::V2) => samples.push(sample),
            (Wire::Number(sample), Protocol::V1) => samples.push(wire::Sample { start_timestamp: 0, ..sample }),
            (Wire::Histogram(histogram), Protocol::V2) => histograms.push(histogram),
            (Wire::Histogram(histogram), Protocol::V1) => {
                histograms.push(wire::Histogram { start_timestamp: 0, ..histogram });
            }
        }
        match self.form.protocol {
            Protocol::V1 => {
                let label = |(name, value): (Cow<'_, str>, Cow<'_, str>)| v1::Label {
                    name: name.into_owned(),
                    value: value.into_owned(),
                };
                let labels = labels.into_iter().map(label).collect();
                message::encode(1, &v1::TimeSeries { labels, samples, histograms }, &mut self.timeseries);
            }
            Protocol::V2 => {
                let mut reference = |text: &str| self.symbols.position(text);
                let labels_refs =
                    (labels.iter()).flat_map(|(name, value)| [reference(name), reference(value)]).collect();
                let metadata = context.desc.map(|desc| v2::Metadata {
                    r#type: metric_type(desc.kind).into(),
                    help_ref: reference(desc.help),
                    unit_ref: reference(desc.unit.name()),
                });
                let created_timestamp = context.start_ms;
                let series = v2::TimeSeries { labels_refs, samples, histograms, metadata, created_timestamp };
                message::encode(5, &series, &mut self.timeseries);
            }
        }
    }
}

/// One value of one series.
enum Wire {
    Number(wire::Sample),
    Histogram(wire::Histogram),
}

fn labels<'a>(
    record: &'a Record,
    identity: &[(&'a str, &'a str)],
    sample: &Sample<'a>,
    name: Cow<'a, str>,
    le: Option<&'a str>,
) -> Labels<'a> {
    let names = sample.family.label_names.iter().map(|&name| record.symbol(name));
    let values = sample.values.iter().map(|&value| record.symbol(value));
    series::labels(identity, name, names.zip(values).chain(le.map(|le| ("le", le))))
}

/// The native form; of a series that ended, the marker in its sum.
fn native(histogram: Option<&hist::Histogram>, context: &Context<'_>) -> wire::Histogram {
    let marker = wire::Histogram { sum: f64::from_bits(STALE), timestamp: context.time_ms, ..Default::default() };
    let Some(histogram) = histogram else { return marker };
    let (spans, positive_deltas) = buckets::native(histogram);
    wire::Histogram {
        count_int: Some(histogram.count()),
        sum: buckets::sum_seconds(histogram),
        schema: SCHEMA,
        zero_threshold: 2f64.powi(ZERO_THRESHOLD_LOG2),
        zero_count_int: Some(histogram.cells[0]),
        positive_spans: spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect(),
        positive_deltas,
        timestamp: context.time_ms,
        start_timestamp: context.start_ms,
    }
}

/// Every NaN that a source may give is the ordinary one: the marker's bits are for markers alone.
fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(NAN) } else { value }
}

fn metric_type(kind: Kind) -> v2::MetricType {
    match kind {
        Kind::Counter => v2::MetricType::Counter,
        Kind::Gauge => v2::MetricType::Gauge,
        Kind::Histogram => v2::MetricType::Histogram,
    }
}
