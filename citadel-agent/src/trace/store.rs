//! What is kept of the records. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::filter::Filter;
use super::hour::Hour;
use super::request::Kept;
use crate::history::Millis;

/// Newest requests that are kept while somebody traces: 4 MB, more than a second at 10,000 requests a second.
const RECENT: usize = 16_384;

/// Requests in one answer: what is more comes in the next.
const IN_ANSWER: usize = 2000;

/// The newest requests while somebody traces, and those of the last hour.
#[derive(Debug, Default)]
pub(super) struct Store {
    recent: VecDeque<Kept>,
    /// Number of the oldest of them.
    first: u64,
    hours: BTreeMap<u16, Hour>,
}

/// Requests since the last answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Since {
    pub(super) requests: Vec<Kept>,
    /// What to ask for next.
    pub(super) next: u64,
    /// Number of those that are not kept any more.
    pub(super) missed: u64,
}

impl Store {
    /// Keeps a request; `traced`: somebody traces.
    pub(super) fn add(&mut self, kept: Kept, traced: bool) {
        self.hours.entry(kept.port).or_default().add(kept);
        if traced {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
                self.first += 1;
            }
            self.recent.push_back(kept);
        }
    }

    /// Nobody traces any more.
    pub(super) fn forget_recent(&mut self) {
        self.first += self.recent.len() as u64;
        self.recent = VecDeque::new();
    }

    /// Forgets the addresses of clients.
    pub(super) fn forget_addresses(&mut self) {
        for kept in &mut self.recent {
            *kept = kept.without_client();
        }
        for hour in self.hours.values_mut() {
            hour.forget_addresses();
        }
    }

    /// From which duration on requests of a port are recorded while nobody traces.
    pub(super) fn threshold_ns(&self, port: u16, now_ms: Millis) -> u64 {
        self.hours.get(&port).map_or(0, |hour| hour.threshold_ns(now_ms))
    }

    /// The number after the newest request.
    pub(super) fn end(&self) -> u64 {
        self.first + self.recent.len() as u64
    }

    /// The requests from number `since` on that are wanted, of a port or all.
    pub(super) fn since(&self, since: u64, port: Option<u16>, filter: &Filter) -> Since {
        let since = since.min(self.end());
        let from = since.max(self.first);
        let skipped = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        let mut answer = Since { requests: Vec::new(), next: from, missed: from - since };
        for kept in self.recent.iter().skip(skipped) {
            if answer.requests.len() == IN_ANSWER {
                break;
            }
            answer.next += 1;
            if wants(kept, port, filter) {
                answer.requests.push(*kept);
            }
        }
        answer
    }

    /// The newest `last` of the slowest and failed requests of the last hour that are wanted, in the order in which they ended.
    pub(super) fn last(&self, last: usize, port: Option<u16>, filter: &Filter) -> Vec<Kept> {
        let all = self.hours.values().flat_map(Hour::requests).filter(|kept| wants(kept, port, filter));
        let mut all: Vec<_> = all.copied().collect();
        all.sort_by_key(|kept| (kept.ended_ms, kept.record.ended_ns));
        all.split_off(all.len().saturating_sub(last.min(IN_ANSWER)))
    }

    /// The `most` slowest requests of a port in the last hour that did not fail, the slowest first.
    pub(super) fn slowest(&self, port: u16, most: usize) -> Vec<Kept> {
        let all = self.hours.get(&port).into_iter().flat_map(Hour::requests).filter(|kept| !kept.failed());
        let mut all: Vec<_> = all.copied().collect();
        all.sort_by_key(|kept| Reverse(kept.duration_ns()));
        all.truncate(most);
        all
    }
}

fn wants(kept: &Kept, port: Option<u16>, filter: &Filter) -> bool {
    port.is_none_or(|port| port == kept.port) && filter.wants(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::request::tests::ended;

    fn ends(requests: &[Kept]) -> Vec<i64> {
        requests.iter().map(|kept| kept.ended_ms).collect()
    }

    #[test]
    fn each_request_is_in_one_answer_and_what_is_gone_is_counted() {
        let mut store = Store::default();
        let all = RECENT as i64 + 100;
        for n in 0..10 {
            store.add(ended(n, 1, 200), true);
        }
        let first = store.since(4, None, &Filter::default());
        assert_eq!((ends(&first.requests), first.next, first.missed), ((4..10).collect(), 10, 0));
        for n in 10..all {
            store.add(ended(n, 1, if n % 2 == 0 { 200 } else { 500 }), true);
        }
        let filter = Filter { errors: true, ..Filter::default() };
        let (mut next, mut missed, mut seen) = (first.next, 0, Vec::new());
        loop {
            let answer = store.since(next, Some(11401), &filter);
            if answer.next == next {
                break;
            }
            (next, missed) = (answer.next, missed + answer.missed);
            assert!(answer.requests.len() <= IN_ANSWER);
            seen.extend(ends(&answer.requests));
        }
        assert_eq!((missed, next), (90, all as u64));
        assert_eq!(seen, (100..all).filter(|n| n % 2 == 1).collect::<Vec<_>>());
        assert!(store.since(0, Some(1), &Filter::default()).requests.is_empty(), "of another port");
        assert_eq!(store.since(u64::MAX, None, &Filter::default()).next, all as u64, "of an agent before");
    }

    #[test]
    fn the_slowest_of_the_hour_are_of_one_model_and_did_not_fail() {
        let mut store = Store::default();
        for n in 0..50 {
            store.add(ended(n, n.unsigned_abs() * 7 % 50, if n % 10 == 9 { 500 } else { 200 }), false);
        }
        let durations: Vec<_> = store.slowest(11401, 3).iter().map(Kept::duration_ns).collect();
        // 49 is n = 7, 48 is n = 14, 47 is n = 21.
        assert_eq!(durations, [49, 48, 47]);
        assert!(store.slowest(11402, 3).is_empty());
        assert!(store.slowest(11401, 100).iter().all(|kept| !kept.failed()));
    }

    #[test]
    fn nothing_recent_is_kept_while_nobody_traces_but_the_hour_is() {
        let mut store = Store::default();
        store.add(ended(1, 5, 200), true);
        store.forget_recent();
        store.add(ended(2, 6, 500), false);
        assert_eq!((store.recent.len(), store.end()), (0, 1));
        assert_eq!(ends(&store.last(10, None, &Filter::default())), [1, 2]);
        assert_eq!(ends(&store.last(1, None, &Filter::default())), [2], "the newest");
        store.forget_addresses();
        assert!(store.last(10, None, &Filter::default()).iter().all(|kept| kept.client().is_none()));
    }
}
