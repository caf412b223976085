//! What a sender does with answers: retries, waits, fall-backs, what it keeps and what it gives up. Cases of Prometheus' own
//! compliance suite for remote write, and the agent's promises beyond it, against a receiver that records.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use citadel_agent::metrics::catalogue::agent::PROCESS_START;
use citadel_agent::metrics::catalogue::models::CONNECTIONS_OPEN;
use citadel_agent::metrics::family::{self, Page};
use citadel_agent::remote_write;
use citadel_agent::slot::Slot;
use support::page;
use support::pages::every;
use support::receiver::{Receiver, Reply, Request, Value};
use support::sending::{Sending, V1, always, both, counting, runtime, taken};
use tempfile::TempDir;

#[test]
fn a_receiver_that_fails_gets_the_same_body_again_until_it_takes_it() {
    both(|more, _| {
        for reply in [
            Reply::Status(500, "", "down"),
            Reply::Status(502, "", ""),
            Reply::Status(503, "", ""),
            Reply::Status(429, "", "slow down"),
            Reply::Cut,
            Reply::Close,
        ] {
            let mut failures = 2;
            let scripted = reply.clone();
            let receiver = Receiver::start(move |_| {
                failures -= 1;
                if failures >= 0 { scripted.clone() } else { Reply::Taken }
            });
            let sending = Sending::to(&receiver.url(), more, counting());
            let requests = receiver.wait_until(&format!("4 requests after {reply:?}"), |requests| requests.len() >= 4);
            // A connection that was closed in the middle is tried anew at once, and counts as one try.
            let first: Vec<_> = requests.iter().filter(|request| request.body == requests[0].body).collect();
            assert!(first.len() >= 2, "{reply:?}: {} times", first.len());
            let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
            assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
            let values: Vec<_> =
                receiver.requests().iter().flat_map(|r| r.samples.clone()).map(|got| got.number()).collect();
            assert!(values.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1.0), "{values:?}");
        }
    });
}

#[test]
fn waits_grow_from_half_a_second() {
    let receiver = Receiver::start(|_| Reply::Status(500, "", ""));
    let _sending = Sending::to(&receiver.url(), V1, counting());
    let times: Vec<_> = receiver.wait_for(4).iter().map(|request| request.at).collect();
    for (pair, least) in times.windows(2).zip([450, 900, 1800]) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(least), "{:?} after {least} ms", pair[1] - pair[0]);
    }
}

#[test]
fn retry_after_is_waited_for() {
    for status in [429, 503] {
        let mut first = true;
        let receiver = Receiver::start(move |_| match std::mem::take(&mut first) {
            true => Reply::Status(status, "Retry-After: 2\r\n", ""),
            false => Reply::Taken,
        });
        let _sending = Sending::to(&receiver.url(), V1, counting());
        let requests = receiver.wait_for(2);
        assert!(requests[1].at - requests[0].at >= Duration::from_secs(2));
        assert_eq!(requests[0].body, requests[1].body);
    }
}

#[test]
fn a_receiver_that_hangs_is_given_up_and_asked_again() {
    let mut first = true;
    let receiver = Receiver::start(move |_| if std::mem::take(&mut first) { Reply::Hang } else { Reply::Taken });
    let sending = Sending::to(&receiver.url(), "      timeout: 300ms", counting());
    let requests = receiver.wait_for(2);
    assert_eq!(requests[0].body, requests[1].body);
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
    assert!(numbers.requests.iter().any(|(code, count)| code == "none" && *count == 1), "{numbers:?}");
}

#[test]
fn what_is_refused_for_good_is_not_sent_again() {
    both(|more, _| {
        for status in [405, 409, 410] {
            let receiver = Receiver::start(move |_| Reply::Status(status, "", "no"));
            let sending = Sending::to(&receiver.url(), more, counting());
            let requests = receiver.wait_for(4);
            let bodies: BTreeSet<_> = requests.iter().map(|request| request.body.clone()).collect();
            assert_eq!(bodies.len(), requests.len(), "{status}");
            sending.wait("rejection", |numbers| numbers.rejected >= 3);
        }
    });
}

