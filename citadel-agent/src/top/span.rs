//! The time span of figures, and of the trend drawn next to them.

use std::time::Duration;

use crate::history::{COARSE_MS, FINE_MS, FINE_SPAN_MS, Millis, SPAN_MS};

/// Lengths that the keys `+` and `-` step through.
const LENGTHS: [Millis; 7] =
    [2 * FINE_MS, COARSE_MS, 5 * COARSE_MS, FINE_SPAN_MS, 60 * COARSE_MS, 6 * 60 * COARSE_MS, SPAN_MS];

/// Number of points of a trend.
const POINTS: Millis = 90;

/// A length of time, 5 s to a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span(Millis);

impl Span {
    /// From a duration within the limits.
    ///
    /// # Errors
    /// It is outside the limits.
    pub(super) fn of(time: Duration) -> Result<Self, String> {
        let ms = Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX);
        if (FINE_MS..=SPAN_MS).contains(&ms) { Ok(Self(ms)) } else { Err("must be between 5s and 24h".to_owned()) }
    }

    /// In milliseconds.
    #[must_use]
    pub(super) const fn ms(self) -> Millis {
        self.0
    }

    /// The next longer one.
    #[must_use]
    pub(super) fn longer(self) -> Self {
        Self(LENGTHS.into_iter().find(|&length| length > self.0).unwrap_or(self.0))
    }

    /// The next shorter one.
    #[must_use]
    pub(super) fn shorter(self) -> Self {
        Self(LENGTHS.into_iter().rev().find(|&length| length < self.0).unwrap_or(self.0))
    }

    /// Length of a trend's points: a multiple of the history's intervals at that age.
    #[must_use]
    pub(super) const fn step_ms(self) -> Millis {
        if self.0 <= COARSE_MS {
            FINE_SPAN_MS / POINTS
        } else if self.0 <= FINE_SPAN_MS {
            COARSE_MS
        } else {
            SPAN_MS / POINTS
        }
    }

    /// Length of a trend.
    #[must_use]
    pub(super) const fn trend_ms(self) -> Millis {
        self.step_ms() * POINTS
    }

    /// In words: `1m`.
    #[must_use]
    pub(super) fn words(self) -> String {
        words(self.0)
    }
}

/// A time in words.
#[must_use]
pub(super) fn words(ms: Millis) -> String {
    humantime::format_duration(Duration::from_secs(ms.unsigned_abs() / 1000)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_through_all_lengths_and_stop_at_both_ends() {
        let mut span = Span::of(Duration::from_secs(90)).unwrap();
        span = span.shorter();
        assert_eq!(span.words(), "1m");
        for expected in ["10s", "10s"] {
            span = span.shorter();
            assert_eq!(span.words(), expected);
        }
        for expected in ["1m", "5m", "15m", "1h", "6h", "1day", "1day"] {
            span = span.longer();
            assert_eq!(span.words(), expected);
            assert!(span.trend_ms() >= span.ms() && span.trend_ms() <= SPAN_MS);
        }
        assert!(Span::of(Duration::from_secs(4)).is_err() && Span::of(Duration::from_secs(86_401)).is_err());
    }
}
