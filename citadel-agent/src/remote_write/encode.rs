//! Samples of a record -> the body of a request, in either protocol. Pure.
//!
//! One series is encoded at a time, so that a request costs its own bytes and not a tree of small strings besides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use citadel_agent_common::hist::{self, SCHEMA, ZERO_THRESHOLD_LOG2};
use prost::encoding::{message, string};

use super::record::{Point, Record, Sample, Symbols};
use super::refused::{Key, Refused};
use super::series::{self, Labels};
use super::wire::{self, BucketSpan, NAN, STALE, v1, v2};
use crate::metrics::buckets::{self, LE};
use crate::metrics::catalogue::{self, Desc, Kind};

/// Most series in a request: 2000, as Prometheus' own sender, unless a single histogram has more.
pub const MAX_SERIES: usize = 2000;

/// Most bytes of a request before it is compressed, as far as they can be known before: what the smallest usual limit of a
/// proxy (nginx: 1 MiB) lets through.
const MAX_BYTES: usize = 1 << 20;

/// Bytes that a label takes besides its text, a number with its time and what is around it, and a native histogram.
const LABEL: usize = 4;
const SAMPLE: usize = 48;
const NATIVE: usize = 1024;

/// Which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

impl Protocol {
    /// As people call it, and files are named.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }

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

/// What a request had.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Samples, as the ledger counts them: a histogram is one.
    pub samples: u64,
    /// What became of them, as a receiver counts: numbers and native histograms.
    pub series: u64,
    /// The native histograms among these.
    pub histograms: u64,
    /// Samples of the range that were left out, because the receiver refuses their series.
    pub skipped: u64,
}

/// The body of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Compressed, as it goes out.
    pub bytes: Bytes,
    /// What is in it.
    pub sent: Sent,
}

/// What the catalogue says of each metric that a record can hold: it was perhaps written by another version.
static CATALOGUE: LazyLock<HashMap<&str, &Desc>> =
    LazyLock::new(|| catalogue::all().map(|desc| (desc.name, desc)).collect());

/// What still fits into a request: some series, and bytes before they are compressed.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    samples: u64,
    series: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// An empty request of at most so many samples, where the receiver has asked for less than [`MAX_SERIES`].
    #[must_use]
    pub fn new(samples: Option<u64>) -> Self {
        Self { samples: samples.unwrap_or(u64::MAX), series: MAX_SERIES, bytes: MAX_BYTES, empty: true }
    }

    /// Whether nothing else fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.samples == 0 || self.series == 0 || self.bytes == 0
    }

    /// Takes the samples of `record` from `from` on, as many as fit, and says where the first one is that does not. One
    /// always fits.
    pub fn take(&mut self, record: &Record, from: u32, form: Form) -> u32 {
        let identity: usize = record.identity().iter().map(|(name, value)| name.len() + value.len() + LABEL).sum();
        for (sample, at) in record.samples(from..u32::MAX).zip(from..) {
            let series = form.series(&sample);
            let bytes = form.bytes(record, &sample, series, identity);
            let fits = self.samples > 0 && series <= self.series && bytes <= self.bytes;
            if !fits && !self.empty {
                return at;
            }
            self.empty = false;
            self.samples = self.samples.saturating_sub(1);
            self.series = self.series.saturating_sub(series);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        record.len()
    }
}

/// The samples of these runs, each of one record, as a request; without those of series that are `refused`.
///
/// # Errors
/// When it is too large for snappy (4 GiB), which [`Room`] does not let happen.
pub fn request<'a>(
    runs: impl Iterator<Item = (&'a Record, Range<u32>)>,
    form: Form,
    refused: &Refused,
) -> Result<Body, snap::Error> {
    let mut request = Request { form, timeseries: Vec::new(), symbols: Symbols::default(), sent: Sent::default() };
    // The message begins its symbols with an empty one, which is what a reference of 0 means.
    request.symbols.position("");
    for (record, range) in runs {
        let identity = record.identity();
        for sample in record.samples(range) {
            if !refused.is_empty() && refused.skips(key(record, &sample, refused)) {
                request.sent.skipped += 1;
                continue;
            }
            request.sent.samples += 1;
            request.sample(&Series::new(record, &identity, &sample, form.protocol));
        }
    }
    let mut message = Vec::new();
    if form.protocol == Protocol::V2 {
        string::encode_repeated(4, &request.symbols.into_strings(), &mut message);
    }
    message.append(&mut request.timeseries);
    Ok(Body { bytes: snap::raw::Encoder::new().compress_vec(&message)?.into(), sent: request.sent })
}

/// The samples at `range`, as a request.
///
/// # Errors
/// See [`request`].
pub fn body(record: &Record, range: Range<u32>, form: Form) -> Result<Body, snap::Error> {
    request(std::iter::once((record, range)), form, &Refused::default())
}

/// Which series a sample is of, for [`Refused`].
#[must_use]
pub fn key(record: &Record, sample: &Sample<'_>, refused: &Refused) -> Key {
    let own = [&sample.family.name].into_iter().chain(sample.values);
    refused.key(own.chain(&record.identity).map(|&position| record.symbol(position)))
}

/// A sample as the log names it.
#[must_use]
pub fn display(record: &Record, sample: &Sample<'_>) -> String {
    series::display(&Series::new(record, &record.identity(), sample, Protocol::V1).labels("", None))
}

impl Form {
    /// How many series a sample becomes.
    fn series(self, sample: &Sample<'_>) -> usize {
        match sample.family.histogram {
            true => usize::from(self.native) + if self.classic { buckets::CLASSIC + 2 } else { 0 },
            false => 1,
        }
    }

