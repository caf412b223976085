//! What each answer means.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::simulation::{Request, Run, answer, no_answer, written};
use super::*;
use crate::remote_write::ledger::Outcome;
use crate::remote_write::spool::Reason;

const AUTO: SenderSettings =
    SenderSettings { protocol: remote_write::Protocol::Auto, histograms: Histograms::Both, denied: Denied::Park };

fn sent(samples: u64) -> Sent {
    Sent { samples, series: samples, ..Sent::default() }
}

fn has(request: &Request, sample: u64) -> bool {
    request.samples.contains(&sample)
}

fn is_v2(request: &Request) -> bool {
    request.form.protocol == Protocol::V2
}

/// The protocols of the requests, in order.
fn protocols(run: &Run) -> Vec<(Range<u64>, Protocol)> {
    run.sent.iter().map(|request| (request.range.clone(), request.form.protocol)).collect()
}

#[test]
fn waits_double_from_half_a_second_to_thirty() {
    let mut run = Run::new(AUTO, 1, 1);
    let mut failures = 12;
    run.finish(|_| match failures {
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
            let asks = ReceiverAnswer { retry_after: Some(Duration::from_secs(asked)), ..answer(status) };
            let events = sender.answered(Duration::ZERO, 0, 0.0, &sent(1), &asks);
            assert_eq!(events, [Event::Retry(Duration::from_secs_f64(waited))], "{status}, {asked} s");
        }
    }
}

#[test]
fn a_receiver_that_confirms_nothing_gets_the_same_samples_again_in_1_0_and_is_remembered() {
    for first in [answer(200), answer(204), answer(415), answer(400)] {
        let mut run = Run::new(AUTO, 20, 10);
        run.finish(|request| if is_v2(request) { first.clone() } else { answer(204) });
        assert_eq!(
            protocols(&run),
            [(0..10, Protocol::V2), (0..10, Protocol::V1), (10..20, Protocol::V1)],
            "{first:?}"
        );
        assert_eq!(run.with(Outcome::Acknowledged).len(), 20);
        // A day later it may be a newer one.
        run.sender.forget(MEMORY_MS);
        assert_eq!(run.sender.form().protocol, Protocol::V1);
        run.sender.forget(MEMORY_MS + 1);
        assert_eq!(run.sender.form().protocol, Protocol::V2);
    }
}

#[test]
fn a_400_to_both_protocols_is_about_the_samples_and_says_nothing_about_the_protocol() {
    let mut run = Run::new(AUTO, 30, 10);
    run.finish(|request| if has(request, 3) { answer(400) } else { written(204) });
    assert_eq!(run.with(Outcome::Rejected), BTreeSet::from([3]));
    assert_eq!(run.with(Outcome::Acknowledged).len(), 29);
    assert_eq!(run.sent.iter().filter(|request| !is_v2(request)).count(), 1, "1.0 was tried once");
    assert_eq!(run.sender.receiver().only_v1_ms, None);
    assert!(run.sender.receiver().knows_v2);
}

#[test]
fn a_415_to_both_protocols_parks_and_loses_nothing() {
    for settings in [AUTO, SenderSettings { protocol: remote_write::Protocol::V1, ..AUTO }] {
        let mut run = Run::new(settings, 10, 10);
        let mut failures = if settings == AUTO { 4 } else { 2 };
        run.finish(|_| {
            failures -= 1;
            if failures >= 0 { answer(415) } else { written(204) }
        });
        let at: Vec<_> = run.sent.iter().map(|request| request.at.as_secs()).collect();
        let expected: &[u64] = if settings == AUTO { &[0, 0, 60, 60, 120] } else { &[0, 60, 120] };
        assert_eq!(at, expected);
        assert_eq!(run.events[0], Event::Parked);
        assert_eq!(run.with(Outcome::Acknowledged).len(), 10);
        assert_eq!(run.sender.receiver().only_v1_ms, None);
    }
}

