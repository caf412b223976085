//! Token buckets.

use std::time::{Duration, Instant};

/// A token bucket: `burst` tokens at once, then one per interval.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    burst: f64,
    interval: Duration,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Creates a full bucket. `interval` must not be zero.
    pub(super) fn new(burst: f64, interval: Duration) -> Self {
        Self { burst, interval, tokens: burst, filled: Instant::now() }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Whether there is a token.
    pub(super) fn has(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= 1.0
    }

    /// Whether the bucket is full.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() / self.interval.as_secs_f64()).min(self.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_an_interval() {
        let mut bucket = Bucket::new(3.0, Duration::from_secs(2));
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!((0..3).all(|_| bucket.take(at(0.0))));
        assert!(!bucket.take(at(0.0)) && !bucket.take(at(1.9)));
        assert!(bucket.take(at(2.1)) && !bucket.take(at(2.2)));
        // Going back in time adds nothing.
        assert!(!bucket.take(at(1.0)) && !bucket.is_full(at(3.0)));
        // An hour fills it up to its burst.
        assert!(bucket.is_full(at(3600.0)) && (0..3).all(|_| bucket.take(at(3600.0))) && !bucket.take(at(3600.0)));
    }
}
