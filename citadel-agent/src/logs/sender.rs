//! How to react to a receiver's response: a state machine without clock, network or disk.
//!
//! The current entries are a batch; a request sends a piece from its start, usually all of it.
//!
//! | response | OTLP | Loki | systemd-journal-remote |
//! |---|---|---|---|
//! | success | 200, 202, 204, except what `partial_success` rejects | 204 | 200, 202 |
//! | any other 2xx (Loki's 260: ingestion is blocked), a redirect, 401, 403, 404, 405, 407, 415 | nothing is accepted: retried once a minute | same | same |
//! | 429, 502, 503, 504, no response | retried forever, after 0.5 s, 1 s, ... 30 s, or `Retry-After` | same | same |
//! | 400, 413, 422 | halved until a single entry is refused, which is rejected | same | same |
//! | 500, other 5xx | rejected: OTLP does not allow a retry | retried; after ten in a row halved as above | same |
//! | other 4xx | rejected | rejected | rejected |

use std::time::Duration;

use prost::Message as _;

use super::wire::otlp;
use crate::config::resolved::logs::Format;
use crate::outbound::Reply;
use crate::outbound::backoff::{Backoff, PROBE, jittered};

/// Most entries of a request.
pub(super) const MOST_ENTRIES: usize = 1000;

/// After this many consecutive 5xx caused by the receiver itself, the batch is searched for the entry that causes them.
const OWN_FAILURES: u32 = 10;

/// After this many consecutive entries are refused one by one, whole batches are rejected.
const SEARCHES: u32 = 16;

/// The meaning of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// Accepted, except for this many.
    Taken(u64),
    /// Some entries were refused, or there were too many.
    Refused,
    /// Rejected, whatever the entries are.
    Rejected,
    /// The receiver accepts nothing.
    Closed,
    /// The receiver is down or busy.
    Busy,
    /// The receiver had an internal error.
    Failed,
}

/// The meaning of `reply` in `format`.
#[must_use]
pub fn meaning(format: Format, reply: &Reply) -> Meaning {
    let taken: &[u16] = match format {
        Format::Otlp => &[200, 202, 204],
        Format::Loki => &[204],
        Format::Journal => &[200, 202],
    };
    match reply.status {
        Some(status) if taken.contains(&status) => Meaning::Taken(match format {
            Format::Otlp => not_taken(&reply.body),
            Format::Loki | Format::Journal => 0,
        }),
        Some(200..=399 | 401 | 403 | 404 | 405 | 407 | 415) => Meaning::Closed,
        Some(429 | 502 | 503 | 504) | None => Meaning::Busy,
        Some(400 | 413 | 422) => Meaning::Refused,
        Some(500..) if format == Format::Otlp => Meaning::Rejected,
        Some(500..) => Meaning::Failed,
        Some(_) => Meaning::Rejected,
    }
}

/// Number of entries that an OTLP response reports as rejected.
fn not_taken(body: &[u8]) -> u64 {
    let partial = otlp::Response::decode(body).ok().and_then(|response| response.partial_success);
    partial.and_then(|partial| u64::try_from(partial.rejected_log_records).ok()).unwrap_or(0)
}

/// The consequences of a response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Entries from the start of the batch that are settled, and how many of them are acknowledged; the others are
    /// rejected.
    pub settled: Option<(usize, u64)>,
    /// Pause before the next request.
    pub wait: Duration,
    /// To be logged.
    pub news: Option<News>,
}

/// A change to be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Nothing is accepted.
    Closed,
    /// A request failed after a success.
    Failing,
    /// Entries are accepted again.
    Recovered,
    /// Entries are rejected.
    Rejects,
}

/// The state machine of one destination.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    backoff: Backoff,
    /// Consecutive internal errors of the receiver.
    own_failures: u32,
    closed: bool,
    /// Maximum number of entries per request while searching for those that are refused.
    limit: Option<usize>,
    /// Consecutive entries that were refused individually.
    refused: u32,
}

impl Sender {
    /// How many of `entries` entries to send now.
    #[must_use]
    pub fn piece(&self, entries: usize) -> usize {
        self.limit.unwrap_or(usize::MAX).clamp(1, entries.max(1))
    }