#[test]
fn a_receiver_of_1_0_that_was_upgraded_to_2_0_alone_is_found() {
    let mut run = Run::new(AUTO, 20, 10);
    let mut upgraded = false;
    run.finish(|request| match (upgraded, is_v2(request)) {
        (false, true) => answer(415),
        (false, false) => {
            upgraded = true;
            answer(204)
        }
        (true, true) => written(204),
        (true, false) => answer(415),
    });
    let used: Vec<_> = protocols(&run).into_iter().map(|(_, protocol)| protocol).collect();
    assert_eq!(used, [Protocol::V2, Protocol::V1, Protocol::V1, Protocol::V2]);
    assert_eq!(run.with(Outcome::Acknowledged).len(), 20);
}

#[test]
fn a_trial_goes_on_through_an_outage() {
    let mut run = Run::new(AUTO, 10, 10);
    let mut requests = 0;
    run.finish(|request| {
        requests += 1;
        match requests {
            1 => answer(415),
            2 | 3 => answer(503),
            _ if is_v2(request) => answer(415),
            _ => answer(204),
        }
    });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 10);
    assert_eq!(requests, 4);
}

#[test]
fn a_400_of_a_receiver_that_knows_2_0_is_about_the_samples() {
    let mut run = Run::new(AUTO, 20, 10);
    run.finish(|request| if has(request, 13) { written(400) } else { written(204) });
    assert!(run.sent.iter().all(is_v2));
    assert_eq!(run.with(Outcome::Rejected), BTreeSet::from([13]));
}

#[test]
fn who_insists_on_2_0_loses_nothing_to_a_receiver_that_only_pretends() {
    let mut run = Run::new(SenderSettings { protocol: remote_write::Protocol::V2, ..AUTO }, 10, 10);
    let mut upgraded = 3;
    run.finish(|_| {
        upgraded -= 1;
        if upgraded > 0 { answer(204) } else { written(204) }
    });
    assert_eq!(run.events[0], Event::Parked);
    assert_eq!(run.with(Outcome::Acknowledged).len(), 10);
}

#[test]
fn what_the_receiver_says_that_it_wrote_counts() {
    let counts = |samples| Some(Written { samples: Some(samples), histograms: None });
    for (status, samples, acknowledged) in [(204, 1798, 1798), (204, 0, 0), (204, 1700, 1700), (400, 1700, 1700)] {
        let mut sender = Sender::new(AUTO, Receiver::default());
        sender.load(0..1798);
        let says = ReceiverAnswer { written: counts(samples), ..answer(status) };
        let events = sender.answered(Duration::ZERO, 0, 0.0, &sent(1798), &says);
        assert!(events.contains(&Event::Settled(0..1798, acknowledged)), "{status} {samples}: {events:?}");
        let short = events.iter().filter(|event| matches!(event, Event::Short(_))).count();
        assert_eq!(short, usize::from(status == 204 && samples < 1798));
        // A state, which is reported once.
        sender.load(1798..3596);
        let events = sender.answered(Duration::ZERO, 0, 0.0, &sent(1798), &says);
        assert!(!events.iter().any(|event| matches!(event, Event::Short(_))), "{events:?}");
    }
    // What was left out is not acknowledged either, and a histogram of which a part is missing is not there.
    let mut sender = Sender::new(AUTO, Receiver { knows_v2: true, ..Receiver::default() });
    sender.load(0..10);
    let had = Sent { samples: 8, series: 8 + 34, histograms: 1, skipped: 2 };
    let says = ReceiverAnswer { written: Some(Written { samples: Some(40), histograms: Some(1) }), ..answer(200) };
    let events = sender.answered(Duration::ZERO, 0, 0.0, &had, &says);
    assert_eq!(events, [Event::Short(1), Event::Settled(0..10, 7)]);
}

#[test]
fn native_histograms_go_only_where_they_are_taken() {
    let mut run = Run::new(AUTO, 10, 10);
    let off = ReceiverAnswer { words: format!("{NATIVE_OFF}\n"), ..answer(500) };
    run.finish(|request| if request.form.native { off.clone() } else { written(200) });
    assert_eq!(run.events[0], Event::NoNative);
    assert_eq!(run.sent.len(), 2);
    assert!(run.sent[1].form.classic);
}

