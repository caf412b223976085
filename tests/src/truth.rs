//! When something truly happened: an interval, because a system call takes time and a thread can be preempted in it.
//!
//! A [`Stamp`] brackets one call on one end of a connection; the packet left, or came, somewhere inside. A [`Span`] is
//! what two stamps say about the time between them: not less than `lo`, not more than `hi`. Tests accept a measurement
//! inside the span, and outside by no more than [`tolerance`].

use std::iter::Sum;
use std::ops::Add;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock of the kernel's `bpf_ktime_get_ns` and Python's `time.monotonic_ns`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Sleeps for that many milliseconds.
pub fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// The moments just before and just after a call, in nanoseconds of [`monotonic_ns`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The event did not happen earlier.
    pub before: u64,
    /// The event did not happen later.
    pub after: u64,
}

impl Stamp {
    /// Runs `call` and brackets it.
    pub fn of<T>(call: impl FnOnce() -> T) -> (T, Self) {
        let before = monotonic_ns();
        let result = call();
        (result, Self { before, after: monotonic_ns() })
    }

    /// An event that happened no earlier than `self` began and no later than `end` ended: a write whose bytes the
    /// socket buffer may have kept back until the other side had read them.
    #[must_use]
    pub fn stretched_to(self, end: Self) -> Self {
        Self { before: self.before, after: end.after }
    }

    /// The time from this event to `later`.
    #[must_use]
    pub fn until(self, later: Self) -> Span {
        Span { lo: later.before.saturating_sub(self.after), hi: later.after.saturating_sub(self.before) }
    }
}

/// Bounds of a duration in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// It took at least this long.
    pub lo: u64,
    /// It took at most this long.
    pub hi: u64,
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { lo: self.lo + other.lo, hi: self.hi + other.hi }
    }
}

impl Sum for Span {
    fn sum<I: Iterator<Item = Self>>(spans: I) -> Self {
        spans.fold(Self::default(), Add::add)
    }
}

/// The times between consecutive events.
#[must_use]
pub fn gaps(events: &[Stamp]) -> Vec<Span> {
    events.windows(2).map(|pair| pair[0].until(pair[1])).collect()
}

/// The time from each of the first events to the event at the same place in the second.
///
/// # Panics
/// If one has more events than the other.
#[must_use]
#[track_caller]
pub fn spans(from: &[Stamp], to: &[Stamp]) -> Vec<Span> {
    assert_eq!(from.len(), to.len(), "every event has its counterpart");
    from.iter().zip(to).map(|(from, to)| from.until(*to)).collect()
}

/// How far outside of its bounds a measured duration may lie: 2 % of it or 200 us, whichever is more.
#[must_use]
pub fn tolerance(ns: u64) -> u64 {
    (ns / 50).max(200_000)
}

/// Fails unless `measured` seconds lie within the span and its tolerance.
///
/// # Panics
/// If they do not; the text names `what`, the measurement and the bounds.
#[track_caller]
pub fn assert_within(what: &str, measured: f64, truth: Span) {
    let lo = truth.lo.saturating_sub(tolerance(truth.lo)) as f64 / 1e9;
    let hi = (truth.hi + tolerance(truth.hi)) as f64 / 1e9;
    assert!(
        (lo..=hi).contains(&measured),
        "{what}: measured {measured:.6} s, but it took between {:.6} s and {:.6} s (with tolerance {lo:.6} to {hi:.6})",
        truth.lo as f64 / 1e9,
        truth.hi as f64 / 1e9,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_calls_is_bracketed() {
        let ((), first) = Stamp::of(|| pause(5));
        let ((), second) = Stamp::of(|| pause(5));
        let span = first.until(second);
        assert!(span.lo < 5_000_000, "the second began right after the first ended: {span:?}");
        assert!(span.hi >= 10_000_000, "both together took 10 ms: {span:?}");
    }

    #[test]
    fn tolerance_is_the_larger_of_two_percent_and_200_us() {
        assert_eq!(tolerance(1_000_000), 200_000);
        assert_eq!(tolerance(1_000_000_000), 20_000_000);
    }

    #[test]
    #[should_panic(expected = "measured 0.900000 s")]
    fn a_measurement_outside_of_the_tolerance_fails() {
        assert_within("test", 0.9, Span { lo: 1_000_000_000, hi: 1_010_000_000 });
    }
}
