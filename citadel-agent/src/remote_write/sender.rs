//! Decides what to send next and what a response means: a state machine without clock, network or disk.
//!
//! One batch is processed at a time, the *front*: samples starting at the cursor. A response settles it, a piece of it,
//! or nothing. Settled samples always start at the cursor, so the cursor never skips any.
//!
//! | response | action |
//! |---|---|
//! | 2xx | acknowledged: what the receiver reports as written; in 1.0 everything |
//! | 2xx to 2.0 without a `-Written` header | it stored nothing and supports only 1.0: resend with 1.0, remembered for a day |
//! | 415, and 400 from a receiver that never confirmed 2.0 | resend once with 1.0; only if that is understood does it support only 1.0 |
//! | 400, 413, 422 | some of it is refused: use the reported number of written samples, or else send halves |
//! | 401, 403, 404, 407, 415 to both protocols, redirects | access denied: parked, retried once a minute (or rejected, as configured) |
//! | other 4xx | rejected; the same body is not sent again |
//! | 429, 502, 503, 504, no response | temporary: retried forever, after 0.5 s, 1 s, ... 30 s (± 10 %), or after `Retry-After` |
//! | 500, other 5xx | the same; but a batch that fails for minutes while later ones succeed is set aside |

mod answer;
mod front;

use std::ops::Range;
use std::time::Duration;

use super::encode::{Form, Protocol, Sent};
use super::ledger::Receiver;
use crate::config::resolved::remote_write::{self, Denied, Histograms};
use crate::outbound::backoff::{Backoff, FIRST_WAIT, LONGEST_WAIT, PROBE, jittered};
pub use answer::{Event, Next, ReceiverAnswer, Written};
use front::{Front, Trial};

/// Number of increasing waits between refused requests if nothing was ever accepted; then a batch is searched at a
/// constant rate.
const SLOW_REFUSALS: u32 = 4;

/// Wait between two refused requests after a search without success.
const REFUSED: Duration = Duration::from_secs(1);

/// Maximum number of bisections of a batch of which nothing was accepted yet: enough to isolate one of 2,000 samples.
const BLIND_CUTS: u32 = 16;

/// Maximum number of bisections of a batch of which something was accepted.
const CUTS: u32 = 1024;

/// Interval at which a receiver that refuses everything is searched for something that it accepts.
const SEARCH: Duration = Duration::from_secs(600);

/// Number and duration of 5xx responses for the same batch that make it suspect.
const SUSPECT: u32 = 5;
const SUSPECT_FOR: Duration = Duration::from_secs(120);

/// Number of consecutive later batches that must succeed, with the suspect failing after each, before it is set aside.
const SCOUTS: u32 = 3;

/// Rate of a backlog relative to the rate of collected samples, and the rate that is always allowed, in samples per
/// second.
const CATCH_UP: f64 = 10.0;
const ALWAYS: f64 = 10_000.0;

/// How long limitations of a receiver are remembered.
const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long requests are limited after a 413.
const SMALL_FOR: Duration = Duration::from_secs(3600);

/// Prometheus' response to a native histogram, with 500, while the feature is disabled.
const NATIVE_OFF: &str = "native histograms are disabled";

/// Settings of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderSettings {
    /// Protocol version.
    pub protocol: remote_write::Protocol,
    /// Histograms.
    pub histograms: Histograms,
    /// What to do on 401, 403, 404.
    pub denied: Denied,
}

impl SenderSettings {
    /// The settings of `destination`.
    #[must_use]
    pub fn of(destination: &remote_write::Destination) -> Self {
        let remote_write::Destination { protocol, denied, .. } = *destination;
        Self { protocol, histograms: destination.histograms.unwrap_or(Histograms::Auto), denied }
    }
}

/// The state machine of a destination.
#[derive(Clone, Debug)]
pub struct Sender {
    settings: SenderSettings,
    receiver: Receiver,
    front: Option<Front>,
    /// Time of the last response.
    now: Duration,
    backoff: Backoff,
    /// Consecutive refusals.
    refusals: u32,
    parked: bool,
    /// Nothing is sent before this time.
    wait: Duration,
    /// Since when everything is refused, or when that was last re-checked.
    refusing: Option<Duration>,
    /// Whether it accepted something of the last batch.
    takes: bool,
    /// Whether the last 2xx reported less written than sent.
    short: bool,
    /// Maximum number of samples per request, and until when.
    small: Option<(u64, Duration)>,
}

