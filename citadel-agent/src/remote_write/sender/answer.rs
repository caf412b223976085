//! What came back, what it came to, and what to do next.

use std::ops::Range;
use std::time::Duration;

use crate::remote_write::encode::Sent;

/// What a 2.0 receiver says that it wrote; `None` where it does not say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Numbers.
    pub samples: Option<u64>,
    /// Native histograms.
    pub histograms: Option<u64>,
}

impl Written {
    /// How much of what was sent is missing.
    pub(super) fn missing(self, sent: &Sent) -> u64 {
        let short = |sent: u64, written: Option<u64>| written.map_or(0, |written| sent.saturating_sub(written));
        short(sent.series - sent.histograms, self.samples) + short(sent.histograms, self.histograms)
    }
}

/// A receiver's answer to one request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// The status; `None` when there was none: no connection, time over, an answer cut off.
    pub status: Option<u16>,
    /// What it said, or what went wrong.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The `-Written` headers; `None` when there was none of them.
    pub written: Option<Written>,
    /// Whether its headers name a receiver that has no native histograms of Prometheus' kind.
    pub classic_only: bool,
}

impl Answer {
    /// How much of what was sent the receiver does not say that it has written.
    #[must_use]
    pub fn missing(&self, sent: &Sent) -> u64 {
        self.written.unwrap_or_default().missing(sent)
    }
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing until then.
    Wait(Duration),
    /// There is no front: load the batch at the cursor, and call [`super::Sender::load`].
    Load,
    /// Send these samples, and call [`super::Sender::answered`].
    Send(Range<u64>),
    /// Send the batch that begins here, and call [`super::Sender::scouted`].
    Scout(u64),
}

/// What an answer came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// These samples are settled: so many are acknowledged, the others rejected.
    Settled(Range<u64>, u64),
    /// The one sample of this range that went out is refused by itself.
    Culprit(Range<u64>),
    /// These go to the dead-letter folder, and then are dropped; but so many of them had been left out, and are rejected.
    DeadLetter(Range<u64>, u64),
    /// The receiver was found to know only 1.0.
    OnlyV1,
    /// The receiver was found to take no native histograms.
    NoNative,
    /// Nothing gets in.
    Parked,
    /// The request failed and goes out again after this wait.
    Retry(Duration),
    /// A receiver that failed or was closed takes samples again.
    Recovered,
    /// The receiver answers 2xx and has written less than was sent; once until it writes all again.
    Short(u64),
    /// The receiver refuses everything; once until it takes something.
    RefusesAll,
}
