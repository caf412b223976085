//! The machine against receivers that are all sorts of wrong.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::remote_write::spool::Reason;

const AUTO: Settings =
    Settings { protocol: remote_write::Protocol::Auto, histograms: Histograms::Both, denied: Denied::Park };

fn answer(status: u16) -> Answer {
    Answer { status: Some(status), words: String::new(), retry_after: None, written: None }
}

fn written(status: u16) -> Answer {
    Answer { written: Some(1), ..answer(status) }
}

fn no_answer() -> Answer {
    Answer { status: None, ..answer(0) }
}

/// A machine, its clock and its account.
struct Run {
    sender: Sender,
    now: Duration,
    /// What was settled, in order.
    settled: Vec<(Range<u64>, Outcome)>,
    events: Vec<Event>,
    end: u64,
    batch: u64,
    sent: Vec<(Range<u64>, Form, Duration)>,
}

impl Run {
    fn new(settings: Settings, end: u64, batch: u64) -> Self {
        let sender = Sender::new(settings, Receiver::default());
        Self { sender, now: Duration::ZERO, settled: vec![], events: vec![], end, batch, sent: vec![] }
    }

    fn cursor(&self) -> u64 {
        self.settled.last().map_or(0, |(range, _)| range.end)
    }

    fn batch_at(&self, from: u64) -> Option<Range<u64>> {
        (from < self.end).then(|| from..(from + self.batch).min(self.end))
    }

    /// One step; false when everything is settled.
    fn step(&mut self, receiver: &mut dyn FnMut(&Range<u64>, Form) -> Answer) -> bool {
        let events = match self.sender.next(self.now) {
            Next::Wait(until) => {
                assert!(until > self.now && until - self.now <= LONGEST_RETRY_AFTER.mul_f64(1.1));
                self.now = until;
                return true;
            }
            Next::Load => {
                let Some(batch) = self.batch_at(self.cursor()) else { return false };
                self.sender.load(batch);
                return true;
            }
            Next::Send(range) => {
                assert_eq!(range.start, self.cursor());
                let form = self.sender.form();
                self.sent.push((range.clone(), form, self.now));
                let answer = receiver(&range, form);
                self.sender.answered(self.now, 0, 0.0, &answer)
            }
            Next::Scout(from) => {
                let batch = self.batch_at(from);
                let form = self.sender.form();
                let answer = batch.as_ref().map(|range| receiver(range, form));
                self.sender.scouted(self.now, 0.0, batch, answer.as_ref())
            }
        };
        for event in &events {
            let (range, outcome) = match event {
                Event::Settled(range, outcome) => (range.clone(), *outcome),
                Event::DeadLetter(range) => (range.clone(), Outcome::Dropped(Reason::DeadLetter)),
                _ => continue,
            };
            assert_eq!(range.start, self.cursor(), "settled out of order");
            self.settled.push((range, outcome));
        }
        self.events.extend(events);
        true
    }

    fn finish(&mut self, mut receiver: impl FnMut(&Range<u64>, Form) -> Answer) {
        for _ in 0..100_000 {
            if !self.step(&mut receiver) {
                return;
            }
        }
        panic!("it never ends: {:?}", self.sender);
    }

    fn with(&self, outcome: Outcome) -> BTreeSet<u64> {
        self.settled.iter().filter(|(_, of)| *of == outcome).flat_map(|(range, _)| range.clone()).collect()
    }
}

#[test]
fn waits_double_from_half_a_second_to_thirty() {
    let mut run = Run::new(AUTO, 1, 1);
    let mut failures = 12;
    run.finish(|_, _| match failures {
        0 => written(204),
        _ => {
            failures -= 1;
            no_answer()
        }
    });
    let waits: Vec<_> = run
        .events
        .iter()
        .filter_map(|event| if let Event::Retry(wait) = event { Some(wait.as_secs_f64()) } else { None })
        .collect();
    assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0]);
    assert!(run.events.contains(&Event::Recovered));
}

