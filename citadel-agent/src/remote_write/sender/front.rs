//! The current batch, and the pieces it was split into.

use std::ops::Range;
use std::time::Duration;

/// Why the front is sent once with 1.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trial {
    /// 415: the receiver does not support the message type.
    Type,
    /// 400: it may not support the message, or refuse the samples.
    Samples,
}

/// The current batch.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// The ends of its pieces, the next one last.
    ends: Vec<u64>,
    /// The first sample that is not settled.
    from: u64,
    /// How often it was bisected.
    pub(super) cuts: u32,
    /// Whether some of it was accepted.
    pub(super) wanted: bool,
    /// Whether some of it was refused.
    pub(super) refused: bool,
    /// Whether a request of it was too large.
    pub(super) too_large: bool,
    /// Number of samples of its largest request that was not too large.
    pub(super) fits: u64,
    /// Consecutive 5xx about this piece, and when the first was received.
    pub(super) failed: u32,
    pub(super) since: Option<Duration>,
    /// Later batches that have succeeded, and how many of their samples were written.
    pub(super) passed: Vec<(Range<u64>, u64)>,
    /// Number of consecutive successes of later batches while this piece failed.
    pub(super) streak: u32,
    /// Whether a later batch is to be sent next.
    pub(super) scout: bool,
    /// Set while it is sent with 1.0 as a trial.
    pub(super) trial: Option<Trial>,
    /// Whether the trial is over.
    pub(super) tried: bool,
}

impl Front {
    pub(super) fn new(batch: Range<u64>) -> Self {
        Self {
            ends: vec![batch.end],
            from: batch.start,
            cuts: 0,
            wanted: false,
            refused: false,
            too_large: false,
            fits: 0,
            failed: 0,
            since: None,
            passed: Vec::new(),
            streak: 0,
            scout: false,
            trial: None,
            tried: false,
        }
    }

    /// The next piece to send.
    pub(super) fn piece(&self) -> Range<u64> {
        self.from..self.ends.last().copied().unwrap_or(self.from)
    }

    /// Bisects the next piece.
    pub(super) fn cut(&mut self) {
        let piece = self.piece();
        self.cuts += 1;
        self.ends.push(piece.start + (piece.end - piece.start) / 2);
    }

    /// Where the next later batch starts.
    pub(super) fn scouted_to(&self) -> u64 {
        self.passed.last().map_or_else(|| self.ends.first().copied().unwrap_or(self.from), |(range, _)| range.end)
    }

    /// Previous failures were not about this piece.
    pub(super) fn trust(&mut self) {
        (self.failed, self.since, self.streak, self.scout) = (0, None, 0, false);
    }

    /// Continues after a settled piece; returns false if that was the last one.
    pub(super) fn advance(&mut self, end: u64) -> bool {
        self.from = end;
        self.ends.pop();
        self.trust();
        !self.ends.is_empty()
    }
}