#[test]
fn one_bad_sample_costs_no_other_and_is_named_by_the_receiver() {
    both(|more, _| {
        let bad = |request: &Request| request.samples.iter().any(|got| got.label("model") == Some("m13"));
        let receiver = Receiver::start(move |request| match bad(request) {
            true if request.is_v2() => {
                Reply::Status(400, "X-Prometheus-Remote-Write-Samples-Written: 0\r\n", "bad label")
            }
            true => Reply::Status(400, "", "bad label"),
            false => Reply::Taken,
        });
        let mut page = Page::default();
        for i in 0..50 {
            page.add(&CONNECTIONS_OPEN, [&format!("m{i}"), "1"], family::Value::Integer(1));
        }
        // A receiver that has confirmed 2.0 before: its 400 is about the sample.
        let mut collections = 0;
        let mut good = Page::default();
        good.add(&PROCESS_START, [], family::Value::Float(1.0));
        let sending = Sending::to(&receiver.url(), more, move || {
            collections += 1;
            Some(if collections == 1 { good.clone() } else { page.clone() })
        });
        let numbers = sending.wait("rejection", |numbers| numbers.rejected >= 2 && numbers.acknowledged >= 100);
        assert!(numbers.rejected <= numbers.acknowledged / 49 + 1, "{numbers:?}");
        let mut bodies = BTreeSet::new();
        for request in receiver.requests().iter().filter(|request| bad(request)) {
            assert!(bodies.insert(request.body.clone()), "a refused body came again");
        }
    });
}

#[test]
fn a_closed_door_parks_the_queue_and_loses_nothing() {
    for status in [401, 403, 404] {
        let receiver = Receiver::start(move |_| Reply::Status(status, "", "no entry"));
        let sending = Sending::to(&receiver.url(), "", counting());
        let numbers = sending.wait("parking", |numbers| numbers.parked && numbers.pending >= 3);
        assert_eq!((numbers.rejected, numbers.acknowledged), (0, 0));
        assert_eq!(receiver.requests().len(), 1, "{status}: it is tried once a minute");
    }
    let receiver = Receiver::start(|_| Reply::Status(403, "", "no entry"));
    let sending = Sending::to(&receiver.url(), "      denied: drop", counting());
    sending.wait("rejection", |numbers| numbers.rejected >= 3);
}

#[test]
fn a_receiver_that_knows_only_1_0_gets_it_and_is_remembered_over_a_restart() {
    for reply in [
        Reply::Status(204, "", ""),
        Reply::Status(200, "", "ok"),
        Reply::Status(415, "", "no"),
        Reply::Status(400, "", "no"),
    ] {
        let scripted = reply.clone();
        let receiver = Receiver::start(move |request| if request.is_v2() { scripted.clone() } else { Reply::Taken });
        let mut sending = Sending::to(&receiver.url(), "", counting());
        sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 2);
        sending.stop();
        sending.start(counting());
        let before = receiver.requests().len();
        let requests = receiver.wait_for(before + 2);
        assert_eq!(requests.iter().filter(|request| request.is_v2()).count(), 1, "{reply:?}");
        assert_eq!(requests[0].samples[0].value, requests[1].samples[0].value, "the same samples, once more");
    }
}

#[test]
fn a_2xx_with_the_headers_of_2_0_never_falls_back() {
    let receiver = taken();
    let _sending = Sending::to(&receiver.url(), "", counting());
    assert!(receiver.wait_for(5).iter().all(Request::is_v2));
}

#[test]
fn the_body_of_a_2xx_is_ignored() {
    let headers = "X-Prometheus-Remote-Write-Samples-Written: 1\r\n";
    let receiver = Receiver::start(move |_| Reply::Status(200, headers, "error: everything is broken"));
    let sending = Sending::to(&receiver.url(), "", counting());
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 3);
    assert_eq!(numbers.rejected, 0);
}