    /// Whether nothing is accepted.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Handles the response to a piece of `sent` entries. `jitter` is random, from -1 to 1.
    pub fn answered(&mut self, sent: usize, meaning: Meaning, retry_after: Option<Duration>, jitter: f64) -> Outcome {
        match meaning {
            Meaning::Taken(missing) => {
                let was_closed = std::mem::take(&mut self.closed);
                let recovered = self.backoff.succeeded() || was_closed;
                (self.own_failures, self.refused) = (0, 0);
                self.limit = self.limit.map(|limit| limit * 2).filter(|limit| *limit < MOST_ENTRIES);
                let acknowledged = (sent as u64).saturating_sub(missing);
                let news = if missing > 0 { Some(News::Rejects) } else { recovered.then_some(News::Recovered) };
                Outcome { settled: Some((sent, acknowledged)), wait: Duration::ZERO, news }
            }
            Meaning::Closed => {
                let news = (!std::mem::replace(&mut self.closed, true)).then_some(News::Closed);
                Outcome { settled: None, wait: jittered(PROBE, jitter).max(retry_after.unwrap_or_default()), news }
            }
            Meaning::Busy => self.again(jitter, retry_after),
            Meaning::Failed => {
                self.own_failures += 1;
                if self.own_failures < OWN_FAILURES {
                    return self.again(jitter, retry_after);
                }
                self.own_failures = 0;
                self.refused(sent, jitter)
            }
            Meaning::Refused => self.refused(sent, jitter),
            Meaning::Rejected => self.reject(sent, jitter),
        }
    }

    fn again(&mut self, jitter: f64, retry_after: Option<Duration>) -> Outcome {
        let news = (self.backoff.failures() == 0).then_some(News::Failing);
        Outcome { settled: None, wait: self.backoff.failed(jitter, retry_after), news }
    }

    fn refused(&mut self, sent: usize, jitter: f64) -> Outcome {
        if sent > 1 && self.refused < SEARCHES {
            self.limit = Some(sent.div_ceil(2));
            return Outcome::default();
        }
        self.reject(sent, jitter)
    }

