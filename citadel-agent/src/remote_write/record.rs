//! One collection as stored in the spool: all samples of a page at one time, self-contained. Pure.
//!
//! Independent of the protocol, because which one a receiver supports is known only when it is sent, perhaps a night
//! later. Strings are stored once in a table that samples refer to, and values are stored in columns: compressed with
//! snappy, a sample takes a few bytes. A *sample* here is one value of one series; a whole histogram is one.
//!
//! In memory a record has two parts: its series, the [`Shape`], and their values. Most collections have the same series
//! as the previous one and share its shape, so labels are processed only when they change and not for each sample.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use citadel_agent_common::hist::{self, CELLS};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use smol_str::SmolStr;

use super::relayed::{self, Group};
use super::stale::Gone;
use crate::metrics::catalogue::Kind;
use crate::metrics::family::{self, Page, Value};

/// Labels added to every series of a collection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Label names and values: job, instance and the configured external labels.
    pub labels: Vec<(String, String)>,
}

/// A collection.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// Time of the collection, in milliseconds since the epoch.
    pub time_ms: i64,
    /// Start of the agent that collected it, in milliseconds since the epoch; 0: unknown.
    pub start_ms: i64,
    /// Its series.
    pub shape: Arc<Shape>,
    /// Values, family by family.
    values: Vec<Values>,
}

/// The series of a collection.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shape {
    /// The [`Identity`]: names and values alternating, as positions in the symbols.
    pub identity: Vec<u32>,
    /// The unique strings.
    pub symbols: Vec<String>,
    /// The families.
    pub families: Vec<Family>,
    /// Number of samples.
    samples: u32,
    /// The encoded shape: identity and symbols, then each family.
    encoded: (Vec<u8>, Vec<Vec<u8>>),
}

/// A record on disk. Each of the families is a [`Family`] and its [`Values`] in one message.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(sint64, tag = "1")]
    time_ms: i64,
    #[prost(sint64, tag = "2")]
    start_ms: i64,
    #[prost(uint32, repeated, tag = "3")]
    identity: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    families: Vec<Vec<u8>>,
}

/// The tag of [`Stored`]'s families.
const FAMILIES: u32 = 5;

/// The series of one metric.
#[derive(Clone, PartialEq, Message)]
pub struct Family {
    /// Name in the catalogue, as a position in the symbols.
    #[prost(uint32, tag = "1")]
    pub name: u32,
    /// Number of samples.
    #[prost(uint32, tag = "2")]
    pub samples: u32,
    /// Label names, as positions in the symbols.
    #[prost(uint32, repeated, tag = "3")]
    pub label_names: Vec<u32>,
    /// Label values as positions in the symbols: one per label name and sample.
    #[prost(uint32, repeated, tag = "4")]
    pub label_values: Vec<u32>,
    /// Whether these are histograms, which determines the form of a stale marker.
    #[prost(bool, tag = "5")]
    pub histogram: bool,
    /// Whether the values count since [`Record::start_ms`].
    #[prost(bool, tag = "6")]
    pub since_start: bool,
    /// If they do: when they started to count, in milliseconds since 1970, if later than that; else 0.
    #[prost(sint64, tag = "11")]
    pub began_ms: i64,
    /// For a metric that is not in the catalogue: type as in the text formats, and HELP, as positions in the symbols.
    #[prost(uint32, repeated, tag = "10")]
    pub relayed: Vec<u32>,
}

/// The values of a metric, all of one type: one of the three columns has an entry per sample, or none has, and then the
/// samples are stale markers.
#[derive(Clone, PartialEq, Message)]
struct Values {
    /// Integers.
    #[prost(uint64, repeated, tag = "7")]
    integers: Vec<u64>,
    /// Floats.
    #[prost(double, repeated, tag = "8")]
    floats: Vec<f64>,
    /// Histograms.
    #[prost(message, repeated, tag = "9")]
    histograms: Vec<Cells>,
}

/// The non-empty cells of a histogram.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Cells {
    /// Alternating: number of empty cells skipped, and count of the next cell.
    #[prost(uint64, repeated, tag = "1")]
    runs: Vec<u64>,
}

