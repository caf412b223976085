//! Encodes the message of a request, series by series.
//!
//! Parts that are common to the series of a metric are encoded once and copied: label names, metadata, timestamp.
//! Labels are encoded once for all series of a histogram. In 2.0, strings are positions in the message's symbols; a
//! record's string is looked up there on first use, and then by its position in the record.

use std::borrow::Cow;
use std::collections::HashMap;

use citadel_agent_common::hist::{self, SCHEMA};
use prost::Message as _;

use super::{CATALOGUE, Form, Protocol, Sent};
use crate::metrics::buckets::{self, Classic};
use crate::metrics::catalogue::Kind;
use crate::remote_write::record::{Cells, Point, Record, RecordSample, Run};
use crate::remote_write::refused::Refused;
use crate::remote_write::series::{self, Slot};
use crate::remote_write::wire::{self, BucketSpan, NAN, STALE, v2};

/// Keys of fields: number and wire type.
const fn key(number: u8, kind: u8) -> u8 {
    number << 3 | kind
}
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;

/// A message being written.
pub(super) struct Message<'a> {
    form: Form,
    timeseries: Vec<u8>,
    symbols: Symbols<'a>,
    sent: Sent,
    /// Labels of the current sample.
    labels: Labels,
}

/// The unique strings of a 2.0 message.
#[derive(Default)]
struct Symbols<'a> {
    positions: HashMap<Cow<'a, str>, u32>,
    /// Encoded symbols.
    encoded: Vec<u8>,
}

impl<'a> Symbols<'a> {
    fn position(&mut self, text: Cow<'a, str>) -> u32 {
        if let Some(&position) = self.positions.get(&text) {
            return position;
        }
        bytes(&mut self.encoded, key(4, LENGTH), text.as_bytes());
        let position = self.positions.len() as u32;
        self.positions.insert(text, position);
        position
    }
}

/// A string of the message; 2.0 uses the position, 1.0 the text.
#[derive(Clone)]
struct Text<'a> {
    text: Cow<'a, str>,
    position: u32,
}

/// Strings of a record.
struct Strings<'a> {
    record: &'a Record,
    /// Position in the message by position in the record; 0: not added yet.
    positions: Vec<u32>,
}

/// Encoded labels of a sample, without those that differ between the series of a histogram.
#[derive(Default)]
struct Labels {
    fixed: Vec<u8>,
    /// What is inserted, and before which byte.
    between: Vec<(usize, Between)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Name,
    Le,
}

/// Common parts of a family's series.
struct Common<'a> {
    /// Which label values are empty in the series that `slots` were made for.
    absent: Vec<bool>,
    slots: Vec<(Text<'a>, Slot)>,
    /// The encoded `__name__` label, for each suffix.
    names: [Vec<u8>; 4],
    /// For histograms: their classic buckets.
    classic: &'static Classic,
    /// The encoded `le` label, for each bound.
    bounds: Vec<Vec<u8>>,
    /// Encoded fields of a sample: timestamp, and start timestamp.
    times: Vec<u8>,
    time_ms: i64,
    start_ms: i64,
    /// Encoded fields of a series: metadata, and start timestamp.
    tail: Vec<u8>,
}

/// Suffixes of the names of a family's series.
#[derive(Clone, Copy)]
enum Suffix {
    None,
    Bucket,
    Sum,
    Count,
}

const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

impl<'a> Message<'a> {
    pub(super) fn new(form: Form) -> Self {
        let mut symbols = Symbols::default();
        // The first symbol is empty: it is the meaning of reference 0.
        symbols.position("".into());
        Self { form, timeseries: Vec::new(), symbols, sent: Sent::default(), labels: Labels::default() }
    }

    /// Adds samples of a record, except those of `refused` series.
    pub(super) fn add(&mut self, record: &'a Record, runs: impl Iterator<Item = Run<'a>>, refused: &Refused) {
        let mut strings = Strings { record, positions: vec![0; record.shape.symbols.len()] };
        for run in runs {
            let mut samples = run.samples().peekable();
            let Some(first) = samples.peek() else { continue };
            let mut common = Common::new(self, &mut strings, first);
            for sample in samples {
                if !refused.is_empty() && refused.skips(super::key(record, &sample, refused)) {
                    self.sent.skipped += 1;
                    continue;
                }
                self.sent.samples += 1;
                self.sample(&mut strings, &mut common, &sample);
            }
        }
    }