    /// At most so many bytes, roughly, it adds to the message.
    fn bytes(self, record: &Record, sample: &Sample<'_>, series: usize, identity: usize) -> usize {
        let length = |position: &u32| record.symbol(*position).len() + LABEL;
        let names = sample.family.label_names.iter().map(length).sum::<usize>();
        let own = length(&sample.family.name) + names + sample.values.iter().map(length).sum::<usize>();
        let native = if sample.family.histogram && self.native { NATIVE } else { 0 };
        native
            + match self.protocol {
                Protocol::V1 => series * (own + identity + SAMPLE),
                // Strings stand once.
                Protocol::V2 => own + series * SAMPLE,
            }
    }
}

/// A request under way.
struct Request {
    form: Form,
    timeseries: Vec<u8>,
    symbols: Symbols,
    sent: Sent,
}

/// A sample, and what is the same for all series that it becomes.
struct Series<'a> {
    record: &'a Record,
    identity: &'a [(&'a str, &'a str)],
    sample: &'a Sample<'a>,
    desc: Option<&'static Desc>,
    /// Since when it counts; 0 where nobody knows, and where the protocol has no place for it.
    start_ms: i64,
}

impl<'a> Series<'a> {
    fn new(record: &'a Record, identity: &'a [(&'a str, &'a str)], sample: &'a Sample<'a>, protocol: Protocol) -> Self {
        let counts = sample.family.since_start && sample.point != Point::Stale && protocol == Protocol::V2;
        let start_ms = if counts { record.start_ms } else { 0 };
        Self { record, identity, sample, desc: CATALOGUE.get(record.symbol(sample.family.name)).copied(), start_ms }
    }

    /// The labels of the series whose name ends with `suffix`.
    fn labels(&self, suffix: &str, le: Option<&'a str>) -> Labels<'a> {
        let name = self.record.symbol(self.sample.family.name);
        let name = if suffix.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}{suffix}")) };
        let names = self.sample.family.label_names.iter().map(|&name| self.record.symbol(name));
        let values = self.sample.values.iter().map(|&value| self.record.symbol(value));
        series::labels(self.identity, name, names.zip(values).chain(le.map(|le| ("le", le))))
    }

    /// The native form; of a series that ended, the marker in its sum.
    fn native(&self, histogram: Option<&hist::Histogram>) -> wire::Histogram {
        let (timestamp, start_timestamp) = (self.record.time_ms, self.start_ms);
        let Some(histogram) = histogram else {
            return wire::Histogram { sum: f64::from_bits(STALE), timestamp, ..Default::default() };
        };
        let (spans, positive_deltas) = buckets::native(histogram);
        wire::Histogram {
            count_int: Some(histogram.count()),
            sum: buckets::sum_seconds(histogram),
            schema: SCHEMA,
            zero_threshold: 2f64.powi(ZERO_THRESHOLD_LOG2),
            zero_count_int: Some(histogram.cells[0]),
            positive_spans: spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect(),
            positive_deltas,
            timestamp,
            start_timestamp,
        }
    }
}

impl Request {
    fn sample(&mut self, series: &Series<'_>) {
        match &series.sample.point {
            Point::Number(value) => self.number(series, "", None, canonical(*value)),
            Point::Histogram(histogram) => self.histogram(series, Some(histogram)),
            Point::Stale if series.sample.family.histogram => self.histogram(series, None),
            Point::Stale => self.number(series, "", None, f64::from_bits(STALE)),
        }
    }

    /// A histogram, or the marker that it ended.
    fn histogram(&mut self, series: &Series<'_>, histogram: Option<&hist::Histogram>) {
        if self.form.native {
            self.push(series, series.labels("", None), vec![], vec![series.native(histogram)]);
        }
        if !self.form.classic {
            return;
        }
        let mut or_stale = |suffix, le, value: Option<f64>| {
            self.number(series, suffix, le, value.unwrap_or(f64::from_bits(STALE)));
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

    fn number(&mut self, series: &Series<'_>, suffix: &str, le: Option<&'static str>, value: f64) {
        let (timestamp, start_timestamp) = (series.record.time_ms, series.start_ms);
        let sample = wire::Sample { value, timestamp, start_timestamp };
        self.push(series, series.labels(suffix, le), vec![sample], vec![]);
    }

    fn push(
        &mut self,
        series: &Series<'_>,
        labels: Labels<'_>,
        samples: Vec<wire::Sample>,
        histograms: Vec<wire::Histogram>,
    ) {
        self.sent.series += 1;
        self.sent.histograms += histograms.len() as u64;
        match self.form.protocol {
            Protocol::V1 => {
                let own = |text: Cow<'_, str>| text.into_owned();
                let label = |(name, value)| v1::Label { name: own(name), value: own(value) };
                let labels = labels.into_iter().map(label).collect();
                message::encode(1, &v1::TimeSeries { labels, samples, histograms }, &mut self.timeseries);
            }
            Protocol::V2 => {
                let mut position = |text: &str| self.symbols.position(text);
                let labels_refs = labels.iter().flat_map(|(name, value)| [position(name), position(value)]).collect();
                let metadata = series.desc.map(|desc| v2::Metadata {
                    r#type: metric_type(desc.kind).into(),
                    help_ref: position(desc.help),
                    unit_ref: position(desc.unit.name()),
                });
                let created_timestamp = series.start_ms;
                let series = v2::TimeSeries { labels_refs, samples, histograms, metadata, created_timestamp };
                message::encode(5, &series, &mut self.timeseries);
            }
        }
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
        Kind::Unknown => v2::MetricType::Unspecified,
        Kind::Histogram => v2::MetricType::Histogram,
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