/// A sample's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Point<'a> {
    /// A number.
    Number(f64),
    /// A histogram.
    Histogram(&'a Cells),
    /// The series ended.
    Stale,
}

/// One sample of a record.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecordSample<'a> {
    /// Its family.
    pub family: &'a Family,
    /// Its label values, as positions in the symbols.
    pub values: &'a [u32],
    /// Its value.
    pub point: Point<'a>,
}

/// Why a record cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not snappy.
    #[error("cannot be decompressed: {0}")]
    Snappy(#[from] snap::Error),
    /// Not the protobuf message.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The message is inconsistent.
    #[error("is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Unique strings in the order of first use.
#[derive(Default)]
struct Symbols<'a> {
    positions: HashMap<&'a str, u32>,
    strings: Vec<String>,
}

impl<'a> Symbols<'a> {
    /// The position of `text`, which is added if necessary.
    fn position(&mut self, text: &'a str) -> u32 {
        *self.positions.entry(text).or_insert_with(|| {
            self.strings.push(text.to_owned());
            self.strings.len() as u32 - 1
        })
    }
}

impl Shape {
    /// The series of a sorted page, and those that ended since the previous page.
    fn of(page: &Page, gone: &[Gone], identity: &Identity) -> Self {
        let mut symbols = Symbols::default();
        let identity = (identity.labels.iter())
            .flat_map(|(name, value)| [symbols.position(name), symbols.position(value)])
            .collect();
        let mut families = Vec::new();
        for family::Family { desc, samples, began } in present(page) {
            let labels = samples.iter().flat_map(|sample| sample.labels.iter().map(SmolStr::as_str));
            let mut family = Family::new(&mut symbols, desc.name, desc.labels.iter().copied(), samples.len(), labels);
            (family.histogram, family.since_start) = (desc.kind == Kind::Histogram, desc.counts_since_start());
            family.began_ms = began.map_or(0, |seconds| (seconds * 1e3) as i64);
            families.push(family);
        }
        for Group { name, kind, help, label_names, samples } in relayed::groups(&page.foreign) {
            let labels = samples.iter().flat_map(|(values, _)| values.iter().copied());
            let names = label_names.iter().copied();
            let mut family = Family::new(&mut symbols, name, names, samples.len(), labels);
            family.relayed = vec![symbols.position(kind), symbols.position(help)];
            families.push(family);
        }
        for Gone { name, label_names, histogram, labels } in gone {
            let values = labels.iter().flatten().map(SmolStr::as_str);
            let names = label_names.iter().map(|name| &**name);
            let mut family = Family::new(&mut symbols, name, names, labels.len(), values);
            family.histogram = *histogram;
            families.push(family);
        }
        let head = Stored { identity, symbols: symbols.strings, ..Stored::default() };
        let encoded = (head.encode_to_vec(), families.iter().map(Message::encode_to_vec).collect());
        let samples = families.iter().map(|family| family.samples).sum();
        Self { identity: head.identity, symbols: head.symbols, families, samples, encoded }
    }

    fn check(&self) -> Result<(), &'static str> {
        let positions = |list: &[u32]| list.iter().all(|&position| (position as usize) < self.symbols.len());
        if !self.identity.len().is_multiple_of(2) || !positions(&self.identity) {
            return Err("its identity");
        }
        for family in &self.families {
            let samples = family.samples as usize;
            if !positions(&[family.name])
                || !positions(&family.label_names)
                || !positions(&family.label_values)
                || !positions(&family.relayed)
            {
                return Err("a symbol that is not there");
            }
            if samples.checked_mul(family.label_names.len()) != Some(family.label_values.len()) {
                return Err("the number of label values");
            }
            // This also limits the number of samples to the number of bytes.
            if family.label_names.is_empty() && samples > 1 {
                return Err("two samples with the same labels");
            }
        }
        Ok(())
    }

    /// The labels added to every series.
    #[must_use]
    pub fn identity(&self) -> Vec<(&str, &str)> {
        self.identity.chunks(2).map(|pair| (self.symbol(pair[0]), self.symbol(pair[1]))).collect()
    }

    /// The string at `position`.
    #[must_use]
    pub fn symbol(&self, position: u32) -> &str {
        self.symbols.get(position as usize).map_or("", String::as_str)
    }
}

