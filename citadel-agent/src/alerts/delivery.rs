//! One peer and the task that sends to it: in order, with retries, and never an older notification of an alert after a
//! newer one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::figures::PeerNumbers;
use super::notification::{HEADERS, Notification, body};
use super::outbox::{Batch, Outbox};
use super::peers::Peer;
use crate::outbound::backoff::{FIRST_WAIT, LONGEST_RETRY_AFTER, LONGEST_WAIT};
use crate::outbound::{Client, Reply};

/// Maximum number of alerts that wait for one peer: more than a host has, and a few megabytes.
const CAPACITY: usize = 4096;

/// Timeout of a request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// A peer, its waiting notifications, and counters.
#[derive(Debug)]
pub(super) struct Delivery {
    peer: Peer,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    numbers: PeerNumbers,
}

impl Delivery {
    /// A peer whose counters continue from `before`.
    pub(super) fn new(peer: Peer, before: Option<PeerNumbers>) -> Self {
        let numbers = before.unwrap_or_else(|| PeerNumbers::of(&peer.name));
        let inner = Inner { outbox: Outbox::new(CAPACITY), numbers };
        Self { peer, inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// Value of the label `peer`.
    pub(super) fn name(&self) -> &str {
        &self.peer.name
    }

    pub(super) fn numbers(&self) -> PeerNumbers {
        let inner = self.inner();
        PeerNumbers { pending: inner.outbox.len() as u64, ..inner.numbers.clone() }
    }

    /// Queues notifications.
    pub(super) fn push(&self, notifications: &[Arc<Notification>]) {
        {
            let mut inner = self.inner();
            for notification in notifications {
                let dropped = inner.outbox.push(Arc::clone(notification));
                inner.numbers.dropped += dropped;
            }
        }
        self.wake.notify_one();
    }

    /// Sends what is queued; never returns.
    pub(super) async fn run(self: Arc<Self>, mut client: Client) {
        let (mut failures, mut refused) = (0, false);
        loop {
            let batch = self.inner().outbox.take();
            if batch.len() == 0 {
                self.wake.notified().await;
                continue;
            }
            let answer = client.post(&HEADERS, body(&batch.notifications())).await;
            match self.settle(batch, &answer) {
                Settled::Done => {
                    if failures > 0 {
                        info!(peer = self.name(), "the Alertmanager accepts alerts again");
                    }
                    (failures, refused) = (0, false);
                }
                Settled::Refused(status) => {
                    // A firing alert is sent again every minute, and refused again: log it only once.
                    if !refused {
                        warn!(peer = self.name(), status, answer = answer.words, "the Alertmanager rejected alerts");
                    }
                    (failures, refused) = (0, true);
                }
                Settled::Again => {
                    if failures == 0 {
                        warn!(
                            peer = self.name(),
                            answer = answer.words,
                            "cannot send alerts; they are kept and retried"
                        );
                    }
                    sleep(pause(failures, answer.retry_after)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Counts the response for `batch`.
    fn settle(&self, batch: Batch, answer: &Reply) -> Settled {
        let mut inner = self.inner();
        let count = batch.len() as u64;
        match answer.status {
            Some(200..=299) => {
                inner.numbers.delivered += count;
                Settled::Done
            }
            // A retry would get the same response. Alertmanager has accepted the valid alerts of the batch, and what
            // still fires is sent again within a minute.
            Some(status @ (300..=428 | 430..=499)) => {
                inner.numbers.rejected += count;
                Settled::Refused(status)
            }
            _ => {
                inner.numbers.failures += 1;
                let dropped = inner.outbox.put_back(batch);
                inner.numbers.dropped += dropped;
                Settled::Again
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No operation leaves it half-changed, so a poisoned lock is safe to use.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do after a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settled {
    Done,
    Refused(u16),
    Again,
}

/// The pause after this many consecutive failures, starting at 0.
fn pause(failures: u32, asked: Option<Duration>) -> Duration {
    let own = FIRST_WAIT.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_WAIT);
    asked.map_or(own, |asked| asked.clamp(FIRST_WAIT, LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;
    use crate::alerts::Texts;

    fn notification(name: &str) -> Arc<Notification> {
        let labels = Texts::from([("alertname".to_owned(), name.to_owned())]);
        Arc::new(Notification {
            labels,
            annotations: Texts::new(),
            starts_at: 0,
            ends_at: 0,
            generator_url: String::new(),
        })
    }

    fn answer(status: Option<u16>) -> Reply {
        Reply { status, words: String::new(), retry_after: None, headers: HeaderMap::new(), body: Vec::new() }
    }

    #[test]
    fn everything_is_accounted_for() {
        let delivery = Delivery::new(Peer { name: "a".to_owned(), url: "http://a/".to_owned() }, None);
        delivery.push(&[notification("a"), notification("b")]);
        let take = || delivery.inner().outbox.take();
        for status in [None, Some(500), Some(503), Some(429)] {
            let batch = take();
            assert_eq!(delivery.settle(batch, &answer(status)), Settled::Again, "{status:?}");
        }
        assert_eq!(delivery.numbers(), PeerNumbers { failures: 4, pending: 2, ..PeerNumbers::of("a") });
        let batch = take();
        assert_eq!(delivery.settle(batch, &answer(Some(200))), Settled::Done);
        delivery.push(&[notification("a")]);
        let batch = take();
        assert_eq!(delivery.settle(batch, &answer(Some(400))), Settled::Refused(400));
        let numbers = PeerNumbers { delivered: 2, rejected: 1, failures: 4, ..PeerNumbers::of("a") };
        assert_eq!(delivery.numbers(), numbers);
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_heed_the_peer() {
        let seconds = Duration::from_secs;
        let own: Vec<_> = (0..9).map(|failures| pause(failures, None)).collect();
        assert_eq!(own[..3], [FIRST_WAIT, seconds(1), seconds(2)]);
        assert_eq!(own[7..], [LONGEST_WAIT, LONGEST_WAIT]);
        assert_eq!(pause(u32::MAX, None), LONGEST_WAIT);
        assert_eq!(pause(0, Some(seconds(120))), seconds(120));
        assert_eq!(pause(0, Some(seconds(86_400))), LONGEST_RETRY_AFTER);
        assert_eq!(pause(0, Some(Duration::ZERO)), FIRST_WAIT);
    }
}
