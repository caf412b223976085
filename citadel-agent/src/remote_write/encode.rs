//! Encodes samples of records as the body of a request, in both protocols. Pure.

mod message;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;

use super::record::{Family, Record, RecordSample};
use super::refused::{Key, Refused};
use super::series;
use crate::metrics::buckets::{self, Classic};
use crate::metrics::catalogue::{self, Desc};
use message::Message;

/// Maximum number of series in a request: 2000, as in Prometheus, unless a single histogram has more.
pub const MAX_SERIES: usize = 2000;

/// Maximum size of a request before compression, as estimated: the smallest usual limit of a proxy (nginx: 1 MiB).
const MAX_BYTES: usize = 1 << 20;

/// Overhead in bytes of a label besides its text; of a number with its timestamp and framing; and of a native
/// histogram.
const LABEL: usize = 4;
const SAMPLE: usize = 48;
const NATIVE: usize = 1024;

/// Protocol version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

impl Protocol {
    /// Version number, also used in file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }

    /// The `Content-Type` header. Without a space, because Prometheus compares the parameter literally.
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

/// Encoding of samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Protocol version.
    pub protocol: Protocol,
    /// Whether to send native histograms.
    pub native: bool,
    /// Whether to send classic histograms: `_bucket`, `_sum` and `_count`.
    pub classic: bool,
}

/// Content of a request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Samples as counted by the ledger: a histogram is one.
    pub samples: u64,
    /// Series as counted by a receiver: numbers and native histograms.
    pub series: u64,
    /// Native histograms among these.
    pub histograms: u64,
    /// Samples that were omitted because the receiver refuses their series.
    pub skipped: u64,
}

/// Body of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Compressed bytes.
    pub bytes: Bytes,
    /// Content.
    pub sent: Sent,
}

/// The catalogue by name. A record may have been written by another version.
static CATALOGUE: LazyLock<HashMap<&str, &Desc>> =
    LazyLock::new(|| catalogue::all().map(|desc| (desc.name, desc)).collect());

/// Remaining space in a request: number of series, and bytes before compression.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    samples: u64,
    series: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// An empty request of at most `samples` samples, if the receiver has asked for less than [`MAX_SERIES`].
    #[must_use]
    pub fn new(samples: Option<u64>) -> Self {
        Self { samples: samples.unwrap_or(u64::MAX), series: MAX_SERIES, bytes: MAX_BYTES, empty: true }
    }

    /// Whether nothing else fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.samples == 0 || self.series == 0 || self.bytes == 0
    }

    /// Adds samples of `record` starting at `from`, as many as fit, and returns the index of the first that does not.
    /// At least one is added.
    pub fn take(&mut self, record: &Record, from: u32, form: Form) -> u32 {
        let length = |position: &u32| record.shape.symbol(*position).len() + LABEL;
        let identity: usize = record.shape.identity.iter().map(length).sum();
        let mut at = from;
        for run in record.runs(from..u32::MAX) {
            let family = run.family;
            let series = form.series(record, family);
            let names = length(&family.name) + family.label_names.iter().map(length).sum::<usize>();
            for sample in run.samples() {
                let own = names + sample.values.iter().map(length).sum::<usize>();
                if !self.fits(series, form.bytes(family, series, own, identity)) {
                    return at;
                }
                at += 1;
            }
        }
        record.len()
    }

    /// Adds one sample if it fits.
    fn fits(&mut self, series: usize, bytes: usize) -> bool {
        if !self.empty && (self.samples == 0 || series > self.series || bytes > self.bytes) {
            return false;
        }
        self.empty = false;
        self.samples = self.samples.saturating_sub(1);
        self.series = self.series.saturating_sub(series);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// Encodes the samples of these runs, each of one record, except those of `refused` series.
///
/// # Errors
/// It is too large for snappy (4 GiB), which [`Room`] prevents.
pub fn request<'a>(
    runs: impl Iterator<Item = (&'a Record, Range<u32>)>,
    form: Form,
    refused: &Refused,
) -> Result<Body, snap::Error> {
    let mut message = Message::new(form);
    for (record, range) in runs {
        message.add(record, record.runs(range), refused);
    }
    let (message, sent) = message.finish();
    Ok(Body { bytes: snap::raw::Encoder::new().compress_vec(&message)?.into(), sent })
}

/// Encodes the samples at `range`.
///
/// # Errors
/// See [`request`].
pub fn body(record: &Record, range: Range<u32>, form: Form) -> Result<Body, snap::Error> {
    request(std::iter::once((record, range)), form, &Refused::default())
}

/// The series of a sample, for [`Refused`].
#[must_use]
pub fn key(record: &Record, sample: &RecordSample<'_>, refused: &Refused) -> Key {
    let own = [&sample.family.name].into_iter().chain(sample.values);
    refused.key(own.chain(&record.shape.identity).map(|&position| record.shape.symbol(position)))
}

/// A sample's series, for the log.
#[must_use]
pub fn display(record: &Record, sample: &RecordSample<'_>) -> String {
    let symbol = |&position: &u32| record.shape.symbol(position);
    let own = sample.family.label_names.iter().map(symbol).zip(sample.values.iter().map(symbol));
    series::display(&series::labels(&record.shape.identity(), symbol(&sample.family.name), own))
}

/// The classic buckets of a histogram family.
fn classic(record: &Record, family: &Family) -> &'static Classic {
    buckets::classic(CATALOGUE.get(record.shape.symbol(family.name)).copied())
}

impl Form {
    /// The number of series that a sample becomes.
    fn series(self, record: &Record, family: &Family) -> usize {
        match family.histogram {
            true => usize::from(self.native) + if self.classic { classic(record, family).series() } else { 0 },
            false => 1,
        }
    }

    /// Approximate maximum size that a sample of `series` series adds to the message; `own` and `identity` are the sizes of
    /// its labels and of the common ones.
    fn bytes(self, family: &Family, series: usize, own: usize, identity: usize) -> usize {
        let native = if family.histogram && self.native { NATIVE } else { 0 };
        native
            + match self.protocol {
                Protocol::V1 => series * (own + identity + SAMPLE),
                // Strings are stored once.
                Protocol::V2 => own + series * SAMPLE,
            }
    }
}