    fn reject(&mut self, sent: usize, jitter: f64) -> Outcome {
        self.closed = false;
        self.refused = self.refused.saturating_add(1);
        let wait = if self.refused < SEARCHES {
            Duration::ZERO
        } else {
            // Everything is refused: send whole batches from now on, and rarely.
            self.limit = None;
            self.backoff.failed(jitter, None)
        };
        Outcome { settled: Some((sent, 0)), wait, news: Some(News::Rejects) }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn reply(status: u16, body: &[u8]) -> Reply {
        Reply {
            status: Some(status),
            words: String::new(),
            retry_after: None,
            headers: HeaderMap::new(),
            body: body.to_vec(),
        }
    }

    #[test]
    fn answers_mean_what_each_protocol_says() {
        use Format::{Journal, Loki, Otlp};
        use Meaning::{Busy, Closed, Failed, Refused, Rejected, Taken};
        for (status, otlp, loki, journal) in [
            (200, Taken(0), Closed, Taken(0)),
            (202, Taken(0), Closed, Taken(0)),
            (204, Taken(0), Taken(0), Closed),
            (260, Closed, Closed, Closed),
            (301, Closed, Closed, Closed),
            (400, Refused, Refused, Refused),
            (401, Closed, Closed, Closed),
            (404, Closed, Closed, Closed),
            (408, Rejected, Rejected, Rejected),
            (413, Refused, Refused, Refused),
            (429, Busy, Busy, Busy),
            (500, Rejected, Failed, Failed),
            (501, Rejected, Failed, Failed),
            (503, Busy, Busy, Busy),
        ] {
            let of = |format| meaning(format, &reply(status, b""));
            assert_eq!((of(Otlp), of(Loki), of(Journal)), (otlp, loki, journal), "{status}");
        }
        let none = Reply { status: None, ..reply(1, b"") };
        assert_eq!(meaning(Otlp, &none), Busy);
        let partial = otlp::Response {
            partial_success: Some(otlp::PartialSuccess { rejected_log_records: 3, error_message: "x".to_owned() }),
        };
        assert_eq!(meaning(Otlp, &reply(200, &partial.encode_to_vec())), Taken(3));
        assert_eq!(meaning(Otlp, &reply(200, b"{}")), Taken(0));
    }

    /// Sends a batch to a receiver that refuses some entries; what was acknowledged and rejected, and how many requests it took.
    fn run(batch: usize, meaning: impl Fn(&[usize]) -> Meaning) -> (Vec<usize>, Vec<usize>, usize, Duration) {
        let (mut sender, mut at, mut requests, mut waited) = (Sender::default(), 0, 0, Duration::ZERO);
        let (mut acknowledged, mut rejected) = (Vec::new(), Vec::new());
        while at < batch {
            let piece: Vec<_> = (at..batch).take(sender.piece(batch - at)).collect();
            let outcome = sender.answered(piece.len(), meaning(&piece), None, 0.0);
            (requests, waited) = (requests + 1, waited + outcome.wait);
            assert!(requests < 10_000, "it goes on for ever");
            if let Some((entries, good)) = outcome.settled {
                (if good > 0 { &mut acknowledged } else { &mut rejected }).extend(at..at + entries);
                at += entries;
            }
        }
        (acknowledged, rejected, requests, waited)
    }

    #[test]
    fn one_bad_entry_costs_itself_alone() {
        let bad = |piece: &[usize]| if piece.contains(&371) { Meaning::Refused } else { Meaning::Taken(0) };
        let (acknowledged, rejected, requests, waited) = run(1000, bad);
        assert_eq!(rejected, [371]);
        assert_eq!(acknowledged.len(), 999);
        assert!(requests < 60 && waited == Duration::ZERO, "{requests}");
    }

    #[test]
    fn a_body_that_is_too_large_goes_out_in_pieces() {
        let large = |piece: &[usize]| if piece.len() > 100 { Meaning::Refused } else { Meaning::Taken(0) };
        let (acknowledged, rejected, requests, _) = run(1000, large);
        assert_eq!((acknowledged.len(), rejected.len()), (1000, 0));
        assert!(requests < 40, "{requests}");
    }

    #[test]
    fn who_refuses_everything_gets_few_requests() {
        let (acknowledged, rejected, requests, waited) = run(1000, |_| Meaning::Refused);
        assert_eq!((acknowledged.len(), rejected.len()), (0, 1000));
        assert!(requests < 100 && waited > Duration::ZERO, "{requests}");
        // The next batch is refused as a whole.
        let mut sender = Sender::default();
        for _ in 0..SEARCHES {
            sender.answered(1, Meaning::Refused, None, 0.0);
        }
        assert_eq!(sender.answered(1000, Meaning::Refused, None, 0.0).settled, Some((1000, 0)));
    }

    #[test]
    fn failures_wait_and_are_news_once() {
        let mut sender = Sender::default();
        let asked = Some(Duration::from_secs(120));
        let first = sender.answered(5, Meaning::Busy, asked, 0.0);
        assert_eq!(first, Outcome { settled: None, wait: Duration::from_secs(120), news: Some(News::Failing) });
        assert_eq!(sender.answered(5, Meaning::Busy, None, 0.0).news, None);
        assert_eq!(sender.answered(5, Meaning::Taken(2), None, 0.0).settled, Some((5, 3)));
        assert_eq!(sender.answered(5, Meaning::Closed, None, 0.0).news, Some(News::Closed));
        let closed = sender.answered(5, Meaning::Closed, None, 0.0);
        assert!(closed == Outcome { settled: None, wait: PROBE, news: None } && sender.closed());
        assert_eq!(sender.answered(5, Meaning::Taken(0), None, 0.0).news, Some(News::Recovered));
        assert!(!sender.closed());
    }

    #[test]
    fn what_a_receiver_always_fails_on_does_not_hold_up_the_rest() {
        let fails = |piece: &[usize]| if piece.contains(&7) { Meaning::Failed } else { Meaning::Taken(0) };
        let (acknowledged, rejected, requests, waited) = run(16, fails);
        assert_eq!((acknowledged.len(), rejected.as_slice()), (15, &[7][..]));
        assert!(requests > OWN_FAILURES as usize && waited > Duration::from_secs(60));
    }
}
