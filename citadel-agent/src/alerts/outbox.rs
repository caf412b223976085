//! Notifications waiting for one peer: bounded, and only the newest of each alert. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notification::Notification;
use super::state::Texts;

/// Maximum number of alerts per request.
const BATCH: usize = 64;

/// Waiting notifications of one peer, by the labels of the alert, from which Alertmanager computes its fingerprint.
#[derive(Debug)]
pub(super) struct Outbox {
    capacity: usize,
    waiting: BTreeMap<Texts, Waiting>,
    /// Sequence number of the next entry.
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    notification: Arc<Notification>,
}

/// Notifications taken out to be sent.
#[derive(Debug)]
pub(super) struct Batch {
    entries: Vec<Waiting>,
}

impl Batch {
    /// Its notifications, oldest first.
    pub(super) fn notifications(&self) -> Vec<Arc<Notification>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.notification)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, waiting: BTreeMap::new(), next: 0 }
    }

    /// Queues a notification, replacing an older one of the same alert. If the queue is full, the oldest notification
    /// of another alert is dropped; returns how many were.
    pub(super) fn push(&mut self, notification: Arc<Notification>) -> u64 {
        let number = self.next;
        self.next += 1;
        match self.waiting.get_mut(&notification.labels) {
            // It keeps its position, so that an alert that is repeated often does not wait forever.
            Some(entry) => entry.notification = notification,
            None => _ = self.waiting.insert(notification.labels.clone(), Waiting { number, notification }),
        }
        self.trim()
    }

    /// Takes the oldest notifications out; empty when nothing waits.
    pub(super) fn take(&mut self) -> Batch {
        let mut oldest: Vec<_> = self.waiting.iter().map(|(labels, entry)| (entry.number, labels)).collect();
        oldest.sort_unstable();
        let labels: Vec<Texts> = oldest.into_iter().take(BATCH).map(|(_, labels)| labels.clone()).collect();
        Batch { entries: labels.iter().filter_map(|labels| self.waiting.remove(labels)).collect() }
    }

    /// Puts back what could not be sent, except what has been replaced meanwhile. Returns how many did not fit.
    pub(super) fn put_back(&mut self, batch: Batch) -> u64 {
        for entry in batch.entries {
            let number = entry.number;
            let waiting = self.waiting.entry(entry.notification.labels.clone()).or_insert(entry);
            waiting.number = waiting.number.min(number);
        }
        self.trim()
    }

    /// Number of waiting notifications.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn trim(&mut self) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() > self.capacity {
            let oldest = self.waiting.iter().min_by_key(|(_, entry)| entry.number).map(|(labels, _)| labels.clone());
            dropped += u64::from(oldest.is_some_and(|labels| self.waiting.remove(&labels).is_some()));
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notification(alert: u8, version: i64) -> Arc<Notification> {
        Arc::new(Notification {
            labels: Texts::from([("alertname".to_owned(), alert.to_string())]),
            annotations: Texts::new(),
            starts_at: version,
            ends_at: version,
            generator_url: String::new(),
        })
    }

    #[derive(Clone, Debug)]
    enum Action {
        Push(u8),
        Take,
        PutBack,
        Delivered,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0u8..8).prop_map(Action::Push),
            2 => Just(Action::Take),
            1 => Just(Action::PutBack),
            1 => Just(Action::Delivered),
        ]
    }

    proptest! {
        /// Against a plain model: nothing is lost but what is counted, only the newest of each alert waits, and nobody
        /// is told an older state after a newer one.
        #[test]
        fn nothing_is_lost_uncounted_or_told_backwards(actions in prop::collection::vec(action(), 0..200), capacity in 1usize..6) {
            let mut outbox = Outbox::new(capacity);
            let mut taken: Option<Batch> = None;
            let mut newest = BTreeMap::new();
            let mut told: BTreeMap<Texts, i64> = BTreeMap::new();
            let mut dropped = 0;
            for (version, action) in (0..).zip(actions) {
                match action {
                    Action::Push(alert) => {
                        let notification = notification(alert, version);
                        newest.insert(notification.labels.clone(), version);
                        dropped += outbox.push(notification);
                    }
                    Action::Take if taken.is_none() => taken = Some(outbox.take()),
                    Action::PutBack => dropped += taken.take().map_or(0, |batch| outbox.put_back(batch)),
                    Action::Delivered => for notification in taken.take().iter().flat_map(Batch::notifications) {
                        let before = told.insert(notification.labels.clone(), notification.starts_at);
                        prop_assert!(before.is_none_or(|before| before < notification.starts_at));
                    },
                    Action::Take => {}
                }
                prop_assert!(outbox.len() <= capacity);
            }
            dropped += taken.take().map_or(0, |batch| outbox.put_back(batch));
            for notification in outbox.take().notifications() {
                told.insert(notification.labels.clone(), notification.starts_at);
            }
            // What was dropped was the last word about an alert, until the engine says it again.
            if dropped == 0 {
                prop_assert_eq!(told, newest);
            }
        }
    }
}
