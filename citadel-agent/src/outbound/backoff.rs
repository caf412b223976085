//! Backoff after failures, shared by all clients that send.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// First wait after a failure; each further one doubles.
pub const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Maximum wait chosen by the agent.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Maximum wait that a receiver can request.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Relative random variation of a wait, so that many agents do not retry at the same time.
pub const JITTER: f64 = 0.1;

/// Retry interval while parked.
pub const PROBE: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the wait after it. `jitter` is random, from -1 to 1; `asked` is the wait requested
    /// by the receiver.
    pub fn failed(&mut self, jitter: f64, asked: Option<Duration>) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1u32 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        jittered(doubled, jitter).max(asked.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }

    /// Counts a success; returns whether there were failures before it.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Number of failures since the last success.
    #[must_use]
    pub fn failures(self) -> u32 {
        self.failures
    }
}

/// Varies a wait randomly.
#[must_use]
pub fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 + JITTER * jitter.clamp(-1.0, 1.0))
}

/// A random generator for [`jittered`].
#[derive(Debug, Default)]
pub struct Chance {
    random: RandomState,
    draws: u64,
}

impl Chance {
    /// A random number from -1 to 1.
    pub fn draw(&mut self) -> f64 {
        self.draws += 1;
        self.random.hash_one(self.draws) as f64 / u64::MAX as f64 * 2.0 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_receivers_may_ask_for_longer_ones() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.failed(0.0, None).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        let seconds = Duration::from_secs;
        assert_eq!(backoff.failed(0.0, Some(seconds(90))), seconds(90));
        assert_eq!(backoff.failed(0.0, Some(seconds(86_400))), LONGEST_RETRY_AFTER);
        assert!(backoff.succeeded() && !backoff.succeeded());
        assert_eq!(backoff.failed(1.0, Some(seconds(0))), Duration::from_millis(550));
        let mut chance = Chance::default();
        assert!((0..1000).all(|_| (-1.0..=1.0).contains(&chance.draw())));
    }
}