#[test]
fn retry_after_is_honoured_up_to_ten_minutes() {
    for (asked, waited) in [(0, 0.5), (7, 7.0), (601, 600.0)] {
        for status in [429, 503] {
            let mut sender = Sender::new(AUTO, Receiver::default());
            sender.load(0..1);
            let asks = Answer { retry_after: Some(Duration::from_secs(asked)), ..answer(status) };
            let events = sender.answered(Duration::ZERO, 0, 0.0, &asks);
            assert_eq!(events, [Event::Retry(Duration::from_secs_f64(waited))], "{status}, {asked} s");
        }
    }
}

#[test]
fn a_receiver_that_confirms_nothing_gets_the_same_samples_again_in_1_0_and_is_remembered() {
    for first in [answer(200), answer(204), answer(415), answer(400)] {
        let mut run = Run::new(AUTO, 20, 10);
        run.finish(|_, form| if form.protocol == Protocol::V2 { first.clone() } else { answer(204) });
        let forms: Vec<_> = run.sent.iter().map(|(range, form, _)| (range.clone(), form.protocol)).collect();
        assert_eq!(forms, [(0..10, Protocol::V2), (0..10, Protocol::V1), (10..20, Protocol::V1)], "{first:?}");
        assert_eq!(run.with(Outcome::Acknowledged).len(), 20);
        // A day later it may be a newer one.
        run.sender.forget(MEMORY_MS);
        assert_eq!(run.sender.form().protocol, Protocol::V1);
        run.sender.forget(MEMORY_MS + 1);
        assert_eq!(run.sender.form().protocol, Protocol::V2);
    }
}

#[test]
fn a_400_of_a_receiver_that_knows_2_0_is_about_the_samples() {
    let mut run = Run::new(AUTO, 20, 10);
    run.finish(|range, _| if range.contains(&13) { written(400) } else { written(204) });
    assert!(run.sent.iter().all(|(_, form, _)| form.protocol == Protocol::V2));
    assert_eq!(run.with(Outcome::Rejected), BTreeSet::from([13]));
}

#[test]
fn who_insists_on_2_0_loses_nothing_to_a_receiver_that_only_pretends() {
    let mut run = Run::new(Settings { protocol: remote_write::Protocol::V2, ..AUTO }, 10, 10);
    let mut upgraded = 3;
    run.finish(|_, _| {
        upgraded -= 1;
        if upgraded > 0 { answer(204) } else { written(204) }
    });
    assert_eq!(run.events[0], Event::Parked);
    assert_eq!(run.with(Outcome::Acknowledged).len(), 10);
}

#[test]
fn native_histograms_go_only_where_they_are_taken() {
    let mut run = Run::new(AUTO, 10, 10);
    let off = Answer { words: format!("{NATIVE_OFF}\n"), ..answer(500) };
    run.finish(|_, form| if form.native { off.clone() } else { written(200) });
    assert_eq!(run.events[0], Event::NoNative);
    assert_eq!(run.sent.len(), 2);
    assert!(run.sent[1].1.classic);
}

#[test]
fn one_bad_sample_costs_no_other() {
    let mut run = Run::new(AUTO, 2000, 2000);
    run.finish(|range, _| if range.contains(&1234) { written(400) } else { written(204) });
    assert_eq!(run.with(Outcome::Rejected), BTreeSet::from([1234]));
    assert!(run.sent.len() < 30, "{} requests", run.sent.len());
}

#[test]
fn where_nothing_is_wanted_soon_nothing_is_spent_on_finding_out() {
    let mut run = Run::new(AUTO, 200_000, 2000);
    run.finish(|_, _| written(400));
    assert_eq!(run.with(Outcome::Rejected).len(), 200_000);
    let last: Vec<_> = run.sent.iter().filter(|(range, ..)| range.start >= 198_000).collect();
    assert!(last.len() <= 7, "{last:?}");
    // And all of it is there again as soon as something is.
    run.end += 10_000;
    run.finish(|range, _| if range.contains(&209_999) { written(400) } else { written(204) });
    assert_eq!(run.with(Outcome::Rejected).len(), 200_001);
}