#[test]
fn a_receiver_that_has_written_all_but_the_native_histograms_takes_none() {
    for (histograms, acknowledged) in [(Histograms::Both, 10), (Histograms::Native, 8)] {
        let mut sender = Sender::new(SenderSettings { histograms, ..AUTO }, Receiver::default());
        sender.load(0..10);
        let had = Sent { samples: 10, series: 10, histograms: 2, skipped: 0 };
        let says = ReceiverAnswer { written: Some(Written { samples: Some(8), histograms: Some(0) }), ..answer(204) };
        let events = sender.answered(Duration::ZERO, 5, 0.0, &had, &says);
        assert!(
            events.contains(&Event::NoNative) && events.contains(&Event::Settled(0..10, acknowledged)),
            "{events:?}"
        );
        assert!(!sender.form().native && sender.form().classic);
    }
}

#[test]
fn auto_sends_native_histograms_to_those_alone_that_confirm_2_0_and_are_not_known_to_spoil_them() {
    let auto = SenderSettings { histograms: Histograms::Auto, ..AUTO };
    let form = |receiver: Receiver| Sender::new(auto, receiver).form();
    assert!(!form(Receiver::default()).native, "nobody has confirmed 2.0 yet");
    assert!(form(Receiver { knows_v2: true, ..Receiver::default() }).native);
    assert!(!form(Receiver { only_v1_ms: Some(1), ..Receiver::default() }).native);
    let mut run = Run::new(auto, 30, 10);
    run.finish(|_| ReceiverAnswer { classic_only: true, ..written(204) });
    assert!(run.sent.iter().all(|request| !request.form.native && request.form.classic));
    let mut run = Run::new(auto, 30, 10);
    run.finish(|_| written(204));
    let native: Vec<_> = run.sent.iter().map(|request| request.form.native).collect();
    assert_eq!(native, [false, true, true]);
}

#[test]
fn one_bad_sample_costs_no_other() {
    let mut run = Run::new(AUTO, 2000, 2000);
    run.finish(|request| if has(request, 1234) { written(400) } else { written(204) });
    assert_eq!(run.with(Outcome::Rejected), BTreeSet::from([1234]));
    assert!(run.sent.len() < 30, "{} requests", run.sent.len());
}

#[test]
fn where_nothing_is_wanted_soon_nothing_is_spent_on_finding_out() {
    let mut run = Run::new(AUTO, 200_000, 2000);
    run.finish(|_| written(400));
    assert_eq!(run.with(Outcome::Rejected).len(), 200_000);
    let last = run.sent.iter().filter(|request| request.range.start >= 198_000).count();
    assert_eq!(last, 1);
    // And all of it is there again as soon as something is.
    run.end += 10_000;
    run.finish(|request| if has(request, 209_999) { written(400) } else { written(204) });
    assert_eq!(run.with(Outcome::Rejected).len(), 200_001);
}

#[test]
fn a_request_that_is_too_large_makes_all_others_smaller_for_a_while() {
    let mut run = Run::new(AUTO, 20_000, 2000);
    run.finish(|request| if request.samples.len() > 600 { written(413) } else { written(204) });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 20_000);
    let large = run.sent.iter().filter(|request| request.samples.len() > 600).count();
    assert!(large <= 4, "{large} requests were too large");
}

#[test]
fn a_closed_door_parks_the_queue_and_is_tried_each_minute() {
    for status in [401, 403, 404, 407, 302] {
        let mut run = Run::new(AUTO, 10, 10);
        let mut closed = 4;
        run.finish(|_| {
            closed -= 1;
            if closed > 0 { answer(status) } else { written(204) }
        });
        let times: Vec<_> = run.sent.iter().map(|request| request.at.as_secs()).collect();
        assert_eq!(times, [0, 60, 120, 180], "{status}");
        assert_eq!(run.events, [Event::Parked, Event::Recovered, Event::Settled(0..10, 10)]);
    }
    let mut run = Run::new(SenderSettings { denied: Denied::Drop, ..AUTO }, 10, 10);
    run.finish(|_| answer(403));
    assert_eq!(run.with(Outcome::Rejected).len(), 10);
}

