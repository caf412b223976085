//! One collection as the spool keeps it: every sample of a page at one time, whole in itself. Pure.
//!
//! Neither protocol's form, because which one a receiver takes shows only when it is sent, perhaps a night later. A string
//! stands once in a table, samples refer to it, and values stand in columns: with snappy above it that is a few bytes a
//! sample. A *sample* here is one value of one series, a whole histogram being one.

use std::collections::HashMap;
use std::ops::Range;

use citadel_agent_common::hist::{self, CELLS};
use prost::Message;

use super::stale::Gone;
use crate::metrics::catalogue::{Desc, Kind};
use crate::metrics::family::{LabelValues, Page, Value};

/// What every series of a collection carries besides its own labels.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Label names and values: job, instance and the configured external labels.
    pub labels: Vec<(String, String)>,
}

/// One collection.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// When it was collected, in milliseconds since the epoch.
    #[prost(sint64, tag = "1")]
    pub time_ms: i64,
    /// When the agent that collected it began to count, likewise; 0: unknown.
    #[prost(sint64, tag = "2")]
    pub start_ms: i64,
    /// The [`Identity`]: names and values in turn, as positions in the symbols.
    #[prost(uint32, repeated, tag = "3")]
    pub identity: Vec<u32>,
    /// Every string, once.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// The families.
    #[prost(message, repeated, tag = "5")]
    pub families: Vec<Family>,
}

/// Samples of one metric, all values of the same sort: of the four columns at the end one is as long as there are
/// samples, or none, and then the samples are stale markers.
#[derive(Clone, PartialEq, Message)]
pub struct Family {
    /// The catalogued name, as a position in the symbols.
    #[prost(uint32, tag = "1")]
    pub name: u32,
    /// Number of samples.
    #[prost(uint32, tag = "2")]
    pub samples: u32,
    /// Label names, as positions in the symbols.
    #[prost(uint32, repeated, tag = "3")]
    pub label_names: Vec<u32>,
    /// Label values, likewise: as many a sample as there are names.
    #[prost(uint32, repeated, tag = "4")]
    pub label_values: Vec<u32>,
    /// Whether these are histograms; says what a stale marker must look like.
    #[prost(bool, tag = "5")]
    pub histogram: bool,
    /// Whether the values count since [`Record::start_ms`].
    #[prost(bool, tag = "6")]
    pub since_start: bool,
    /// Whole numbers.
    #[prost(uint64, repeated, tag = "7")]
    pub integers: Vec<u64>,
    /// Any numbers.
    #[prost(double, repeated, tag = "8")]
    pub floats: Vec<f64>,
    /// Histograms.
    #[prost(message, repeated, tag = "9")]
    pub histograms: Vec<Cells>,
}

/// A histogram's cells that are not empty.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Cells {
    /// In turn: empty cells skipped, and the count of the next one.
    #[prost(uint64, repeated, tag = "1")]
    pub runs: Vec<u64>,
}

/// A sample's value.
#[derive(Clone, PartialEq, Debug)]
pub enum Point {
    /// A number.
    Number(f64),
    /// A histogram.
    Histogram(Box<hist::Histogram>),
    /// The series ended.
    Stale,
}

