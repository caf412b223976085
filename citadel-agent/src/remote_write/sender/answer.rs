//! Responses, their results, and the next action.

use std::ops::Range;
use std::time::Duration;

use crate::remote_write::encode::Sent;

/// What a 2.0 receiver reports as written; `None` if it does not.
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

/// A receiver's response to a request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReceiverAnswer {
    /// The status; `None` if there was no response: connection failed, timeout, truncated response.
    pub status: Option<u16>,
    /// Its message, or the error.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The `-Written` headers; `None` if there were none.
    pub written: Option<Written>,
    /// Whether its headers identify a receiver without Prometheus' native histograms.
    pub classic_only: bool,
}

impl ReceiverAnswer {
    /// The number of sent samples that the receiver does not report as written.
    #[must_use]
    pub fn missing(&self, sent: &Sent) -> u64 {
        self.written.unwrap_or_default().missing(sent)
    }
}

/// The next action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Wait until then.
    Wait(Duration),
    /// There is no front: load the batch at the cursor, and call [`super::Sender::load`].
    Load,
    /// Send these samples, and call [`super::Sender::answered`].
    Send(Range<u64>),
    /// Send the batch that starts here, and call [`super::Sender::scouted`].
    Scout(u64),
}

/// The result of a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// These samples are settled: this many are acknowledged, the others rejected.
    Settled(Range<u64>, u64),
    /// The only sample of this range that was sent was refused.
    Culprit(Range<u64>),
    /// Write these to the dead-letter directory and drop them; this many of them had been omitted, and are rejected.
    DeadLetter(Range<u64>, u64),
    /// The receiver was found to support only 1.0.
    OnlyV1,
    /// The receiver was found not to accept native histograms.
    NoNative,
    /// The destination was parked.
    Parked,
    /// The request failed and is retried after this wait.
    Retry(Duration),
    /// A receiver that failed or was parked accepts samples again.
    Recovered,
    /// The receiver answers 2xx but has written fewer samples; reported once until it writes all again.
    Short(u64),
    /// The receiver refuses everything; reported once until it accepts something.
    RefusesAll,
}