#[test]
fn what_alone_makes_the_receiver_fail_becomes_a_dead_letter_after_others_have_passed() {
    let mut run = Run::new(AUTO, 60, 10);
    run.finish(|request| if has(request, 15) { written(500) } else { written(204) });
    assert_eq!(run.with(Outcome::Dropped(Reason::DeadLetter)), (10..20).collect());
    assert_eq!(run.with(Outcome::Acknowledged).len(), 50);
    assert!(run.sent.iter().filter(|request| request.range.start == 10).count() > SUSPECT as usize);
    let mut run = Run::new(AUTO, 60, 10);
    let mut requests = 0;
    // What is temporary by definition makes nobody suspect.
    run.finish(|request| {
        requests += 1;
        if has(request, 15) && requests < 500 { answer(503) } else { written(204) }
    });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 60);
}

#[test]
fn a_receiver_that_fails_on_everything_makes_no_dead_letters() {
    for status in [500, 501, 503, 599] {
        let mut run = Run::new(AUTO, 30, 10);
        let mut requests = 0;
        run.finish(|_| {
            requests += 1;
            if requests > 100 { written(204) } else { answer(status) }
        });
        assert_eq!(run.with(Outcome::Acknowledged).len(), 30);
    }
}

#[test]
fn a_receiver_that_comes_back_between_two_requests_loses_nothing() {
    let mut run = Run::new(AUTO, 30, 10);
    let mut back = false;
    run.finish(|request| {
        back |= request.range.start == 10;
        if back { written(204) } else { answer(500) }
    });
    assert_eq!(run.with(Outcome::Acknowledged).len(), 30);
}

#[test]
fn one_that_then_takes_nothing_older_makes_a_dead_letter_and_not_a_rejection() {
    let mut run = Run::new(AUTO, 30, 10);
    let mut newest = 0;
    run.finish(|request| {
        if newest == 0 && request.range.start < 10 {
            return answer(500);
        }
        match request.range.start < newest {
            true => written(400),
            false => {
                newest = request.range.start;
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
    // And at 10,000 samples a second where that is more.
    let mut sender = Sender::new(AUTO, Receiver::default());
    sender.pace(Duration::from_secs(1), 2000, 1.0);
    assert_eq!(sender.next(Duration::from_secs(1)), Next::Wait(Duration::from_millis(1200)));
}

fn any_answer() -> impl Strategy<Value = ReceiverAnswer> {
    let status = prop_oneof![
        4 => Just(Some(204)), 1 => Just(None),
        4 => prop::sample::select(vec![200, 201, 301, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 502, 503, 599]).prop_map(Some),
    ];
    let words = prop_oneof![9 => Just(String::new()), 1 => Just(NATIVE_OFF.to_owned())];
    let count = || prop::option::of(0u64..60);
    let written = prop::option::of((count(), count()))
        .prop_map(|written| written.map(|(samples, histograms)| Written { samples, histograms }));
    (status, words, prop::option::of(0u64..1000), written, prop::bool::weighted(0.1)).prop_map(
        |(status, words, after, written, classic_only)| ReceiverAnswer {
            status,
            words,
            retry_after: after.map(Duration::from_secs),
            written,
            classic_only,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_answered_each_sample_is_settled_once_and_in_order(
        answers in prop::collection::vec(any_answer(), 0..200), end in 1u64..300, batch in 1u64..100, park in any::<bool>(),
        series in 1u64..50,
    ) {
        let denied = if park { Denied::Park } else { Denied::Drop };
        let mut run = Run::new(SenderSettings { denied, ..AUTO }, end, batch);
        run.series = series;
        let mut answers = answers.into_iter();
        let mut never_again = BTreeSet::new();
        run.finish(|request| {
            let key = (request.samples.clone(), is_v2(request), request.form.native);
            assert!(!never_again.contains(&key), "{request:?} was refused and came again");
            let answer = answers.next().unwrap_or_else(|| written(204));
            let about_form = answer.words.contains(NATIVE_OFF) && request.form.native;
            if matches!(answer.status, Some(400 | 405 | 408 | 409 | 413 | 422)) && !about_form {
                never_again.insert(key);
            }
            answer
        });
        prop_assert_eq!(run.ledger.seq, end);
        prop_assert!(run.ledger.holds());
    }
}
