//! What to send next, and what an answer means: a state machine without clock, network or disk.
//!
//! One batch is under way at a time, the *front*: samples from the cursor on. An answer settles it, or a piece of it, or
//! nothing. Whatever is settled begins at the cursor, so the cursor never jumps.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | the receiver has it |
//! | 2xx to 2.0 without a `-Written` header, 415, 400 from a receiver that never confirmed 2.0 | it knows only 1.0: the same samples again in 1.0, and remembered for a day |
//! | 400, 413, 422 | some of it is not wanted: halves are sent, until the budget is used up or the culprit stands alone |
//! | 401, 403, 404, 407, redirects | nothing gets in at all: parked, probed once a minute (or rejected, as configured) |
//! | other 4xx | rejected; the same body is not sent again |
//! | 429, 5xx, no answer | again, after 0.5 s, 1 s, ... 30 s, give or take a tenth, or after what `Retry-After` says |
//! | 5xx again and again | a later batch goes first, once; if it passes and this one fails still, the fault is in this one: dead letter |

use std::ops::Range;
use std::time::Duration;

use super::encode::{Form, Protocol};
use super::ledger::{Outcome, Receiver};
use crate::config::resolved::remote_write::{self, Denied, Histograms};

/// The first wait after a failure; each further one is twice as long.
pub const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait that the agent chooses by itself.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest wait that a receiver may ask for.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How long a wait differs by chance, so that many agents do not come back together.
pub const JITTER: f64 = 0.1;

/// How often a closed door is tried.
pub const PROBE: Duration = Duration::from_secs(60);

/// How often a batch may be cut in two.
const SPLITS: u32 = 64;

/// So many 5xx for the same batch make it suspect.
const SUSPECT: u32 = 5;

/// How much faster than samples come in a backlog may go out.
const CATCH_UP: f64 = 10.0;

/// How long it is remembered what a receiver does not understand.
const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// What Prometheus answers to a native histogram, with 500, while its feature is off.
const NATIVE_OFF: &str = "native histograms are disabled";

/// How a destination is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The protocol.
    pub protocol: remote_write::Protocol,
    /// Histograms.
    pub histograms: Histograms,
    /// 401, 403, 404.
    pub denied: Denied,
}

/// A receiver's answer to one request.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status; `None` when there was none: no connection, time over, an answer cut off.
    pub status: Option<u16>,
    /// What it said, or what went wrong.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Samples and histograms written, by the `-Written` headers.
    pub written: Option<u64>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing until then.
    Wait(Duration),
    /// There is no front: load the batch at the cursor, and call [`Sender::load`].
    Load,
    /// Send these samples, and call [`Sender::answered`].
    Send(Range<u64>),
    /// Send the batch that begins here, and call [`Sender::scouted`].
    Scout(u64),
}

/// What an answer came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// These samples are settled.
    Settled(Range<u64>, Outcome),
    /// These go to the dead-letter folder, and then are dropped.
    DeadLetter(Range<u64>),
    /// The receiver was found to know only 1.0.
    OnlyV1,
    /// The receiver was found to take no native histograms.
    NoNative,
    /// The door is closed.
    Parked,
    /// The request failed and goes out again after this wait.
    Retry(Duration),
    /// A receiver that failed or was closed takes samples again.
    Recovered,
}

/// The batch under way.
#[derive(Clone, Debug)]
struct Front {
    /// Where the pieces that it was cut into end, the next one last.
    ends: Vec<u64>,
    /// The first sample that is not settled.
    from: u64,
    /// How often it may still be cut.
    splits: u32,
    /// 5xx in a row for the piece.
    failed: u32,
    /// Whether some of it was wanted.
    wanted: bool,
    /// A later batch that has passed already.
    passed: Option<Range<u64>>,
    /// Whether a later batch is to be sent now.
    scout: bool,
}

/// The machine of one destination.
#[derive(Clone, Debug)]
pub struct Sender {
    settings: Settings,
    receiver: Receiver,
    /// Whether the receiver has shown that it knows 2.0.
    confirmed: bool,
    front: Option<Front>,
    /// Failures in a row.
    failures: u32,
    parked: bool,
    /// Nothing is sent before.
    wait: Duration,
    splits: u32,
}