/// One sample of a record.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample<'a> {
    /// Its family.
    pub family: &'a Family,
    /// Its label values, as positions in the symbols.
    pub values: &'a [u32],
    /// Its value.
    pub point: Point,
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not snappy.
    #[error("cannot be decompressed: {0}")]
    Snappy(#[from] snap::Error),
    /// Not the message.
    #[error("cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The message contradicts itself.
    #[error("is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Strings, each once, in the order of their first use.
#[derive(Default)]
pub(super) struct Symbols {
    positions: HashMap<String, u32>,
    strings: Vec<String>,
}

impl Symbols {
    /// The position of `text`, which is added unless it is there.
    pub(super) fn position(&mut self, text: &str) -> u32 {
        if let Some(&position) = self.positions.get(text) {
            return position;
        }
        let position = self.strings.len() as u32;
        self.positions.insert(text.to_owned(), position);
        self.strings.push(text.to_owned());
        position
    }

    /// All of them.
    pub(super) fn into_strings(self) -> Vec<String> {
        self.strings
    }
}

impl Record {
    /// A sorted page, and what has gone since the page before it.
    #[must_use]
    pub fn new(page: &Page, gone: &[Gone], identity: &Identity, time_ms: i64, start_ms: i64) -> Self {
        let mut symbols = Symbols::default();
        let identity = (identity.labels.iter())
            .flat_map(|(name, value)| [symbols.position(name), symbols.position(value)])
            .collect();
        let mut families = Vec::new();
        for family in page.families.iter().filter(|family| !family.samples.is_empty()) {
            let labels = family.samples.iter().map(|sample| &sample.labels);
            let mut out = Family::new(family.desc, labels, &mut symbols);
            let values = || family.samples.iter().map(|sample| &sample.value);
            if out.histogram {
                out.histograms = values().map(Cells::new).collect();
            } else if values().all(|value| matches!(value, Value::Integer(_))) {
                out.integers = values().map(integer).collect();
            } else {
                out.floats = values().map(number).collect();
            }
            families.push(out);
        }
        for Gone { desc, labels } in gone {
            families.push(Family::new(desc, labels.iter(), &mut symbols));
        }
        Self { time_ms, start_ms, identity, symbols: symbols.into_strings(), families }
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.families.iter().map(|family| family.samples).sum()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As bytes for the spool.
    ///
    /// # Errors
    /// When it is too large for snappy (4 GiB), which no page is.
    pub fn to_bytes(&self) -> Result<Vec<u8>, snap::Error> {
        snap::raw::Encoder::new().compress_vec(&self.encode_to_vec())
    }

    /// The record that `bytes` hold, consistent in itself.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::decode(snap::raw::Decoder::new().decompress_vec(bytes)?.as_slice())?;
        record.check().map_err(RecordError::Inconsistent)?;
        Ok(record)
    }

    fn check(&self) -> Result<(), &'static str> {
        let positions = |list: &[u32]| list.iter().all(|&position| (position as usize) < self.symbols.len());
        if !self.identity.len().is_multiple_of(2) || !positions(&self.identity) {
            return Err("its identity");
        }
        for family in &self.families {
            let samples = family.samples as usize;
            if !positions(&[family.name]) || !positions(&family.label_names) || !positions(&family.label_values) {
                return Err("a symbol that is not there");
            }
            if samples.checked_mul(family.label_names.len()) != Some(family.label_values.len()) {
                return Err("the number of label values");
            }
            // Which also keeps the number of samples below that of the bytes.
            if family.label_names.is_empty() && samples > 1 {
                return Err("two samples with the same labels");
            }
            let columns = [family.integers.len(), family.floats.len(), family.histograms.len()];
            if columns.iter().any(|&length| length != 0 && length != samples) || columns.iter().sum::<usize>() > samples
            {
                return Err("the number of values");
            }
            if family.histograms.iter().any(|cells| cells.histogram().is_none()) {
                return Err("a histogram with too many cells");
            }
        }
        Ok(())
    }

    /// Names and values of the labels that every series gets.
    #[must_use]
    pub fn identity(&self) -> Vec<(&str, &str)> {
        self.identity.chunks(2).map(|pair| (self.symbol(pair[0]), self.symbol(pair[1]))).collect()
    }

    /// The string at `position`.
    #[must_use]
    pub fn symbol(&self, position: u32) -> &str {
        self.symbols.get(position as usize).map_or("", String::as_str)
    }

    /// The samples at `range`, counted over all families.
    pub fn samples(&self, range: Range<u32>) -> impl Iterator<Item = Sample<'_>> {
        let mut first = 0;
        self.families.iter().flat_map(move |family| {
            let own = (first, first + family.samples);
            first = own.1;
            let from = range.start.clamp(own.0, own.1) - own.0;
            let to = range.end.clamp(own.0, own.1) - own.0;
            (from..to).map(move |i| family.sample(i as usize))
        })
    }
}

impl Family {
    fn new<'a>(desc: &Desc, labels: impl Iterator<Item = &'a LabelValues>, symbols: &mut Symbols) -> Self {
        let name = symbols.position(desc.name);
        let label_names = desc.labels.iter().map(|label| symbols.position(label)).collect();
        let (mut samples, mut label_values) = (0, Vec::new());
        for values in labels {
            label_values.extend(values.iter().map(|value| symbols.position(value)));
            samples += 1;
        }
        let (histogram, since_start) = (desc.kind == Kind::Histogram, desc.counts_since_start());
        Self { name, samples, label_names, label_values, histogram, since_start, ..Self::default() }
    }

    fn sample(&self, i: usize) -> Sample<'_> {
        let width = self.label_names.len();
        let point = if let Some(&integer) = self.integers.get(i) {
            Point::Number(integer as f64)
        } else if let Some(&float) = self.floats.get(i) {
            Point::Number(float)
        } else if let Some(histogram) = self.histograms.get(i).and_then(Cells::histogram) {
            Point::Histogram(Box::new(histogram))
        } else {
            Point::Stale
        };
        Sample { family: self, values: &self.label_values[i * width..(i + 1) * width], point }
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

    /// `None` when there are more cells than a histogram has.
    fn histogram(&self) -> Option<hist::Histogram> {
        let mut histogram = hist::Histogram::EMPTY;
        let mut next = 0u64;
        for run in self.runs.chunks(2) {
            let &[skipped, count] = run else { return None };
            next = next.checked_add(skipped).filter(|&next| next < CELLS as u64)?;
            histogram.cells[next as usize] = count;
            next += 1;
        }
        Some(histogram)
    }
}

fn integer(value: &Value) -> u64 {
    match value {
        Value::Integer(value) => *value,
        Value::Float(value) => *value as u64,
        Value::Histogram(histogram) => histogram.count(),
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Histogram(histogram) => histogram.count() as f64,
    }
}
