//! The machine with a clock, a queue and an account, against receivers of every kind: minutes and hours of them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::outbound::backoff::LONGEST_RETRY_AFTER;
use crate::remote_write::ledger::{Ledger, Outcome};
use crate::remote_write::refused::Refused;
use crate::remote_write::spool::Reason;

const AUTO: SenderSettings =
    SenderSettings { protocol: remote_write::Protocol::Auto, histograms: Histograms::Auto, denied: Denied::Park };

/// Samples of a batch at most.
const BATCH: u64 = 2000;

pub(super) fn answer(status: u16) -> ReceiverAnswer {
    ReceiverAnswer { status: Some(status), ..ReceiverAnswer::default() }
}

/// An answer of a 2.0 receiver that has written all of what came, or nothing where it is an error.
pub(super) fn written(status: u16) -> ReceiverAnswer {
    let samples = Some(if status < 300 { u64::MAX } else { 0 });
    ReceiverAnswer { written: Some(Written { samples, histograms: None }), ..answer(status) }
}

pub(super) fn no_answer() -> ReceiverAnswer {
    ReceiverAnswer::default()
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) range: Range<u64>,
    /// What of the range was sent.
    pub(super) samples: Vec<u64>,
    pub(super) form: Form,
    pub(super) at: Duration,
}

/// Who answers a request.
pub(super) type Receiver<'a> = &'a mut dyn FnMut(&Request) -> ReceiverAnswer;

/// A machine, its clock and its account.
pub(super) struct Run {
    pub(super) sender: Sender,
    pub(super) now: Duration,
    pub(super) ledger: Ledger,
    refused: Refused,
    /// What became of each range, in order.
    pub(super) settled: Vec<(Range<u64>, u64, Outcome)>,
    pub(super) events: Vec<Event>,
    /// Samples that were collected.
    pub(super) end: u64,
    /// Samples of a batch at most.
    pub(super) batch: u64,
    /// Samples of a collection; the sample `i` is of the series `i % series`.
    pub(super) series: u64,
    pub(super) sent: Vec<Request>,
    front: u64,
    random: u64,
    /// How much waits differ by chance, of what they may.
    jitter: f64,
}

impl Run {
    pub(super) fn new(settings: SenderSettings, end: u64, batch: u64) -> Self {
        Self {
            sender: Sender::new(settings, Default::default()),
            now: Duration::ZERO,
            ledger: Ledger::new(0),
            refused: Refused::default(),
            settled: vec![],
            events: vec![],
            end,
            batch,
            series: u64::MAX,
            sent: vec![],
            front: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            jitter: 0.0,
        }
    }

    /// A number from 0 to 1, by chance that is the same each time.
    pub(super) fn chance(random: &mut u64) -> f64 {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random as f64 / u64::MAX as f64
    }

    fn batch_at(&self, from: u64) -> Option<Range<u64>> {
        let most = self.sender.most_samples(self.now).unwrap_or(u64::MAX).min(self.batch);
        (from < self.end).then(|| from..(from + most).min(self.end))
    }

    fn request(&mut self, range: &Range<u64>) -> (Request, Sent) {
        let key = |seq: u64| seq % self.series;
        let samples: Vec<u64> = range.clone().filter(|&seq| !self.refused.skips(key(seq))).collect();
        let count = samples.len() as u64;
        let sent = Sent { samples: count, series: count, histograms: 0, skipped: range.end - range.start - count };
        (Request { range: range.clone(), samples, form: self.sender.form(), at: self.now }, sent)
    }

    /// One step; false when everything is settled.
    pub(super) fn step(&mut self, receiver: Receiver<'_>) -> bool {
        let jitter = self.jitter * (Self::chance(&mut self.random) * 2.0 - 1.0);
        let events = match self.sender.next(self.now) {
            Next::Wait(until) => {
                assert!(until > self.now && until - self.now <= LONGEST_RETRY_AFTER.mul_f64(1.1));
                self.now = until;
                return true;
            }
            Next::Load => {
                let Some(batch) = self.batch_at(self.ledger.seq) else { return false };
                self.front = batch.start;
                self.sender.load(batch);
                return true;
            }
            Next::Send(range) => {
                assert_eq!(range.start, self.ledger.seq);
                self.try_refused(&range, receiver);
                let (request, sent) = self.request(&range);
                if sent.samples == 0 {
                    self.sender.skipped()
                } else {
                    let answer = receiver(&request);
                    self.sent.push(request);
                    self.sender.answered(self.now, 0, jitter, &sent, &answer)
                }
            }
            Next::Scout(from) => {
                let batch = self.batch_at(from);
                let request = batch.map(|range| self.request(&range));
                let answer = request.as_ref().map_or_else(ReceiverAnswer::default, |(request, _)| receiver(request));
                let batch = request.map(|(request, sent)| {
                    let range = request.range.clone();
                    self.sent.push(request);
                    (range, sent)
                });
                self.sender.scouted(self.now, jitter, batch, &answer)
            }
        };
        for event in &events {
            let (range, some, outcome, others) = match event {
                Event::Settled(range, acknowledged) => {
                    if *acknowledged == range.end - range.start {
                        range.clone().for_each(|seq| _ = self.refused.taken(seq % self.series));
                    }
                    (range, *acknowledged, Outcome::Acknowledged, Outcome::Rejected)
                }
                Event::DeadLetter(range, rejected) => {
                    (range, *rejected, Outcome::Rejected, Outcome::Dropped(Reason::DeadLetter))
                }
                Event::Culprit(range) => {
                    let key = |seq: u64| seq % self.series;
                    let alone = range.clone().find(|&seq| !self.refused.skips(key(seq))).expect("it was sent");
                    self.refused.strike(key(alone), self.front, self.now);
                    continue;
                }
                _ => continue,
            };
            assert_eq!(range.start, self.ledger.seq, "settled out of order");
            self.ledger.settle_some(range.clone(), some, outcome, others);
            assert!(self.ledger.holds());
            for (count, outcome) in [(some, outcome), (range.end - range.start - some, others)] {
                if count > 0 {
                    self.settled.push((range.clone(), count, outcome));
                }
            }
        }
        self.events.extend(events);
        true
    }

