//! The series that a receiver refuses, so that a bad sample is not searched for in every collection. Pure.
//!
//! A series is omitted after its samples were refused individually in three batches in a row. One of its samples is
//! then tried on its own after five minutes, and at doubling intervals up to one hour. Once one is accepted, the series
//! is sent again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::time::Duration;

/// Number of consecutive batches in which a series must be refused: a single bad sample is not enough.
const STRIKES: u32 = 3;

/// First and maximum wait until a series is tried again.
const FIRST_TRY: Duration = Duration::from_secs(300);
const LAST_TRY: Duration = Duration::from_secs(3600);

/// Wait if the receiver did not respond about the series.
const UNANSWERED: Duration = Duration::from_secs(60);

/// Maximum number of remembered series; the one refused longest ago is forgotten first.
const MOST: usize = 4096;

/// A series, identified by a hash of its labels.
pub type Key = u64;

#[derive(Clone, Copy, Debug)]
struct Strikes {
    strikes: u32,
    /// The batch of the last strike, identified by its first sample.
    batch: u64,
    at: Duration,
    next: Duration,
    pause: Duration,
}

/// The refused series of a destination.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    series: HashMap<Key, Strikes>,
    /// Incremented with each change of the omitted series.
    version: u64,
    /// Randomly seeded, so that nobody can choose a model name whose series collides with another one.
    hasher: RandomState,
}

impl Refused {
    /// The key of a series, from its name and label values.
    #[must_use]
    pub fn key<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Key {
        let mut hasher = self.hasher.build_hasher();
        texts.for_each(|text| text.hash(&mut hasher));
        hasher.finish()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Number of omitted series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.values().filter(|entry| entry.strikes >= STRIKES).count()
    }

    /// Changes with the omitted series.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether this series is omitted.
    #[must_use]
    pub fn skips(&self, key: Key) -> bool {
        self.series.get(&key).is_some_and(|entry| entry.strikes >= STRIKES)
    }

    /// Whether this series was refused but is not omitted yet.
    #[must_use]
    pub fn suspects(&self, key: Key) -> bool {
        self.series.get(&key).is_some_and(|entry| entry.strikes < STRIKES)
    }

    /// Whether any series is due for a try.
    #[must_use]
    pub fn any_due(&self, now: Duration) -> bool {
        self.series.values().any(|entry| entry.strikes >= STRIKES && now >= entry.next)
    }

    /// Whether this series is due for a try.
    #[must_use]
    pub fn due(&self, key: Key, now: Duration) -> bool {
        self.series.get(&key).is_some_and(|entry| entry.strikes >= STRIKES && now >= entry.next)
    }

    /// A sample of this series, in the batch that starts at sample `batch`, was refused individually. Returns true if
    /// the series is omitted from now on.
    pub fn strike(&mut self, key: Key, batch: u64, now: Duration) -> bool {
        if !self.series.contains_key(&key) && self.series.len() >= MOST {
            let oldest = self.series.iter().min_by_key(|(_, entry)| entry.at).map(|(&key, _)| key);
            oldest.map(|key| self.series.remove(&key));
            self.version += 1;
        }
        let new = Strikes { strikes: 0, batch, at: now, next: now + FIRST_TRY, pause: FIRST_TRY };
        let entry = self.series.entry(key).or_insert(new);
        if entry.strikes > 0 && entry.batch == batch {
            return false;
        }
        (entry.batch, entry.at, entry.next) = (batch, now, now + FIRST_TRY);
        entry.strikes += 1;
        self.version += 1;
        entry.strikes == STRIKES
    }

    /// A sample of this series was accepted. Returns true if the series had been omitted.
    pub fn taken(&mut self, key: Key) -> bool {
        self.version += 1;
        self.series.remove(&key).is_some_and(|entry| entry.strikes >= STRIKES)
    }

    /// A try of this series was refused (`answered`), or there was no response.
    pub fn tried(&mut self, key: Key, answered: bool, now: Duration) {
        if let Some(entry) = self.series.get_mut(&key) {
            if answered {
                entry.pause = (entry.pause * 2).min(LAST_TRY);
                entry.at = now;
            }
            entry.next = now + if answered { entry.pause } else { UNANSWERED };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn a_series_is_left_out_after_three_batches_in_a_row_and_tried_more_and_more_rarely() {
        let mut refused = Refused::default();
        let now = Duration::ZERO;
        assert!(!refused.strike(7, 0, now));
        assert!(!refused.strike(7, 0, now), "the same batch says nothing new");
        assert!(!refused.strike(7, 10, now) && !refused.skips(7));
        assert!(!refused.taken(7), "it was not left out yet");
        for batch in [20, 30] {
            assert!(!refused.strike(7, batch, now));
        }
        assert!(refused.strike(7, 40, now) && refused.skips(7) && !refused.skips(8));
        assert_eq!(refused.len(), 1);
        let (mut at, mut waits) = (now, Vec::new());
        for _ in 0..6 {
            let begin = at;
            while !refused.due(7, at) {
                assert!(!refused.any_due(at));
                at += minutes(1);
            }
            waits.push((at - begin).as_secs() / 60);
            refused.tried(7, true, at);
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        refused.tried(7, false, at);
        assert!(!refused.due(7, at + minutes(1) - Duration::from_secs(1)) && refused.due(7, at + minutes(1)));
        assert!(refused.taken(7) && !refused.skips(7) && refused.is_empty());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_refused_now() {
        let mut refused = Refused::default();
        for key in 0..2 * MOST as u64 {
            refused.strike(key, key, Duration::from_secs(key));
        }
        assert_eq!(refused.series.len(), MOST);
        assert!(refused.series.contains_key(&(2 * MOST as u64 - 1)) && !refused.series.contains_key(&0));
    }
}