#[test]
fn native_histograms_end_where_a_receiver_says_that_they_are_off() {
    both(|more, _| {
        let has_native = |request: &Request| request.samples.iter().any(|got| matches!(got.value, Value::Histogram(_)));
        let receiver = Receiver::start(move |request| match has_native(request) {
            true => Reply::Status(500, "", "native histograms are disabled\n"),
            false => Reply::Taken,
        });
        let sending = Sending::with(&receiver.url(), more, "  histograms: both", always(page(&["phi3"])));
        let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
        assert_eq!(receiver.requests().iter().filter(|request| has_native(request)).count(), 1);
        assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
    });
}

#[test]
fn what_the_receiver_says_that_it_wrote_counts() {
    let receiver = Receiver::start(|_| Reply::Status(204, "X-Prometheus-Remote-Write-Samples-Written: 0\r\n", ""));
    let sending = Sending::to(&receiver.url(), "", counting());
    let numbers = sending.wait("rejection", |numbers| numbers.rejected >= 5);
    assert_eq!((numbers.acknowledged, numbers.dropped.len()), (0, 0));
}

#[test]
fn a_415_to_both_protocols_is_a_proxy_and_parks() {
    let receiver = Receiver::start(|_| Reply::Status(415, "", "unsupported media type"));
    let sending = Sending::to(&receiver.url(), "", counting());
    let numbers = sending.wait("parking", |numbers| numbers.parked && numbers.pending >= 3);
    assert_eq!((numbers.rejected, numbers.acknowledged), (0, 0));
    assert_eq!(receiver.requests().iter().map(Request::is_v2).collect::<Vec<_>>(), [true, false]);
}

/// As the compliance suite counts: 8 s of a receiver that refuses everything.
#[test]
fn who_refuses_everything_gets_a_handful_of_requests() {
    for status in [400, 413] {
        both(|more, _| {
            let receiver = Receiver::start(move |_| Reply::Status(status, "", "no"));
            let mut page = Page::default();
            for i in 0..500 {
                page.add(&CONNECTIONS_OPEN, [&format!("m{i}"), "1"], family::Value::Integer(1));
            }
            let sending = Sending::to(&receiver.url(), more, always(page));
            sending.wait("collections", |numbers| numbers.collected >= 500 * 40);
            let requests = receiver.requests();
            let first = requests[0].at;
            let early = requests.iter().filter(|request| request.at - first < Duration::from_secs(4)).count();
            assert!((2..=6).contains(&early), "{status}: {early} requests in 4 s");
        });
    }
}

#[test]
fn a_backlog_of_small_collections_goes_out_in_few_requests_though_half_of_them_fail() {
    let mut requests = 0;
    let receiver = Receiver::start(move |_| {
        requests += 1;
        if requests <= 4 || requests % 2 == 0 { Reply::Status(503, "", "busy") } else { Reply::Taken }
    });
    let sending = Sending::to(&receiver.url(), "", counting());
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 60);
    assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
    let got: u64 = numbers.requests.iter().filter(|(code, _)| code == "204").map(|(_, count)| count).sum();
    assert!(got < 40, "{got} requests for {} collections", numbers.acknowledged);
    // In order, each once: a batch that failed comes again as it was.
    let mut seen = BTreeSet::new();
    let taken = receiver.requests().into_iter().flat_map(|request| request.samples).map(|got| got.timestamp);
    let order: Vec<i64> = taken.filter(|time| seen.insert(*time)).collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn what_waited_out_an_outage_arrives_in_order_and_whole() {
    let open = Arc::new(Mutex::new(false));
    let door = Arc::clone(&open);
    let receiver = Receiver::start(move |_| if *door.lock().unwrap() { Reply::Taken } else { Reply::Close });
    let mut sending = Sending::to(&receiver.url(), "", counting());
    sending.wait("backlog", |numbers| numbers.pending >= 10);
    // Over a restart, too: the second run's values begin at 1 again.
    sending.stop();
    let waiting = sending.ledger();
    assert!(waiting.holds() && waiting.acknowledged == 0);
    sending.start(counting());
    *open.lock().unwrap() = true;
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged > waiting.end + 3);
    assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
    let mut values = Vec::new();
    for request in receiver.requests() {
        values.extend(request.samples.iter().map(|got| (got.timestamp, got.number())));
    }
    values.dedup();
    let values: Vec<_> = values[values.iter().rposition(|(_, value)| *value == 1.0).map_or(0, |_| 0)..].to_vec();
    assert!(
        values.windows(2).all(|pair| pair[0].0 < pair[1].0 && (pair[1].1 == pair[0].1 + 1.0 || pair[1].1 == 1.0)),
        "{values:?}"
    );
}

