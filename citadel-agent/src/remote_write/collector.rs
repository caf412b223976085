//! Turns pages into records: their timestamps, and which series ended.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::queue::Loaded;
use super::record::{Identity, Record, Shape};
use super::spool::{Reason, Spool};
use super::stale::{Change, Gone};
use crate::collector::Collected;
use crate::metrics::family::Page;

/// If the clock goes back by less than this, it is waited for; if by more, the earlier time was wrong. Receivers reject
/// samples further in the future than this (Prometheus: 10 minutes).
const PATIENCE_MS: i64 = 10 * 60 * 1000;

/// State carried across a reload: the last collection and its labels.
#[derive(Debug)]
pub struct Told {
    identity: Identity,
    last_ms: Option<i64>,
    before: Option<Arc<Collected>>,
}

/// Turns pages into records.
#[derive(Debug)]
pub(super) struct Collector {
    identity: Identity,
    last_ms: Option<i64>,
    before: Option<Arc<Collected>>,
    /// The shape of the record made from `before`, if no series had ended then.
    shape: Option<Arc<Shape>>,
    /// Series with a previous identity, which have ended.
    renamed: Option<(Identity, Vec<Gone>)>,
    waiting: bool,
}

impl Collector {
    /// `told` is the last collection before a reload: with the same labels its series continue, with others they have
    /// ended.
    pub(super) fn new(identity: Identity, told: Option<Told>) -> Self {
        let mut collector = Self { identity, last_ms: None, before: None, shape: None, renamed: None, waiting: false };
        let Some(told) = told else { return collector };
        collector.last_ms = told.last_ms;
        if told.identity == collector.identity {
            collector.before = told.before;
        } else if let Some(before) = told.before {
            let gone = Change::between(&before.page, &Page::default()).gone;
            collector.renamed = Some((told.identity, gone));
        }
        collector
    }

    /// Stops, and returns the state for a reload.
    pub(super) fn told(self) -> Told {
        Told { identity: self.identity, last_ms: self.last_ms, before: self.before }
    }

    /// Adds a page to the spool; returns its number of samples, and the record, if it was spooled.
    pub(super) fn take(&mut self, collected: &Arc<Collected>, spool: &mut Spool) -> (u32, Option<Loaded>) {
        let Collected { at_ms: now_ms, page } = &**collected;
        let (now_ms, start_ms) = (*now_ms, start_ms(page));
        let change = self.before.as_ref().map(|before| Change::between(&before.page, page));
        let gone = change.as_ref().map_or(&[][..], |change| &change.gone);
        let same = self.shape.as_ref().filter(|_| change.as_ref().is_some_and(Change::is_none));
        let record = match same {
            Some(shape) => Record::of(Arc::clone(shape), page, now_ms, start_ms),
            None => Record::new(page, gone, &self.identity, now_ms, start_ms),
        };
        let samples = record.len();
        let Some(time_ms) = stamp(self.last_ms, now_ms) else {
            if !std::mem::replace(&mut self.waiting, true) {
                warn!("the system clock went backwards; dropping samples until it has caught up");
            }
            // Stale markers are still to be sent.
            spool.lose(samples, Reason::Clock);
            return (samples, None);
        };
        self.waiting = false;
        if let Some((identity, gone)) = self.renamed.take().filter(|(_, gone)| !gone.is_empty()) {
            append(Record::new(&Page::default(), &gone, &identity, time_ms, 0), spool);
        }
        self.last_ms = Some(time_ms);
        self.shape = gone.is_empty().then(|| Arc::clone(&record.shape));
        self.before = Some(Arc::clone(collected));
        (samples, append(record, spool))
    }
}

fn append(record: Record, spool: &mut Spool) -> Option<Loaded> {
    match record.to_bytes() {
        Ok(body) => {
            let first = spool.end();
            spool.append(record.len(), record.time_ms, body);
            Some(Loaded { first, record })
        }
        Err(error) => {
            error!(%error, "a page is too large to spool");
            None
        }
    }
}

/// Timestamp of a collection: later than the last one, or `None`.
fn stamp(last_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    match last_ms {
        Some(last) if now_ms <= last && last - now_ms < PATIENCE_MS => None,
        _ => Some(now_ms),
    }
}

/// The agent's start in milliseconds since the epoch; 0 if the page does not have it.
fn start_ms(page: &Page) -> i64 {
    let since = page.start_seconds().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_that_was_far_ahead_is_not_waited_for() {
        assert_eq!(stamp(None, -5), Some(-5));
        assert_eq!(stamp(Some(PATIENCE_MS), 0), Some(0));
        assert_eq!(stamp(Some(PATIENCE_MS - 1), 0), None);
    }

    proptest! {
        #[test]
        fn times_grow_whatever_the_clock_does_within_patience(steps in prop::collection::vec(-1000i64..1000, 1..100)) {
            let (mut clock, mut last) = (0, None);
            for step in steps {
                clock += step;
                if let Some(time) = stamp(last, clock) {
                    prop_assert!(last.is_none_or(|last| time > last || last - time >= PATIENCE_MS));
                    last = Some(time);
                }
            }
        }
    }
}