impl Sender {
    /// A machine for a receiver of which `receiver` is remembered.
    #[must_use]
    pub fn new(settings: Settings, receiver: Receiver) -> Self {
        Self {
            settings,
            receiver,
            confirmed: false,
            front: None,
            failures: 0,
            parked: false,
            wait: Duration::ZERO,
            splits: SPLITS,
        }
    }

    /// How samples go out now.
    #[must_use]
    pub fn form(&self) -> Form {
        let protocol = match self.settings.protocol {
            remote_write::Protocol::V1 => Protocol::V1,
            remote_write::Protocol::Auto if self.receiver.only_v1_ms.is_some() => Protocol::V1,
            remote_write::Protocol::Auto | remote_write::Protocol::V2 => Protocol::V2,
        };
        let refused = self.receiver.no_native_ms.is_some();
        let native = self.settings.histograms != Histograms::Classic && !refused;
        Form { protocol, native, classic: self.settings.histograms != Histograms::Native || refused }
    }

    /// What is remembered of the receiver.
    #[must_use]
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Whether the receiver lets nothing in.
    #[must_use]
    pub fn parked(&self) -> bool {
        self.parked
    }

    /// Forgets what was remembered for long enough: receivers are upgraded.
    pub fn forget(&mut self, now_ms: i64) {
        let old = |at: &i64| now_ms - at > MEMORY_MS || *at > now_ms;
        self.receiver.only_v1_ms = self.receiver.only_v1_ms.filter(|at| !old(at));
        self.receiver.no_native_ms = self.receiver.no_native_ms.filter(|at| !old(at));
    }