#[test]
fn each_destination_has_its_own_cursor_and_credentials() {
    let good = taken();
    let bad = Receiver::start(|_| Reply::Status(503, "", ""));
    let dir = TempDir::new().unwrap();
    let (password, token) = (dir.path().join("password"), dir.path().join("token"));
    std::fs::write(&password, "open sesame\n").unwrap();
    std::fs::write(&token, "abc.def\n").unwrap();
    let more = format!(
        "      username: aladdin\n      password_file: {}\n    other:\n      url: '{}'\n      bearer_token_file: {}",
        password.display(),
        bad.url(),
        token.display()
    );
    let sending = Sending::to(&good.url(), &more, counting());
    let numbers = |sending: &Sending, i: usize| sending.numbers.newest().unwrap().value[i].clone();
    sending.wait("progress", |_| numbers(&sending, 1).acknowledged >= 3 && numbers(&sending, 0).pending >= 3);
    assert_eq!((numbers(&sending, 0).destination.as_str(), numbers(&sending, 0).acknowledged), ("other", 0));
    assert_eq!(good.requests()[0].header("authorization"), "Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(bad.requests()[0].header("authorization"), "Bearer abc.def");
}

#[test]
fn two_agents_never_share_a_spool() {
    let receiver = taken();
    let mut sending = Sending::to(&receiver.url(), "", counting());
    receiver.wait_for(1);
    // Whoever has the spool carries something over to the next one; who does not have it ends without.
    let second = |sending: &Sending| {
        let prepared = remote_write::prepare(&sending.config).unwrap().unwrap();
        let handle = remote_write::start(prepared, Slot::default(), every(counting())).unwrap();
        runtime().block_on(handle.stop()).is_some()
    };
    assert!(!second(&sending), "the second one has begun");
    sending.stop();
    assert!(second(&sending), "the spool is free");
}

fn files(folder: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect()
}

#[test]
fn a_damaged_ledger_costs_nothing_but_a_second_sending() {
    let receiver = Receiver::start(|_| Reply::Status(503, "", ""));
    let mut sending = Sending::to(&receiver.url(), "", counting());
    let pending = sending.wait("backlog", |numbers| numbers.pending >= 3).pending;
    sending.stop();
    let ledger = sending.dir.path().join("prometheus.ledger");
    let mut text = std::fs::read(&ledger).unwrap();
    // Both of its slots.
    for at in [20, 8192 + 20] {
        text[at] = b'?';
    }
    std::fs::write(&ledger, text).unwrap();
    sending.start(counting());
    let numbers = sending.wait("figures", |numbers| numbers.collected >= pending);
    assert!(numbers.pending >= pending);
    assert_eq!(files(sending.dir.path(), ".damaged").len(), 1);
}

/// Otherwise a crash in the first second would make the destination a new one, which gets only what comes after.
#[test]
fn a_ledger_is_there_before_the_first_sample() {
    let receiver = taken();
    let mut sending = Sending::idle(&receiver.url(), "", "");
    let ledger = sending.dir.path().join("prometheus.ledger");
    let (seen, mut pages) = (Arc::new(Mutex::new(None)), counting());
    let first = Arc::clone(&seen);
    sending.start(move || {
        first.lock().unwrap().get_or_insert(ledger.exists());
        pages()
    });
    receiver.wait_for(1);
    assert_eq!(*seen.lock().unwrap(), Some(true));
}

#[test]
fn what_is_in_a_spool_without_any_ledger_is_sent() {
    let receiver = taken();
    let mut sending = Sending::to(&receiver.url(), "", counting());
    sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 3);
    sending.stop();
    let before = sending.ledger().end;
    std::fs::remove_file(sending.dir.path().join("prometheus.ledger")).unwrap();
    sending.start(counting());
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= before);
    assert_eq!(numbers.dropped.len(), 0);
}
