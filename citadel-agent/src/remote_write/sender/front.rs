//! The batch under way, and the pieces that it was cut into.

use std::ops::Range;
use std::time::Duration;

/// Why the front goes out in 1.0 once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trial {
    /// 415: the receiver does not know the message.
    Type,
    /// 400: it may not know the message, or not want the samples.
    Samples,
}

/// The batch under way.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// Where the pieces that it was cut into end, the next one last.
    ends: Vec<u64>,
    /// The first sample that is not settled.
    from: u64,
    /// How often it was cut.
    pub(super) cuts: u32,
    /// Whether some of it was wanted.
    pub(super) wanted: bool,
    /// Whether some of it was refused.
    pub(super) refused: bool,
    /// Whether a request of it was too large.
    pub(super) too_large: bool,
    /// Samples of its largest request that was not.
    pub(super) fits: u64,
    /// 5xx that are about this piece, in a row, and when the first of them came.
    pub(super) failed: u32,
    pub(super) since: Option<Duration>,
    /// Later batches that have passed already, and how many of their samples were written.
    pub(super) passed: Vec<(Range<u64>, u64)>,
    /// So many passed in a row while this piece failed.
    pub(super) streak: u32,
    /// Whether a later batch has to be sent next.
    pub(super) scout: bool,
    /// Set while it goes out in 1.0 to see whether that is understood.
    pub(super) trial: Option<Trial>,
    /// Whether that was seen.
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

    /// What goes out next.
    pub(super) fn piece(&self) -> Range<u64> {
        self.from..self.ends.last().copied().unwrap_or(self.from)
    }

    /// Cuts the next piece in two.
    pub(super) fn cut(&mut self) {
        let piece = self.piece();
        self.cuts += 1;
        self.ends.push(piece.start + (piece.end - piece.start) / 2);
    }

    /// Where the next later batch begins.
    pub(super) fn scouted_to(&self) -> u64 {
        self.passed.last().map_or_else(|| self.ends.first().copied().unwrap_or(self.from), |(range, _)| range.end)
    }

    /// The failures so far were not about this piece.
    pub(super) fn trust(&mut self) {
        (self.failed, self.since, self.streak, self.scout) = (0, None, 0, false);
    }

    /// Goes on behind a piece that is settled; false when that was the last one.
    pub(super) fn advance(&mut self, end: u64) -> bool {
        self.from = end;
        self.ends.pop();
        self.trust();
        !self.ends.is_empty()
    }
}