/// The families of a page that have samples.
fn present(page: &Page) -> impl Iterator<Item = &family::Family> {
    page.families.iter().filter(|family| !family.samples.is_empty())
}

impl Record {
    /// The record of a sorted page, and of the series that ended since the previous page.
    #[must_use]
    pub fn new(page: &Page, gone: &[Gone], identity: &Identity, time_ms: i64, start_ms: i64) -> Self {
        Self::of(Arc::new(Shape::of(page, gone, identity)), page, time_ms, start_ms)
    }

    /// The record of a page that has the series of `shape` in the same order; families that the page lacks have ended.
    #[must_use]
    pub fn of(shape: Arc<Shape>, page: &Page, time_ms: i64, start_ms: i64) -> Self {
        let mut values: Vec<_> = present(page).map(Values::new).collect();
        let floats = |group: &Group<'_>| group.samples.iter().map(|(_, value)| *value).collect();
        let relayed = relayed::groups(&page.foreign);
        values.extend(relayed.iter().map(|group| Values { floats: floats(group), ..Values::default() }));
        values.resize_with(shape.families.len(), Values::default);
        Self { time_ms, start_ms, shape, values }
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.shape.samples
    }

    /// Whether it has no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encodes the record for the spool.
    ///
    /// # Errors
    /// It is too large for snappy (4 GiB), which no page is.
    pub fn to_bytes(&self) -> Result<Vec<u8>, snap::Error> {
        snap::raw::Encoder::new().compress_vec(&self.encode())
    }

    /// Encodes a [`Stored`]; its constant parts are already encoded, because concatenated protobuf messages are merged.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (head, families) = &self.shape.encoded;
        let times = Stored { time_ms: self.time_ms, start_ms: self.start_ms, ..Stored::default() };
        let mut out = times.encode_to_vec();
        out.extend_from_slice(head);
        for (family, values) in families.iter().zip(&self.values) {
            encode_key(FAMILIES, WireType::LengthDelimited, &mut out);
            encode_varint((family.len() + values.encoded_len()) as u64, &mut out);
            out.extend_from_slice(family);
            values.encode_raw(&mut out);
        }
        out
    }

    /// Decodes a record and checks its consistency.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let stored = Stored::decode(snap::raw::Decoder::new().decompress_vec(bytes)?.as_slice())?;
        let Stored { time_ms, start_ms, identity, symbols, families: both } = stored;
        let families = both.iter().map(|bytes| Family::decode(&**bytes)).collect::<Result<Vec<_>, _>>()?;
        let values = both.iter().map(|bytes| Values::decode(&**bytes)).collect::<Result<Vec<_>, _>>()?;
        let samples = families.iter().try_fold(0u32, |sum, family| sum.checked_add(family.samples));
        let samples = samples.ok_or(RecordError::Inconsistent("the number of samples"))?;
        // A decoded record is not written again.
        let shape = Shape { identity, symbols, families, samples, encoded: Default::default() };
        shape.check().map_err(RecordError::Inconsistent)?;
        for (family, values) in shape.families.iter().zip(&values) {
            values.check(family).map_err(RecordError::Inconsistent)?;
        }
        Ok(Self { time_ms, start_ms, shape: Arc::new(shape), values })
    }

    /// The samples at `range`, an index over all families.
    pub fn samples(&self, range: Range<u32>) -> impl Iterator<Item = RecordSample<'_>> {
        self.runs(range).flat_map(Run::samples)
    }

    /// The samples at `range`, family by family.
    pub fn runs(&self, range: Range<u32>) -> impl Iterator<Item = Run<'_>> {
        let mut first = 0;
        self.shape.families.iter().zip(&self.values).filter_map(move |(family, values)| {
            let (start, end) = (first, first + family.samples);
            first = end;
            let part = range.start.clamp(start, end) - start..range.end.clamp(start, end) - start;
            (!part.is_empty()).then_some(Run { family, values, part })
        })
    }
}