#[test]
fn a_closed_door_parks_the_queue_and_is_tried_each_minute() {
    for status in [401, 403, 404, 302] {
        let mut run = Run::new(AUTO, 10, 10);
        let mut closed = 4;
        run.finish(|_, _| {
            closed -= 1;
            if closed > 0 { answer(status) } else { written(204) }
        });
        let times: Vec<_> = run.sent.iter().map(|(.., at)| at.as_secs()).collect();
        assert_eq!(times, [0, 60, 120, 180], "{status}");
        assert_eq!(run.events, [Event::Parked, Event::Recovered, Event::Settled(0..10, Outcome::Acknowledged)]);
    }
    let mut run = Run::new(Settings { denied: Denied::Drop, ..AUTO }, 10, 10);
    run.finish(|_, _| answer(403));
    assert_eq!(run.with(Outcome::Rejected).len(), 10);
}

#[test]
fn what_alone_makes_the_receiver_fail_becomes_a_dead_letter_after_another_has_passed() {
    let mut run = Run::new(AUTO, 30, 10);
    run.finish(|range, _| if range.contains(&15) { written(500) } else { written(204) });
    assert_eq!(run.with(Outcome::Dropped(Reason::DeadLetter)), (10..20).collect());
    assert_eq!(run.with(Outcome::Acknowledged).len(), 20);
    assert!(run.sent.iter().filter(|(range, ..)| range.start == 10).count() > SUSPECT as usize);
}

#[test]
fn a_receiver_that_fails_on_everything_makes_no_dead_letters() {
    let mut run = Run::new(AUTO, 30, 10);
    let mut requests = 0;
    run.finish(|_, _| {
        requests += 1;
        if requests > 40 { written(204) } else { answer(503) }
    });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 30);
}

#[test]
fn a_receiver_that_comes_back_between_two_requests_loses_nothing() {
    let mut run = Run::new(AUTO, 30, 10);
    let mut back = false;
    run.finish(|range, _| {
        back |= range.start == 10;
        if back { written(204) } else { answer(500) }
    });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 30);
}

#[test]
fn one_that_then_takes_nothing_older_makes_a_dead_letter_and_not_a_rejection() {
    let mut run = Run::new(AUTO, 30, 10);
    let mut newest = 0;
    run.finish(|range, _| {
        if newest == 0 && range.start < 10 {
            return answer(500);
        }
        match range.start < newest {
            true => written(400),
            false => {
                newest = range.start;
                written(204)
            }
        }
    });
    assert_eq!(run.with(Outcome::Dropped(Reason::DeadLetter)), (0..10).collect());
    assert_eq!(run.with(Outcome::Acknowledged), (10..30).collect());
}

#[test]
fn a_backlog_goes_out_at_ten_times_the_live_rate() {
    let mut sender = Sender::new(AUTO, Receiver::default());
    sender.pace(Duration::from_secs(1), 2000, 2000.0);
    assert_eq!(sender.next(Duration::from_secs(1)), Next::Wait(Duration::from_millis(1100)));
    assert_eq!(sender.next(Duration::from_millis(1100)), Next::Load);
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![
        4 => Just(Some(204)), 1 => Just(None),
        4 => prop::sample::select(vec![200, 201, 301, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 502, 503, 599]).prop_map(Some),
    ];
    let words = prop_oneof![9 => Just(String::new()), 1 => Just(NATIVE_OFF.to_owned())];
    (status, words, prop::option::of(0u64..1000), prop::option::of(0u64..9)).prop_map(
        |(status, words, after, written)| Answer {
            status,
            words,
            retry_after: after.map(Duration::from_secs),
            written,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_answered_each_sample_is_settled_once_and_in_order(
        answers in prop::collection::vec(any_answer(), 0..200), end in 1u64..300, batch in 1u64..100, park in any::<bool>(),
    ) {
        let denied = if park { Denied::Park } else { Denied::Drop };
        let mut run = Run::new(Settings { denied, ..AUTO }, end, batch);
        let mut answers = answers.into_iter();
        let mut never_again = BTreeSet::new();
        run.finish(|range, form| {
            let key = (range.start, range.end, form.protocol == Protocol::V2, form.native);
            assert!(!never_again.contains(&key), "{range:?} was refused and came again");
            let answer = answers.next().unwrap_or_else(|| written(204));
            let about_form = answer.words.contains(NATIVE_OFF) && form.native;
            if matches!(answer.status, Some(400 | 405 | 408 | 409 | 413 | 422)) && !about_form {
                never_again.insert(key);
            }
            answer
        });
        prop_assert_eq!(run.cursor(), end);
    }
}