    fn try_refused(&mut self, range: &Range<u64>, receiver: Receiver<'_>) {
        let due = |seq: &u64| self.refused.due(seq % self.series, self.now);
        let Some(seq) = range.clone().find(due) else { return };
        let request = Request { range: seq..seq + 1, samples: vec![seq], form: self.sender.form(), at: self.now };
        match receiver(&request).status {
            Some(200..=299) => _ = self.refused.taken(seq % self.series),
            status => self.refused.tried(seq % self.series, status == Some(400), self.now),
        }
        self.sent.push(request);
    }

    pub(super) fn finish(&mut self, mut receiver: impl FnMut(&Request) -> ReceiverAnswer) {
        for _ in 0..100_000 {
            if !self.step(&mut receiver) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.sender);
    }

    /// Collects so many samples each `every` and sends them, until `until`.
    fn live(&mut self, every: Duration, until: Duration, mut receiver: impl FnMut(&Request) -> ReceiverAnswer) {
        self.jitter = 1.0;
        let mut next = self.now;
        while self.now < until {
            if next <= self.now {
                self.end += self.series;
                next += every;
                continue;
            }
            let (before, now) = (self.ledger.seq, self.now);
            let stop = next.min(until);
            match self.sender.next(self.now) {
                Next::Wait(wanted) => self.now = wanted.min(stop),
                Next::Load if self.ledger.seq == self.end => self.now = stop,
                _ => {
                    self.step(&mut receiver);
                    // A request takes some time.
                    self.now += Duration::from_millis(5);
                }
            }
            if self.ledger.seq > before && self.ledger.seq < self.end {
                let live = self.series as f64 / every.as_secs_f64();
                self.sender.pace(now, self.ledger.seq - before, live);
            }
        }
    }

    /// The samples of the ranges that have this outcome as a whole.
    pub(super) fn with(&self, outcome: Outcome) -> BTreeSet<u64> {
        let whole =
            |(range, count, of): &&(Range<u64>, u64, Outcome)| *of == outcome && *count == range.end - range.start;
        self.settled.iter().filter(whole).flat_map(|(range, ..)| range.clone()).collect()
    }

