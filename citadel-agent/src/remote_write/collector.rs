//! Pages become records: when, with which time, and which series ended.

use std::time::Duration;

use tracing::{error, warn};

use super::record::{Identity, Record};
use super::spool::{Reason, Spool};
use super::stale::{Gone, Series};
use crate::collector::Collected;
use crate::metrics::catalogue::agent::PROCESS_START;
use crate::metrics::family::{Page, Value};

/// A clock that goes back by less than this is waited for; by more, it was wrong before, and is believed now. Receivers
/// take no sample that is further than this in the future (Prometheus: 10 minutes).
const PATIENCE_MS: i64 = 10 * 60 * 1000;

/// What receivers have been told of last: what the next remote write of this process goes on from.
#[derive(Debug)]
pub struct Told {
    identity: Identity,
    last_ms: Option<i64>,
    series: Series,
}

/// Turns pages into records.
#[derive(Debug)]
pub(super) struct Collector {
    identity: Identity,
    last_ms: Option<i64>,
    before: Series,
    /// Series under another identity, which have ended with it.
    renamed: Option<(Identity, Vec<Gone>)>,
    waiting: bool,
}

impl Collector {
    /// `told` is what was told before a reload: under the same labels the series go on, under others they have ended.
    pub(super) fn new(identity: Identity, told: Option<Told>) -> Self {
        let Some(told) = told else {
            return Self { identity, last_ms: None, before: Series::default(), renamed: None, waiting: false };
        };
        let last_ms = told.last_ms;
        if told.identity == identity {
            return Self { identity, last_ms, before: told.series, renamed: None, waiting: false };
        }
        let renamed = Some((told.identity, told.series.gone(&Page::default())));
        Self { identity, last_ms, before: Series::default(), renamed, waiting: false }
    }

    /// Ends it.
    pub(super) fn told(self) -> Told {
        Told { identity: self.identity, last_ms: self.last_ms, series: self.before }
    }

    /// Puts a page into the spool; returns how many samples it had.
    pub(super) fn take(&mut self, collected: &Collected, spool: &mut Spool) -> u32 {
        let Collected { at_ms: now_ms, page } = collected;
        let now_ms = *now_ms;
        let gone = self.before.gone(page);
        let record = Record::new(page, &gone, &self.identity, now_ms, start_ms(page));
        let samples = record.len();
        let Some(time_ms) = stamp(self.last_ms, now_ms) else {
            if !std::mem::replace(&mut self.waiting, true) {
                warn!("the clock went back: samples are dropped until it has caught up");
            }
            // What ended stays to be told.
            spool.lose(samples, Reason::Clock);
            return samples;
        };
        self.waiting = false;
        if let Some((identity, gone)) = self.renamed.take().filter(|(_, gone)| !gone.is_empty()) {
            append(&Record::new(&Page::default(), &gone, &identity, time_ms, 0), spool);
        }
        self.last_ms = Some(time_ms);
        self.before = Series::of(page);
        append(&record, spool);
        samples
    }
}

fn append(record: &Record, spool: &mut Spool) {
    match record.to_bytes() {
        Ok(body) => spool.append(record.len(), record.time_ms, body),
        Err(error) => error!(%error, "a page is too large to be kept"),
    }
}

/// The time of a collection: later than the last one, or there is none.
fn stamp(last_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    match last_ms {
        Some(last) if now_ms <= last && last - now_ms < PATIENCE_MS => None,
        _ => Some(now_ms),
    }
}

/// When the agent began to count, as the page says itself; 0 when it does not.
fn start_ms(page: &Page) -> i64 {
    let family = page.families.iter().find(|family| std::ptr::eq(family.desc, &PROCESS_START));
    match family.and_then(|family| family.samples.first()).map(|sample| &sample.value) {
        Some(Value::Float(seconds)) => Duration::try_from_secs_f64(*seconds)
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .unwrap_or(0),
        _ => 0,
    }
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
