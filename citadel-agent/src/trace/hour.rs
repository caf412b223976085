//! The slowest and the failed requests of a model in the last hour, and from which duration on a request can be among them. Pure.

use std::collections::VecDeque;

use super::request::Kept;
use crate::history::Millis;

/// Length of a period.
const PERIOD_MS: Millis = 5 * 60 * 1000;

/// Periods that are kept: the last hour, and the one under way.
const PERIODS: usize = 13;

/// Slowest requests that are kept of a period.
const SLOWEST: usize = 20;

/// Failed requests that are kept of a period: the newest.
const FAILED: usize = 20;

/// What is kept of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Hour {
    periods: VecDeque<Period>,
}

#[derive(Clone, Debug)]
struct Period {
    from_ms: Millis,
    /// Sorted, the slowest first.
    slowest: Vec<Kept>,
    failed: VecDeque<Kept>,
}

impl Hour {
    /// Adds a request, which has just ended.
    pub(super) fn add(&mut self, kept: Kept) {
        self.go_on(kept.ended_ms);
        let Some(period) = self.periods.back_mut() else { return };
        if kept.failed() {
            if period.failed.len() == FAILED {
                period.failed.pop_front();
            }
            period.failed.push_back(kept);
            return;
        }
        let at = period.slowest.partition_point(|other| other.duration_ns() >= kept.duration_ns());
        period.slowest.insert(at, kept);
        period.slowest.truncate(SLOWEST);
    }

    /// Begins a new period if it is time to.
    fn go_on(&mut self, now_ms: Millis) {
        // The wall clock may be set back or forward.
        let goes_on = |period: &Period| (0..PERIOD_MS).contains(&(now_ms - period.from_ms));
        if !self.periods.back().is_some_and(goes_on) {
            self.periods.push_back(Period { from_ms: now_ms, slowest: Vec::new(), failed: VecDeque::new() });
        }
        if self.periods.len() > PERIODS {
            self.periods.pop_front();
        }
    }

    /// From which duration on, in nanoseconds, a request belongs to the slowest.
    pub(super) fn threshold_ns(&self, now_ms: Millis) -> u64 {
        let least = |period: &Period| match period.slowest.len() {
            SLOWEST => period.slowest.last().map_or(0, Kept::duration_ns),
            _ => 0,
        };
        let mut newest = self.periods.iter().rev();
        let Some(period) = newest.next() else { return 0 };
        let age = now_ms - period.from_ms;
        if age >= PERIOD_MS {
            // Nothing has begun the next one yet.
            return least(period) / 2;
        }
        // Of a period that has just begun everything would be among the slowest: until its half, half of what it took before.
        let before = if age < PERIOD_MS / 2 { newest.next().map_or(0, least) / 2 } else { 0 };
        least(period).max(before)
    }

    /// Forgets the addresses of clients.
    pub(super) fn forget_addresses(&mut self) {
        for period in &mut self.periods {
            for kept in period.slowest.iter_mut().chain(&mut period.failed) {
                *kept = kept.without_client();
            }
        }
    }

    /// All of them, in any order.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Kept> {
        self.periods.iter().flat_map(|period| period.slowest.iter().chain(&period.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::request::tests::ended;

    const MS: u64 = 1_000_000;

    fn durations(hour: &Hour) -> Vec<u64> {
        let mut all: Vec<_> = hour.requests().map(|kept| kept.duration_ns() / MS).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_slowest_of_each_period_are_kept_and_tell_what_is_slow() {
        let mut hour = Hour::default();
        assert_eq!(hour.threshold_ns(0), 0, "everything is among the slowest of nothing");
        for n in 0..100 {
            hour.add(ended(1000 + n, (n as u64 * 37 % 100) * MS, 200));
        }
        assert_eq!(durations(&hour), (80..100).collect::<Vec<_>>());
        assert_eq!(hour.threshold_ns(2000), 80 * MS);
        // The next period begins with half of it, and forgets it after its half.
        assert_eq!(hour.threshold_ns(1000 + PERIOD_MS), 40 * MS);
        hour.add(ended(1000 + PERIOD_MS, 50 * MS, 200));
        assert_eq!(hour.threshold_ns(1001 + PERIOD_MS), 40 * MS);
        assert_eq!(hour.threshold_ns(1000 + PERIOD_MS * 3 / 2), 0);
        assert_eq!(durations(&hour).len(), 21);
    }

    #[test]
    fn failed_requests_are_kept_however_fast_they_are() {
        let mut hour = Hour::default();
        for n in 0..50 {
            hour.add(ended(n, 100 * MS, 200));
            hour.add(ended(n, n.unsigned_abs(), 503));
        }
        let failed: Vec<_> = hour.requests().filter(|kept| kept.failed()).map(|kept| kept.ended_ms).collect();
        assert_eq!(failed, (30..50).collect::<Vec<_>>(), "the newest");
        assert_eq!(hour.requests().count(), SLOWEST + FAILED);
    }

    #[test]
    fn an_hour_is_kept_and_no_more_however_the_clock_is_set() {
        let mut hour = Hour::default();
        for minute in 0..600 {
            hour.add(ended(minute * 60_000, MS, 200));
        }
        let oldest = hour.requests().map(|kept| kept.ended_ms).min().unwrap();
        assert!((60..=65).contains(&(599 - oldest / 60_000)), "{oldest}");
        for n in 0..1000 {
            hour.add(ended(if n % 2 == 0 { 0 } else { i64::MAX / 2 }, MS, 200));
        }
        assert!(hour.requests().count() <= PERIODS * (SLOWEST + FAILED));
    }
}
