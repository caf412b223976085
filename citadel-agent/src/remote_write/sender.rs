//! What to send next, and what an answer means: a state machine without clock, network or disk.
//!
//! One batch is under way at a time, the *front*: samples from the cursor on. An answer settles it, or a piece of it, or
//! nothing. Whatever is settled begins at the cursor, so the cursor never jumps.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | the receiver has what it says that it wrote; in 1.0 all of it |
//! | 2xx to 2.0 without a `-Written` header | it kept nothing, and knows only 1.0: the same samples again in 1.0, remembered for a day |
//! | 415, and 400 from a receiver that never confirmed 2.0 | the same samples once in 1.0; only if these are understood does it know only 1.0 |
//! | 400, 413, 422 | some of it is not wanted: what the receiver says that it wrote counts, or else halves are sent |
//! | 401, 403, 404, 407, 415 to both protocols, redirects | nothing gets in at all: parked, probed once a minute (or rejected, as configured) |
//! | other 4xx | rejected; the same body is not sent again |
//! | 429, 502, 503, 504, no answer | temporary: again, for ever, after 0.5 s, 1 s, ... 30 s, give or take a tenth, or after `Retry-After` |
//! | 500, other 5xx | the same; but a batch that meets it for minutes, while later ones pass, is put aside |

mod answer;
mod front;

use std::ops::Range;
use std::time::Duration;

use super::encode::{Form, Protocol, Sent};
use super::ledger::Receiver;
use crate::config::resolved::remote_write::{self, Denied, Histograms};
use crate::outbound::backoff::{Backoff, FIRST_WAIT, LONGEST_WAIT, PROBE, jittered};
pub use answer::{Answer, Event, Next, Written};
use front::{Front, Trial};

/// So many waits between requests that are refused grow, where nothing was ever wanted; then a batch is searched at an even pace.
const SLOW_REFUSALS: u32 = 4;

/// The wait between two requests that are refused, once the search was in vain.
const REFUSED: Duration = Duration::from_secs(1);

/// How often a batch of which nothing was wanted yet may be cut in two: enough to reach a single one of 2,000 samples.
const BLIND_CUTS: u32 = 16;

/// How often a batch may be cut in two where some of it was wanted.
const CUTS: u32 = 1024;

/// How often a receiver that refuses everything is searched for something that it wants.
const SEARCH: Duration = Duration::from_secs(600);

/// So many 5xx for the same batch, over so long, make it suspect.
const SUSPECT: u32 = 5;
const SUSPECT_FOR: Duration = Duration::from_secs(120);

/// So many later batches in a row must pass, and the suspect fail after each, before it is put aside.
const SCOUTS: u32 = 3;

/// How much faster than samples come in a backlog may go out, and what is always allowed, in samples a second.
const CATCH_UP: f64 = 10.0;
const ALWAYS: f64 = 10_000.0;

/// How long it is remembered what a receiver does not understand.
const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long requests stay as small as the receiver wants them (413).
const SMALL_FOR: Duration = Duration::from_secs(3600);

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

impl Settings {
    /// Those of `destination`.
    #[must_use]
    pub fn of(destination: &remote_write::Destination) -> Self {
        let remote_write::Destination { protocol, denied, .. } = *destination;
        Self { protocol, histograms: destination.histograms.unwrap_or(Histograms::Auto), denied }
    }
}

/// The machine of one destination.
#[derive(Clone, Debug)]
pub struct Sender {
    settings: Settings,
    receiver: Receiver,
    front: Option<Front>,
    /// When the last answer came.
    now: Duration,
    backoff: Backoff,
    /// Refusals in a row.
    refusals: u32,
    parked: bool,
    /// Nothing is sent before.
    wait: Duration,
    /// Since when everything is refused, or when that was last doubted.
    refusing: Option<Duration>,
    /// Whether it took something of the last batch.
    takes: bool,
    /// Whether the last 2xx said that less was written than was sent.
    short: bool,
    /// Most samples of a request, and until when.
    small: Option<(u64, Duration)>,
}

impl Sender {
    /// A machine for a receiver of which `receiver` is remembered.
    #[must_use]
    pub fn new(settings: Settings, receiver: Receiver) -> Self {
        Self {
            settings,
            receiver,
            front: None,
            now: Duration::ZERO,
            backoff: Backoff::default(),
            refusals: 0,
            parked: false,
            wait: Duration::ZERO,
            refusing: None,
            takes: false,
            short: false,
            small: None,
        }
    }