impl Sender {
    /// A state machine for a receiver with remembered limitations.
    #[must_use]
    pub fn new(settings: SenderSettings, receiver: Receiver) -> Self {
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

    /// Current encoding of samples.
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
            // The specification of 1.0 has none, and a receiver that has not confirmed 2.0 may convert them.
            Histograms::Auto => protocol == Protocol::V2 && self.receiver.knows_v2,
            Histograms::Both | Histograms::Native => true,
            Histograms::Classic => false,
        };
        let native = native && !refused;
        Form { protocol, native, classic: self.settings.histograms != Histograms::Native || refused }
    }

    /// The remembered limitations.
    #[must_use]
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Whether the destination is parked.
    #[must_use]
    pub fn parked(&self) -> bool {
        self.parked
    }

    /// Maximum number of samples per batch, if the receiver has found one too large.
    #[must_use]
    pub fn most_samples(&self, now: Duration) -> Option<u64> {
        self.small.filter(|(_, until)| now < *until).map(|(samples, _)| samples)
    }

    /// Forgets limitations that are old enough, because receivers are upgraded.
    pub fn forget(&mut self, now_ms: i64) {
        let old = |at: &i64| now_ms - at > MEMORY_MS || *at > now_ms;
        self.receiver.only_v1_ms = self.receiver.only_v1_ms.filter(|at| !old(at));
        self.receiver.no_native_ms = self.receiver.no_native_ms.filter(|at| !old(at));
    }

    /// What to do at `now`, the time of any monotonic clock.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        match &self.front {
            _ if now < self.wait => Next::Wait(self.wait),
            None => Next::Load,
            Some(front) if front.scout => Next::Scout(front.scouted_to()),
            Some(front) => Next::Send(front.piece()),
        }
    }

    /// Sets the batch at the cursor as the front.
    pub fn load(&mut self, batch: Range<u64>) {
        self.front = Some(Front::new(batch));
    }

    /// Drops the front, because it is no longer in the spool.
    pub fn abandon(&mut self) {
        self.front = None;
    }

    /// Delays the next request so that a backlog is sent at no more than ten times `live` samples per second.
    pub fn pace(&mut self, sent_at: Duration, samples: u64, live: f64) {
        let pause = samples as f64 / (CATCH_UP * live).max(ALWAYS);
        self.wait =
            self.wait.max(sent_at + Duration::try_from_secs_f64(pause).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
    }

    /// Settles the piece at the front without a request, because all of it is omitted.
    pub fn skipped(&mut self) -> Vec<Event> {
        let Some(front) = &self.front else { return vec![] };
        let piece = front.piece();
        [Event::Settled(piece.clone(), 0)].into_iter().chain(self.advance(piece.end)).collect()
    }

    /// Processes the response to [`Next::Send`]. `jitter` is random, from -1 to 1; `now_ms` is the wall-clock time.
    pub fn answered(
        &mut self,
        now: Duration,
        now_ms: i64,
        jitter: f64,
        sent: &Sent,
        answer: &ReceiverAnswer,
    ) -> Vec<Event> {
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
                // Not a matter of the protocol: the samples are refused.
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
            // It stores nothing; if 2.0 is configured, the receiver must be upgraded.
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

    /// Processes the response to [`Next::Scout`]; `batch` is what was sent, `None` if there was nothing to send.
    pub fn scouted(
        &mut self,
        now: Duration,
        jitter: f64,
        batch: Option<(Range<u64>, Sent)>,
        answer: &ReceiverAnswer,
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
            // There was nothing else to send, so nothing is known.
            (None, _) | (Some(_), Some(400..=499)) => {}
            // The receiver fails on other batches too.
            (Some(_), _) => front.trust(),
        }
        vec![Event::Retry(self.back_off(jitter, answer.retry_after))]
    }

    /// What each response reveals about the receiver.
    fn learn(&mut self, now_ms: i64, answer: &ReceiverAnswer) -> Vec<Event> {
        self.receiver.knows_v2 |= self.form().protocol == Protocol::V2 && answer.written.is_some();
        if !answer.classic_only || self.settings.histograms != Histograms::Auto {
            return vec![];
        }
        match self.receiver.no_native_ms.replace(now_ms) {
            None if self.receiver.knows_v2 => vec![Event::NoNative],
            _ => vec![],
        }
    }

    /// Whether a 400 can mean that the receiver supports only 1.0: 2.0 was never confirmed, and 1.0 did not fare
    /// better.
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

    /// A response about the samples.
    fn understood(&mut self, now_ms: i64, sent: &Sent, answer: &ReceiverAnswer, piece: Range<u64>) -> Vec<Event> {
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
            // It wrote numbers but no native histograms: if these were also sent as classic ones, nothing is lost.
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
            // It recovered just when a later batch was tried first, so this one is now out of order: caused by us.
            return self.put_aside(piece, sent.skipped);
        }
        let doubted = self.refusing.is_none_or(|since| now.saturating_sub(since) >= SEARCH);
        if !front.wanted && !self.takes {
            // A receiver that may accept nothing is not sent requests continuously.
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

    /// `its_own`: an internal error of the receiver, which is not just down or busy.
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

    /// Gives up the piece at the front and sets it aside.
    fn put_aside(&mut self, piece: Range<u64>, skipped: u64) -> Vec<Event> {
        let end = piece.end;
        [Event::DeadLetter(piece, skipped)].into_iter().chain(self.advance(end)).collect()
    }

    /// Settles the piece at the front, of which `acknowledged` samples are acknowledged.
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

    /// Continues after a finished piece; after the last one the front is finished.
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