    /// The finished message and its content.
    pub(super) fn finish(self) -> (Vec<u8>, Sent) {
        let mut message = if self.form.protocol == Protocol::V2 { self.symbols.encoded } else { Vec::new() };
        message.extend_from_slice(&self.timeseries);
        (message, self.sent)
    }

    fn text(&mut self, text: Cow<'a, str>) -> Text<'a> {
        let position = match self.form.protocol {
            Protocol::V1 => 0,
            Protocol::V2 => self.symbols.position(text.clone()),
        };
        Text { text, position }
    }

    fn sample(&mut self, strings: &mut Strings<'a>, common: &mut Common<'a>, sample: &RecordSample<'a>) {
        common.layout(self, strings, sample);
        self.join_labels(strings, common, sample);
        match sample.point {
            Point::Number(value) => self.number(common, Suffix::None, None, canonical(value)),
            Point::Histogram(cells) => self.histogram(common, Some(cells)),
            Point::Stale if sample.family.histogram => self.histogram(common, None),
            Point::Stale => self.number(common, Suffix::None, None, f64::from_bits(STALE)),
        }
    }

    /// Encodes the labels of a sample.
    fn join_labels(&mut self, strings: &mut Strings<'a>, common: &Common<'a>, sample: &RecordSample<'a>) {
        let mut labels = std::mem::take(&mut self.labels);
        labels.fixed.clear();
        labels.between.clear();
        for (name, slot) in &common.slots {
            let value = match *slot {
                Slot::Name => {
                    labels.between.push((labels.fixed.len(), Between::Name));
                    continue;
                }
                Slot::Identity(i) => strings.record.shape.identity[2 * i + 1],
                Slot::Own(i) => match sample.values.get(i) {
                    Some(&value) => value,
                    None => {
                        labels.between.push((labels.fixed.len(), Between::Le));
                        continue;
                    }
                },
            };
            match self.form.protocol {
                Protocol::V1 => label_v1(&mut labels.fixed, &name.text, strings.record.shape.symbol(value)),
                Protocol::V2 => {
                    varint(&mut labels.fixed, u64::from(name.position));
                    varint(&mut labels.fixed, u64::from(strings.position(&mut self.symbols, value)));
                }
            }
        }
        self.labels = labels;
    }

    /// Adds a histogram, or its stale marker.
    fn histogram(&mut self, common: &Common<'a>, cells: Option<&Cells>) {
        let histogram = cells.map(Cells::histogram);
        if self.form.native {
            let native = common.native(histogram.as_ref()).encode_to_vec();
            let field = match self.form.protocol {
                Protocol::V1 => key(4, LENGTH),
                Protocol::V2 => key(3, LENGTH),
            };
            self.sent.histograms += 1;
            self.series(common, Suffix::None, None, 1 + varint_size(native.len() as u64) + native.len(), |out| {
                bytes(out, field, &native);
            });
        }
        if !self.form.classic {
            return;
        }
        let stale = f64::from_bits(STALE);
        let mut counts = histogram.as_ref().map(|histogram| common.classic.cumulative(histogram));
        for le in 0..common.classic.le.len() {
            let count = counts.as_mut().and_then(Iterator::next);
            self.number(common, Suffix::Bucket, Some(le), count.map_or(stale, |count| count as f64));
        }
        self.number(
            common,
            Suffix::Sum,
            None,
            histogram.as_ref().map_or(stale, |histogram| common.classic.buckets.sum(histogram)),
        );
        let count = histogram.as_ref().map_or(stale, |histogram| histogram.count() as f64);
        self.number(common, Suffix::Count, None, count);
    }

    fn number(&mut self, common: &Common<'a>, suffix: Suffix, le: Option<usize>, value: f64) {
        // In protobuf, zero is encoded by omitting the field.
        let size = common.times.len() + if value.to_bits() == 0 { 0 } else { 9 };
        self.series(common, suffix, le, 1 + varint_size(size as u64) + size, |out| {
            out.push(key(2, LENGTH));
            varint(out, size as u64);
            if value.to_bits() != 0 {
                out.push(key(1, FIXED64));
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&common.times);
        });
    }

    /// Adds one series; `write` writes the `size` bytes of its value.
    fn series(
        &mut self,
        common: &Common<'a>,
        suffix: Suffix,
        le: Option<usize>,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.sent.series += 1;
        let (out, labels) = (&mut self.timeseries, &self.labels);
        let name = &common.names[suffix as usize];
        let bound = le.map_or(&[][..], |le| &common.bounds[le]);
        let labels_size = labels.fixed.len() + name.len() + bound.len();
        let value_and_tail = size + common.tail.len();
        match self.form.protocol {
            Protocol::V1 => {
                out.push(key(1, LENGTH));
                varint(out, (labels_size + value_and_tail) as u64);
            }
            Protocol::V2 => {
                out.push(key(5, LENGTH));
                varint(out, (1 + varint_size(labels_size as u64) + labels_size + value_and_tail) as u64);
                out.push(key(1, LENGTH));
                varint(out, labels_size as u64);
            }
        }
        let mut at = 0;
        for &(before, what) in &labels.between {
            out.extend_from_slice(&labels.fixed[at..before]);
            out.extend_from_slice(if what == Between::Name { name } else { bound });
            at = before;
        }
        out.extend_from_slice(&labels.fixed[at..]);
        write(out);
        out.extend_from_slice(&common.tail);
    }
}

impl<'a> Strings<'a> {
    /// The position in the message of the string at `position` in the record.
    fn position(&mut self, symbols: &mut Symbols<'a>, position: u32) -> u32 {
        let known = &mut self.positions[position as usize];
        if *known == 0 {
            *known = symbols.position(self.record.shape.symbol(position).into());
        }
        *known
    }
}

impl<'a> Common<'a> {
    fn new(message: &mut Message<'a>, strings: &mut Strings<'a>, first: &RecordSample<'a>) -> Self {
        let record = strings.record;
        let name = record.shape.symbol(first.family.name);
        // A record written by another version can have unknown metrics.
        let desc = CATALOGUE.get(name).copied();
        let v2 = message.form.protocol == Protocol::V2;
        let since = first.family.since_start && first.point != Point::Stale && v2;
        let start_ms = match first.family.began_ms {
            _ if !since => 0,
            0 => record.start_ms,
            began_ms => began_ms,
        };
        let mut times = Vec::new();
        number(&mut times, 2, record.time_ms);
        number(&mut times, 3, start_ms);
        let mut tail = Vec::new();
        let relayed = match first.family.relayed[..] {
            [kind, help] => Some((relayed_type(record.shape.symbol(kind)), record.shape.symbol(help), "")),
            _ => None,
        };
        let known = desc.map(|desc| (metric_type(desc.kind), desc.help, desc.unit.name())).or(relayed);
        if let Some((r#type, help, unit)) = known.filter(|_| v2) {
            let (help_ref, unit_ref) = (message.text(help.into()).position, message.text(unit.into()).position);
            let metadata = v2::Metadata { r#type: r#type.into(), help_ref, unit_ref };
            bytes(&mut tail, key(5, LENGTH), &metadata.encode_to_vec());
        }
        // The position of the field in release candidates of 2.0.
        number(&mut tail, 6, start_ms);
        let mut common = Self {
            absent: Vec::new(),
            slots: Vec::new(),
            names: Default::default(),
            classic: buckets::classic(desc),
            bounds: Vec::new(),
            times,
            time_ms: record.time_ms,
            start_ms,
            tail,
        };
        let name_label = message.text(series::NAME.into());
        for (label, suffix) in common.names.iter_mut().zip(SUFFIXES) {
            let wanted = match (first.family.histogram, suffix.is_empty()) {
                (true, true) => message.form.native,
                (true, false) => message.form.classic,
                (false, none) => none,
            };
            if wanted {
                let name = if suffix.is_empty() { name.into() } else { format!("{name}{suffix}").into() };
                let name = message.text(name);
                self::label(message.form.protocol, label, &name_label, &name);
            }
        }
        common
    }

    /// Updates the slots for this sample's labels.
    fn layout(&mut self, message: &mut Message<'a>, strings: &Strings<'a>, sample: &RecordSample<'a>) {
        let shape = &strings.record.shape;
        let absent = |value: &u32| shape.symbol(*value).is_empty();
        if !self.slots.is_empty() && sample.values.iter().map(absent).eq(self.absent.iter().copied()) {
            return;
        }
        self.absent = sample.values.iter().map(absent).collect();
        let identity = shape.identity().into_iter().enumerate();
        let identity = identity.filter_map(|(i, (name, value))| (!value.is_empty()).then_some((i, name)));
        let classic = sample.family.histogram && message.form.classic;
        let names = sample.family.label_names.iter().map(|&name| shape.symbol(name)).enumerate();
        let own = names.filter(|(i, _)| !self.absent[*i]).chain(classic.then_some((sample.values.len(), "le")));
        let slots = series::layout(identity, own);
        self.slots = slots.into_iter().map(|(name, slot)| (message.text(name), slot)).collect();
        self.bounds.clear();
        let le = self.slots.iter().find(|(_, slot)| *slot == Slot::Own(sample.values.len()));
        for bound in le.iter().flat_map(|_| &self.classic.le) {
            let bound = message.text(bound.as_str().into());
            let mut label = Vec::new();
            if let Some((name, _)) = le {
                self::label(message.form.protocol, &mut label, name, &bound);
            }
            self.bounds.push(label);
        }
    }

    /// The native form; for a stale marker, with the marker in the sum.
    fn native(&self, histogram: Option<&hist::Histogram>) -> wire::Histogram {
        let (timestamp, start_timestamp) = (self.time_ms, self.start_ms);
        let Some(histogram) = histogram else {
            return wire::Histogram { sum: f64::from_bits(STALE), timestamp, ..Default::default() };
        };
        let (spans, positive_deltas) = buckets::native(self.classic.buckets, histogram);
        wire::Histogram {
            count_int: Some(histogram.count()),
            sum: self.classic.buckets.sum(histogram),
            schema: SCHEMA,
            zero_threshold: self.classic.buckets.zero_threshold(),
            zero_count_int: Some(histogram.cells[0]),
            positive_spans: spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect(),
            positive_deltas,
            timestamp,
            start_timestamp,
        }
    }
}

/// Normalizes NaN: the bits of the stale marker are reserved for it.
fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(NAN) } else { value }
}

/// The metadata type of a metric.
fn metric_type(kind: Kind) -> v2::MetricType {
    match kind {
        Kind::Counter => v2::MetricType::Counter,
        Kind::Gauge => v2::MetricType::Gauge,
        Kind::Unknown => v2::MetricType::Unspecified,
        Kind::Histogram => v2::MetricType::Histogram,
    }
}

/// The metadata type of a relayed metric, from the type on its page.
fn relayed_type(kind: &str) -> v2::MetricType {
    match kind {
        "counter" => v2::MetricType::Counter,
        "gauge" => v2::MetricType::Gauge,
        "histogram" => v2::MetricType::Histogram,
        "summary" => v2::MetricType::Summary,
        _ => v2::MetricType::Unspecified,
    }
}

/// A label of a series.
fn label(protocol: Protocol, out: &mut Vec<u8>, name: &Text<'_>, value: &Text<'_>) {
    match protocol {
        Protocol::V1 => label_v1(out, &name.text, &value.text),
        Protocol::V2 => {
            varint(out, u64::from(name.position));
            varint(out, u64::from(value.position));
        }
    }
}

fn label_v1(out: &mut Vec<u8>, name: &str, value: &str) {
    let field = |text: &str| 1 + varint_size(text.len() as u64) + text.len();
    out.push(key(1, LENGTH));
    varint(out, (field(name) + field(value)) as u64);
    bytes(out, key(1, LENGTH), name.as_bytes());
    bytes(out, key(2, LENGTH), value.as_bytes());
}

/// A length-delimited field.
fn bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// An integer field, omitted if 0.
fn number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(key(field, VARINT));
        varint(out, number.cast_unsigned());
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn varint_size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}