    /// How samples go out now.
    #[must_use]
    pub fn form(&self) -> Form {
        let trial = self.front.as_ref().is_some_and(|front| front.trial.is_some());
        let protocol = match self.settings.protocol {
            remote_write::Protocol::V1 => Protocol::V1,
            remote_write::Protocol::Auto if trial || self.receiver.only_v1_ms.is_some() => Protocol::V1,
            remote_write::Protocol::Auto | remote_write::Protocol::V2 => Protocol::V2,
        };
        let refused = self.receiver.no_native_ms.is_some();
        let native = match self.settings.histograms {
            // The specification of 1.0 has none, and who has not confirmed 2.0 may take them for something else.
            Histograms::Auto => protocol == Protocol::V2 && self.receiver.knows_v2,
            Histograms::Both | Histograms::Native => true,
            Histograms::Classic => false,
        };
        let native = native && !refused;
        Form { protocol, native, classic: self.settings.histograms != Histograms::Native || refused }
    }

    /// What is remembered of the receiver.
    #[must_use]
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Whether nothing gets in.
    #[must_use]
    pub fn parked(&self) -> bool {
        self.parked
    }

    /// Most samples of a batch, where the receiver has found one too large.
    #[must_use]
    pub fn most_samples(&self, now: Duration) -> Option<u64> {
        self.small.filter(|(_, until)| now < *until).map(|(samples, _)| samples)
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
            Some(front) if front.scout => Next::Scout(front.scouted_to()),
            Some(front) => Next::Send(front.piece()),
        }
    }

    /// Takes the batch at the cursor as the front.
    pub fn load(&mut self, batch: Range<u64>) {
        self.front = Some(Front::new(batch));
    }

    /// Lets the front go, because what it was is no longer in the spool.
    pub fn abandon(&mut self) {
        self.front = None;
    }

    /// Holds the next request back, so that a backlog goes out at no more than ten times `live` samples a second.
    pub fn pace(&mut self, sent_at: Duration, samples: u64, live: f64) {
        let pause = samples as f64 / (CATCH_UP * live).max(ALWAYS);
        self.wait =
            self.wait.max(sent_at + Duration::try_from_secs_f64(pause).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
    }

    /// Settles the piece at the front without a request: all of it was left out.
    pub fn skipped(&mut self) -> Vec<Event> {
        let Some(front) = &self.front else { return vec![] };
        let piece = front.piece();
        [Event::Settled(piece.clone(), 0)].into_iter().chain(self.advance(piece.end)).collect()
    }

    /// Takes the answer to [`Next::Send`]. `jitter` is by chance, from -1 to 1; `now_ms` is the wall clock's time.
    pub fn answered(&mut self, now: Duration, now_ms: i64, jitter: f64, sent: &Sent, answer: &Answer) -> Vec<Event> {
        let Some(front) = &self.front else { return vec![] };
        let (piece, trial) = (front.piece(), front.trial);
        self.now = now;
        let mut events = self.learn(now_ms, answer);
        let form = self.form();
        if form.native && answer.status.is_some_and(|status| status >= 400) && answer.words.contains(NATIVE_OFF) {
            self.receiver.no_native_ms = Some(now_ms);
            return vec![Event::NoNative];
        }
        let auto = self.settings.protocol == remote_write::Protocol::Auto;
        let silent = form.protocol == Protocol::V2 && answer.written.is_none();
        let doubtful = silent && auto && !self.receiver.knows_v2;
        events.extend(match (answer.status, trial) {
            (Some(200..=299 | 400 | 413 | 422), Some(Trial::Type)) | (Some(200..=299), Some(Trial::Samples)) => {
                self.only_v1(now_ms);
                [Event::OnlyV1].into_iter().chain(self.understood(now_ms, sent, answer, piece)).collect()
            }
            (Some(400 | 413 | 415 | 422), Some(Trial::Samples)) => {
                // Not a matter of the protocol: it does not want the samples.
                self.end_trial();
                self.refused(sent, 400, piece)
            }
            (Some(415), Some(Trial::Type)) => {
                self.end_trial();
                self.denied(jitter, piece)
            }
            (Some(200..=299), None) if silent && auto => {
                self.only_v1(now_ms);
                vec![Event::OnlyV1]
            }
            // It keeps nothing; where 2.0 is demanded, somebody has to upgrade it.
            (Some(200..=299), None) if silent => self.park(jitter),
            (Some(415), None) if doubtful => self.begin_trial(Trial::Type),
            (Some(400), None) if doubtful && self.may_be_protocol() => self.begin_trial(Trial::Samples),
            // It may have been upgraded.
            (Some(415), None) if auto && self.receiver.only_v1_ms.take().is_some() => vec![],
            (Some(200..=299 | 400 | 413 | 422), _) => self.understood(now_ms, sent, answer, piece),
            (Some(300..=399 | 401 | 403 | 404 | 407 | 415), _) => self.denied(jitter, piece),
            (Some(429 | 502 | 503 | 504) | None, _) => self.failed(jitter, answer.retry_after, false, sent.skipped),
            (Some(500..), _) => self.failed(jitter, answer.retry_after, true, sent.skipped),
            (Some(_), _) => self.settle(piece, 0),
        });
        events
    }

    /// Takes the answer to [`Next::Scout`]; `batch` is what was sent, `None` when there was nothing to send.
    pub fn scouted(
        &mut self,
        now: Duration,
        jitter: f64,
        batch: Option<(Range<u64>, Sent)>,
        answer: &Answer,
    ) -> Vec<Event> {
        self.now = now;
        let silent = self.form().protocol == Protocol::V2 && answer.written.is_none();
        let Some(front) = &mut self.front else { return vec![] };
        front.scout = false;
        match (batch, answer.status) {
            (Some((range, sent)), Some(200..=299)) if !silent => {
                let written = answer.written.unwrap_or_default();
                front.passed.push((range, sent.samples.saturating_sub(written.missing(&sent))));
                front.streak += 1;
            }
            // Nothing else to send: nothing is known.
            (None, _) | (Some(_), Some(400..=499)) => {}
            // The receiver fails on others as well.
            (Some(_), _) => front.trust(),
        }
        vec![Event::Retry(self.back_off(jitter, answer.retry_after))]
    }

    /// What each answer says about the receiver.
    fn learn(&mut self, now_ms: i64, answer: &Answer) -> Vec<Event> {
        self.receiver.knows_v2 |= self.form().protocol == Protocol::V2 && answer.written.is_some();
        if !answer.classic_only || self.settings.histograms != Histograms::Auto {
            return vec![];
        }
        match self.receiver.no_native_ms.replace(now_ms) {
            None if self.receiver.knows_v2 => vec![Event::NoNative],
            _ => vec![],
        }
    }

    /// Whether a 400 can mean that the receiver knows only 1.0: nothing of 2.0 was ever confirmed, nor 1.0 found no better.
    fn may_be_protocol(&self) -> bool {
        !self.receiver.knows_v2 && self.front.as_ref().is_some_and(|front| !front.tried) && self.refusing.is_none()
    }

    fn begin_trial(&mut self, trial: Trial) -> Vec<Event> {
        self.front.iter_mut().for_each(|front| front.trial = Some(trial));
        vec![]
    }

    fn end_trial(&mut self) {
        self.front.iter_mut().for_each(|front| (front.trial, front.tried) = (None, true));
    }

    fn only_v1(&mut self, now_ms: i64) {
        self.receiver.only_v1_ms = Some(now_ms);
        self.receiver.knows_v2 = false;
        self.end_trial();
    }

    /// An answer about the samples.
    fn understood(&mut self, now_ms: i64, sent: &Sent, answer: &Answer, piece: Range<u64>) -> Vec<Event> {
        let form = self.form();
        let status = answer.status.unwrap_or(0);
        let written = answer.written.filter(|_| form.protocol == Protocol::V2);
        if status >= 300 {
            let some = |written: &Written| written.samples.unwrap_or(0) + written.histograms.unwrap_or(0) > 0;
            return match written.filter(some) {
                Some(written) => self.settle(piece, sent.samples.saturating_sub(written.missing(sent))),
                None => self.refused(sent, status, piece),
            };
        }
        let mut events = Vec::new();
        let mut written = written.unwrap_or_default();
        if sent.histograms > 0 && written.histograms == Some(0) && written.samples.is_some_and(|samples| samples > 0) {
            // It has numbers and no native histogram: where these went out as classic ones too, nothing is lost.
            self.receiver.no_native_ms = Some(now_ms);
            events.push(Event::NoNative);
            if form.classic {
                written.histograms = None;
            }
        }
        let missing = written.missing(sent);
        if !std::mem::replace(&mut self.short, missing > 0) && missing > 0 {
            events.push(Event::Short(missing));
        }
        if let Some(front) = self.front.as_mut().filter(|front| front.too_large) {
            front.fits = front.fits.max(sent.samples);
            self.small = Some((front.fits, self.now + SMALL_FOR));
        }
        events.extend(self.settle(piece, sent.samples.saturating_sub(missing)));
        events
    }

    fn refused(&mut self, sent: &Sent, status: u16, piece: Range<u64>) -> Vec<Event> {
        let now = self.now;
        let Some(front) = &mut self.front else { return vec![] };
        front.refused = true;
        front.too_large |= status == 413;
        if !front.passed.is_empty() {
            // It came back just when a later batch was tried first, and now this one is out of order: our doing, not its.
            return self.put_aside(piece, sent.skipped);
        }
        let doubted = self.refusing.is_none_or(|since| now.saturating_sub(since) >= SEARCH);
        if !front.wanted && !self.takes {
            // A receiver of which nobody knows that it takes anything is not asked again and again.
            let pause = match self.refusals {
                few @ ..SLOW_REFUSALS => FIRST_WAIT * (1 << few),
                _ if doubted => FIRST_WAIT,
                _ => REFUSED,
            };
            self.refusals += 1;
            self.wait = self.wait.max(now + pause);
        }
        let cuts = match (front.wanted, doubted) {
            (true, _) => CUTS,
            (false, true) => BLIND_CUTS,
            (false, false) => 0,
        };
        if sent.samples > 1 && piece.end - piece.start > 1 && front.cuts < cuts {
            front.cut();
            return vec![];
        }
        let mut events = Vec::new();
        if sent.samples == 1 {
            events.push(Event::Culprit(piece.clone()));
        }
        events.extend(self.settle(piece, 0));
        events
    }

    fn denied(&mut self, jitter: f64, piece: Range<u64>) -> Vec<Event> {
        match self.settings.denied {
            Denied::Drop => self.settle(piece, 0),
            Denied::Park => self.park(jitter),
        }
    }

    fn park(&mut self, jitter: f64) -> Vec<Event> {
        self.wait = self.now + jittered(PROBE, jitter);
        match std::mem::replace(&mut self.parked, true) {
            true => vec![],
            false => vec![Event::Parked],
        }
    }

    /// `its_own`: the receiver met an error of its own, rather than being away or busy.
    fn failed(&mut self, jitter: f64, retry_after: Option<Duration>, its_own: bool, skipped: u64) -> Vec<Event> {
        let now = self.now;
        let Some(front) = &mut self.front else { return vec![] };
        if !its_own {
            front.trust();
        } else if front.streak >= SCOUTS {
            let piece = front.piece();
            return self.put_aside(piece, skipped);
        } else {
            front.failed += 1;
            let since = *front.since.get_or_insert(now);
            front.scout = front.failed >= SUSPECT && now.saturating_sub(since) >= SUSPECT_FOR;
        }
        vec![Event::Retry(self.back_off(jitter, retry_after))]
    }

    fn back_off(&mut self, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let wait = self.backoff.failed(jitter, retry_after);
        self.wait = self.now + wait;
        wait
    }

    /// Gives the piece at the front up, for a person to look at.
    fn put_aside(&mut self, piece: Range<u64>, skipped: u64) -> Vec<Event> {
        let end = piece.end;
        [Event::DeadLetter(piece, skipped)].into_iter().chain(self.advance(end)).collect()
    }

    /// Settles the piece at the front, of which so many samples are acknowledged.
    fn settle(&mut self, piece: Range<u64>, acknowledged: u64) -> Vec<Event> {
        let mut events = Vec::new();
        let was_closed = std::mem::take(&mut self.parked);
        let failed = self.backoff.succeeded();
        if acknowledged > 0 {
            if was_closed || failed {
                events.push(Event::Recovered);
            }
            (self.refusals, self.refusing, self.takes) = (0, None, true);
            if let Some(front) = &mut self.front {
                front.wanted = true;
            }
        }
        let end = piece.end;
        events.push(Event::Settled(piece, acknowledged));
        events.extend(self.advance(end));
        events
    }

    /// Goes on behind a piece that is done with; with the last one the front is over.
    fn advance(&mut self, end: u64) -> Vec<Event> {
        let Some(front) = &mut self.front else { return vec![] };
        if front.advance(end) {
            return vec![];
        }
        let mut events = Vec::new();
        if front.refused && !front.wanted {
            let doubted = self.refusing.is_none_or(|since| self.now.saturating_sub(since) >= SEARCH);
            self.takes = false;
            if self.refusing.is_none() {
                events.push(Event::RefusesAll);
            }
            if doubted {
                self.refusing = Some(self.now);
            }
        }
        let passed = std::mem::take(&mut front.passed);
        self.front = None;
        events.extend(passed.into_iter().map(|(range, acknowledged)| Event::Settled(range, acknowledged)));
        events
    }
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sender_simulation.rs"]
mod simulation;