    /// What to do at `now`, a time on any clock that never goes back.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        match &self.front {
            _ if now < self.wait => Next::Wait(self.wait),
            None => Next::Load,
            Some(front) if front.scout => Next::Scout(front.ends[0]),
            Some(front) => Next::Send(front.piece()),
        }
    }

    /// Takes the batch at the cursor as the front.
    pub fn load(&mut self, batch: Range<u64>) {
        self.front = Some(Front {
            ends: vec![batch.end],
            from: batch.start,
            splits: self.splits,
            failed: 0,
            wanted: false,
            passed: None,
            scout: false,
        });
    }

    /// Lets the front go, because what it was is no longer in the spool.
    pub fn abandon(&mut self) {
        self.front = None;
    }

    /// Holds the next request back, so that a backlog goes out at no more than ten times `live` samples a second.
    pub fn pace(&mut self, sent_at: Duration, samples: u64, live: f64) {
        // Before the first collection nobody knows the rate.
        let pause = if live > 0.0 { samples as f64 / (CATCH_UP * live) } else { 0.0 };
        self.wait =
            self.wait.max(sent_at + Duration::try_from_secs_f64(pause).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
    }

    /// Takes the answer to [`Next::Send`]. `jitter` is by chance, from -1 to 1; `now_ms` is the wall clock's time.
    pub fn answered(&mut self, now: Duration, now_ms: i64, jitter: f64, answer: &Answer) -> Vec<Event> {
        let Some(front) = &mut self.front else { return vec![] };
        let piece = front.piece();
        let form = self.form();
        if form.native && answer.status.is_some_and(|status| status >= 400) && answer.words.contains(NATIVE_OFF) {
            self.receiver.no_native_ms = Some(now_ms);
            return vec![Event::NoNative];
        }
        let asks_for_v2 = form.protocol == Protocol::V2;
        let silent = asks_for_v2 && answer.written.is_none();
        match answer.status {
            Some(200..=299 | 415) if silent => self.only_v1(now, now_ms, jitter),
            Some(400) if silent && !self.confirmed => self.only_v1(now, now_ms, jitter),
            Some(200..=299) => {
                self.confirmed |= asks_for_v2;
                self.settle(piece, Outcome::Acknowledged)
            }
            Some(400 | 413 | 422) => self.refused(piece),
            Some(300..=399 | 401 | 403 | 404 | 407) => self.denied(now, jitter, piece),
            Some(429) | None => self.failed(now, jitter, answer.retry_after, false),
            Some(500..) => self.failed(now, jitter, answer.retry_after, true),
            Some(_) => self.settle(piece, Outcome::Rejected),
        }
    }

    /// Takes the answer to [`Next::Scout`]; `batch` is what was sent, `None` when there was nothing to send.
    pub fn scouted(
        &mut self,
        now: Duration,
        jitter: f64,
        batch: Option<Range<u64>>,
        answer: Option<&Answer>,
    ) -> Vec<Event> {
        let Some(front) = &mut self.front else { return vec![] };
        front.scout = false;
        let passed = answer.is_some_and(|answer| answer.status.is_some_and(|status| (200..300).contains(&status)));
        if passed {
            // At once, so that a receiver that has just come back is not taken for one that dislikes the front.
            front.passed = batch;
            return vec![];
        }
        let wait = self.back_off(now, jitter, answer.and_then(|answer| answer.retry_after));
        vec![Event::Retry(wait)]
    }

    fn only_v1(&mut self, now: Duration, now_ms: i64, jitter: f64) -> Vec<Event> {
        if self.settings.protocol == remote_write::Protocol::Auto {
            self.receiver.only_v1_ms = Some(now_ms);
            return vec![Event::OnlyV1];
        }
        // Who insists on 2.0 has to mend the receiver: an old one answers 2xx to it and keeps nothing.
        self.park(now, jitter)
    }

    fn refused(&mut self, piece: Range<u64>) -> Vec<Event> {
        let Some(front) = &mut self.front else { return vec![] };
        if front.passed.is_some() {
            // It came back just when a later batch was tried first, and now this one is out of order: our doing, not its.
            return self.put_aside(piece);
        }
        if piece.end - piece.start > 1 && front.splits > 0 {
            front.splits -= 1;
            front.ends.push(piece.start + (piece.end - piece.start) / 2);
            return vec![];
        }
        self.settle(piece, Outcome::Rejected)
    }

    fn denied(&mut self, now: Duration, jitter: f64, piece: Range<u64>) -> Vec<Event> {
        match self.settings.denied {
            Denied::Drop => self.settle(piece, Outcome::Rejected),
            Denied::Park => self.park(now, jitter),
        }
    }

    fn park(&mut self, now: Duration, jitter: f64) -> Vec<Event> {
        self.wait = now + jittered(PROBE, jitter);
        match std::mem::replace(&mut self.parked, true) {
            true => vec![],
            false => vec![Event::Parked],
        }
    }

    fn failed(&mut self, now: Duration, jitter: f64, retry_after: Option<Duration>, by_receiver: bool) -> Vec<Event> {
        let Some(front) = &mut self.front else { return vec![] };
        front.failed = if by_receiver { front.failed + 1 } else { 0 };
        if by_receiver && front.passed.is_some() {
            let piece = front.piece();
            return self.put_aside(piece);
        }
        if front.failed >= SUSPECT {
            front.scout = true;
            return vec![];
        }
        vec![Event::Retry(self.back_off(now, jitter, retry_after))]
    }

    fn back_off(&mut self, now: Duration, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1u32 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let wait = jittered(doubled, jitter).max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER));
        self.wait = now + wait;
        wait
    }

    /// Gives the piece at the front up, for a person to look at.
    fn put_aside(&mut self, piece: Range<u64>) -> Vec<Event> {
        let end = piece.end;
        let mut events = vec![Event::DeadLetter(piece)];
        events.extend(self.advance(end));
        events
    }

    /// Settles the piece at the front.
    fn settle(&mut self, piece: Range<u64>, outcome: Outcome) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(front) = &mut self.front {
            front.wanted |= outcome == Outcome::Acknowledged;
        }
        let was_closed = std::mem::take(&mut self.parked);
        if outcome == Outcome::Acknowledged && (was_closed || self.failures > 0) {
            events.push(Event::Recovered);
        }
        self.failures = 0;
        let end = piece.end;
        events.push(Event::Settled(piece, outcome));
        events.extend(self.advance(end));
        events
    }

    /// Goes on behind a piece that is done with; with the last one the front is over.
    fn advance(&mut self, end: u64) -> Option<Event> {
        let front = self.front.as_mut()?;
        front.from = end;
        front.failed = 0;
        front.ends.pop();
        if !front.ends.is_empty() {
            return None;
        }
        // Where nothing at all was wanted, the next batch will hardly fare better: less is spent on finding out.
        self.splits = if front.wanted { SPLITS } else { (front.splits.min(self.splits) / 2).max(2) };
        let passed = front.passed.take();
        self.front = None;
        passed.map(|batch| Event::Settled(batch, Outcome::Acknowledged))
    }
}

impl Front {
    fn piece(&self) -> Range<u64> {
        self.from..self.ends.last().copied().unwrap_or(self.from)
    }
}

fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 + JITTER * jitter.clamp(-1.0, 1.0))
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