    fn pending(&self) -> u64 {
        self.end - self.ledger.seq
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn half_or_most_requests_failing_for_ten_minutes_loses_nothing_and_is_made_up_for_within_a_minute() {
    for (failing, series, every) in
        [(0.5, 25, SECOND), (0.8, 25, SECOND), (0.5, 1800, 15 * SECOND), (0.8, 1800, 15 * SECOND), (0.5, 400, SECOND)]
    {
        for seed in 1..20 {
            let mut run = Run::new(AUTO, 0, BATCH);
            run.series = series;
            run.random ^= seed;
            let mut random = seed * 7919;
            let mut behind = 0;
            let statuses = [503, 502, 504, 429];
            run.live(every, 10 * MINUTE, |_| match Run::chance(&mut random) {
                chance if chance < failing => answer(statuses[(chance * 1000.0) as usize % 4]),
                _ => written(204),
            });
            behind += run.pending();
            run.live(every, 11 * MINUTE, |_| written(204));
            assert_eq!((run.ledger.rejected, &run.ledger.dropped), (0, &BTreeMap::new()), "{failing}");
            assert!(run.pending() <= series, "{failing}, {series}: {} of {behind} are behind", run.pending());
            assert!(run.sent.iter().all(|request| request.samples.len() as u64 <= BATCH));
        }
    }
}

#[test]
fn with_a_collection_a_second_and_half_of_the_requests_failing_it_does_not_fall_behind() {
    for seed in 1..10 {
        let mut run = Run::new(AUTO, 0, BATCH);
        run.series = 25;
        let mut random = seed;
        run.live(SECOND, 60 * MINUTE, |_| if Run::chance(&mut random) < 0.5 { answer(503) } else { written(204) });
        // The longest wait is half a minute, which may come twice in a row.
        assert!(run.pending() <= 25 * 120, "{} samples wait", run.pending());
        assert_eq!(run.ledger.acknowledged, run.ledger.seq);
    }
}

#[test]
fn one_bad_series_of_two_thousand_for_an_hour_costs_its_samples_and_few_requests() {
    let mut run = Run::new(AUTO, 0, BATCH);
    run.series = BATCH;
    let bad = |request: &Request| request.samples.iter().any(|seq| seq % BATCH == 1234);
    run.live(15 * SECOND, 60 * MINUTE, |request| if bad(request) { written(400) } else { written(204) });
    let collections = run.end / BATCH;
    assert_eq!(collections, 240);
    assert_eq!(run.ledger.rejected, collections - u64::from(run.pending() > 0));
    assert_eq!(run.ledger.acknowledged, run.ledger.rejected * (BATCH - 1));
    // One a collection, three searches, and now and then a try.
    assert!(run.sent.len() < 240 + 3 * 25 + 10, "{} requests", run.sent.len());
    let tries = run.sent.iter().filter(|request| request.at > 5 * MINUTE && bad(request)).count();
    assert!((3..=5).contains(&tries), "{tries} tries");
    // Once it is wanted it arrives again.
    let end = run.now + 70 * MINUTE;
    let rejected = run.ledger.rejected;
    run.live(15 * SECOND, end, |_| written(204));
    assert!(run.ledger.rejected - rejected <= 4 * 61, "it is tried within the hour");
    let last = run.sent.last().expect("a request");
    assert_eq!(last.samples.len() as u64, BATCH);
}

#[test]
fn bad_samples_here_and_there_make_no_bad_series() {
    let mut run = Run::new(AUTO, 0, BATCH);
    run.series = BATCH;
    // Each time another one.
    let bad = |request: &Request| request.samples.iter().any(|seq| seq % 2001 == 7);
    run.live(15 * SECOND, 20 * MINUTE, |request| if bad(request) { written(400) } else { written(204) });
    let expected = (0..run.ledger.seq).filter(|seq| seq % 2001 == 7).collect();
    assert_eq!(run.with(Outcome::Rejected), expected);
    assert_eq!(run.ledger.rejected, expected.len() as u64);
}

#[test]
fn who_refuses_everything_is_asked_a_handful_of_times() {
    for status in [400, 413, 422] {
        let mut run = Run::new(AUTO, 0, BATCH);
        run.series = 1000;
        run.live(SECOND, 8 * SECOND, |_| answer(status));
        assert!((2..=7).contains(&run.sent.len()), "{status}: {} requests in 8 s", run.sent.len());
        run.live(SECOND, 10 * MINUTE, |_| answer(status));
        assert!(run.pending() <= 60 * 1000, "{} wait", run.pending());
        assert_eq!(run.events.iter().filter(|event| **event == Event::RefusesAll).count(), 1);
        // And all of it is there again as soon as something is wanted.
        let (end, rejected) = (run.now + 5 * MINUTE, run.end);
        run.live(SECOND, end, |_| written(204));
        assert!(run.ledger.rejected <= rejected);
        assert!(run.pending() <= 1000 && run.ledger.acknowledged > 200 * 1000, "{:?}", run.ledger);
    }
}

#[test]
fn random_500s_set_no_batch_aside_and_a_poisoned_one_is_within_minutes() {
    let mut aside = 0;
    for seed in 1..20 {
        let mut run = Run::new(AUTO, 0, BATCH);
        run.series = 100;
        let mut random = seed * 31;
        run.live(15 * SECOND, 10 * MINUTE, |_| if Run::chance(&mut random) < 0.5 { answer(500) } else { written(204) });
        aside += run.ledger.dropped.len();
    }
    assert_eq!(aside, 0);
    let mut run = Run::new(AUTO, 0, BATCH);
    run.series = 100;
    let poisoned = |request: &Request| request.range.contains(&450);
    run.live(15 * SECOND, 20 * MINUTE, |request| if poisoned(request) { written(500) } else { written(204) });
    let dropped = run.with(Outcome::Dropped(Reason::DeadLetter));
    assert_eq!(dropped, (400..500).collect());
    let at = run.sent.iter().filter(|request| poisoned(request)).map(|request| request.at);
    let (first, last) = (at.clone().min().unwrap(), at.max().unwrap());
    assert!(last - first >= 2 * MINUTE && last - first <= 8 * MINUTE, "{:?}", last - first);
    assert!(run.pending() <= 100);
}

#[test]
fn no_request_follows_a_failure_at_once() {
    for status in [500, 503] {
        let mut run = Run::new(AUTO, 0, BATCH);
        run.series = 100;
        run.live(SECOND, 20 * MINUTE, |_| answer(status));
        let at: Vec<_> = run.sent.iter().map(|request| request.at).collect();
        let pauses: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        assert!(pauses.iter().all(|&pause| pause >= 0.45), "{pauses:?}");
        assert!(pauses.windows(2).all(|pair| pair[1] >= 0.8 * pair[0]), "they only grow: {pauses:?}");
    }
}