/// Consecutive samples of one family.
#[derive(Clone)]
pub struct Run<'a> {
    /// Their family.
    pub family: &'a Family,
    values: &'a Values,
    part: Range<u32>,
}

impl<'a> Run<'a> {
    /// Each of them.
    pub fn samples(self) -> impl Iterator<Item = RecordSample<'a>> {
        let (family, width) = (self.family, self.family.label_names.len());
        self.part.map(move |i| {
            let i = i as usize;
            RecordSample {
                family,
                values: &family.label_values[i * width..(i + 1) * width],
                point: self.values.point(i),
            }
        })
    }
}

impl Family {
    /// The series of a metric; `values` are the values of all labels, series by series.
    fn new<'a>(
        symbols: &mut Symbols<'a>,
        name: &'a str,
        label_names: impl Iterator<Item = &'a str>,
        samples: usize,
        values: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self {
            name: symbols.position(name),
            samples: samples as u32,
            label_names: label_names.map(|name| symbols.position(name)).collect(),
            label_values: values.map(|value| symbols.position(value)).collect(),
            ..Self::default()
        }
    }
}

impl Values {
    fn new(family: &family::Family) -> Self {
        let values = || family.samples.iter().map(|sample| &sample.value);
        let mut out = Self::default();
        if family.desc.kind == Kind::Histogram {
            out.histograms = values().map(Cells::new).collect();
        } else if values().all(|value| matches!(value, Value::Integer(_))) {
            out.integers = values().map(integer).collect();
        } else {
            out.floats = values().map(Value::number).collect();
        }
        out
    }

    fn check(&self, family: &Family) -> Result<(), &'static str> {
        let samples = family.samples as usize;
        let columns = [self.integers.len(), self.floats.len(), self.histograms.len()];
        if columns.iter().any(|&length| length != 0 && length != samples) || columns.iter().sum::<usize>() > samples {
            return Err("the number of values");
        }
        let [integers, floats, histograms] = columns.map(|length| length != 0);
        if if family.histogram { integers || floats } else { histograms } {
            return Err("values of another type than the family");
        }
        if self.histograms.iter().any(|cells| !cells.check()) {
            return Err("a histogram with too many cells, or too many observations");
        }
        Ok(())
    }

    fn point(&self, i: usize) -> Point<'_> {
        if let Some(&integer) = self.integers.get(i) {
            Point::Number(integer as f64)
        } else if let Some(&float) = self.floats.get(i) {
            Point::Number(float)
        } else if let Some(cells) = self.histograms.get(i) {
            Point::Histogram(cells)
        } else {
            Point::Stale
        }
    }
}

impl Cells {
    fn new(value: &Value) -> Self {
        let mut runs = Vec::new();
        if let Value::Histogram(histogram) = value {
            let mut skipped = 0;
            for &count in &histogram.cells {
                if count == 0 {
                    skipped += 1;
                } else {
                    runs.extend([skipped, count]);
                    skipped = 0;
                }
            }
        }
        Self { runs }
    }

    /// Whether it has at most as many cells as a histogram, and their sum does not overflow.
    fn check(&self) -> bool {
        let (mut next, mut total) = (0u64, 0u64);
        self.runs.chunks(2).all(|run| {
            let &[skipped, count] = run else { return false };
            let cell = next.checked_add(skipped).filter(|&cell| cell < CELLS as u64);
            let sum = total.checked_add(count);
            (next, total) = (cell.map_or(next, |cell| cell + 1), sum.unwrap_or(total));
            cell.is_some() && sum.is_some()
        })
    }

    /// The histogram.
    #[must_use]
    pub fn histogram(&self) -> hist::Histogram {
        let mut histogram = hist::Histogram::EMPTY;
        let mut next = 0;
        for run in self.runs.chunks(2) {
            let &[skipped, count] = run else { break };
            next += skipped as usize;
            // Records are checked when they are decoded.
            let Some(cell) = histogram.cells.get_mut(next) else { break };
            *cell = count;
            next += 1;
        }
        histogram
    }
}

fn integer(value: &Value) -> u64 {
    match value {
        Value::Integer(value) => *value,
        Value::Float(value) => *value as u64,
        Value::Histogram(histogram) => histogram.count(),
    }
}
