//! `citadel-agent trace`: what it says of single requests, against servers and clients that know.

use std::collections::BTreeSet;
use std::thread;

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, event, get};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::truth::{Stamp, assert_within, pause};
use serde_json::Value;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A request with one more field in its head.
fn with_field(request: &str, field: &str) -> String {
    request.replacen("\r\n", &format!("\r\n{field}\r\n"), 1)
}

#[track_caller]
fn seconds(request: &Value, path: &str) -> f64 {
    request.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {request:#}"))
}

#[test]
fn a_stream_is_told_as_client_and_server_saw_it() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let trace = agent.trace(&[]);
    let playing = server.serve(|mut peer| {
        // It stays in the receive queue for as long.
        pause(60);
        let read = peer.read_message().at;
        pause(40);
        let head = peer.write(STREAM_HEAD);
        pause(20);
        let first = peer.write(event("a"));
        pause(20);
        let before_the_gap = peer.write(event("b"));
        pause(150);
        let after_the_gap = peer.write(event("c"));
        let end = peer.write(LAST_CHUNK);
        // The second request, without an ID.
        peer.read_message();
        let answered = peer.write(answer("404 Not Found", "{}"));
        (read, head, first, before_the_gap, after_the_gap, end, answered)
    });
    let request = with_field(&chat(), &format!("traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01"));
    let mut client = server.connect();
    let port = client.port();
    let asked = client.write(&request);
    client.read_through(LAST_CHUNK);
    let plain = get("/v1/models");
    let second = client.ask(&plain, answer("404 Not Found", "{}").len());
    let (read, head, first, before_the_gap, after_the_gap, end, answered) = playing.truth();

    let told = trace.next();
    assert_eq!(told["model"], "model");
    assert_eq!(told["port"], server.port());
    assert_eq!(told["client"], format!("127.0.0.1:{port}"));
    assert_eq!((&told["endpoint"], &told["code"]), (&"chat_completions".into(), &200.into()));
    assert_eq!((&told["trace_id"], &told["request_id"]), (&TRACE_ID.into(), &Value::Null));
    assert_eq!(told["aborted"], Value::Null);
    assert_eq!(told["request_bytes"], request.len());
    let sent = [STREAM_HEAD, &event("a"), &event("b"), &event("c"), LAST_CHUNK].concat();
    assert_eq!(told["response_bytes"], sent.len());
    assert_eq!(told["retransmits"], 0);
    assert_eq!(told.pointer("/events/count"), Some(&3.into()));
    assert_within("time to first byte", seconds(&told, "/time_to_first_byte"), asked.until(head));
    assert_within("time to first token", seconds(&told, "/events/time_to_first_token"), asked.until(first));
    assert_within("longest gap", seconds(&told, "/events/longest_gap"), before_the_gap.until(after_the_gap));
    assert_within("its end", seconds(&told, "/events/longest_gap_at"), asked.until(after_the_gap));
    assert_within("duration", seconds(&told, "/duration"), asked.until(end));
    if agent.status()["families"]["recvq"]["status"] == "ok" {
        assert_within("receive queue", seconds(&told, "/receive_queue"), asked.until(read));
    }

    let told = trace.next();
    assert_eq!((&told["endpoint"], &told["code"]), (&"models".into(), &404.into()));
    assert_eq!((&told["trace_id"], &told["events"]), (&Value::Null, &Value::Null));
    assert_eq!(told["request_bytes"], plain.len());
    assert_eq!(told["response_bytes"], answer("404 Not Found", "{}").len());
    assert_within("duration", seconds(&told, "/duration"), second.until(answered));
    assert_eq!(trace.complaints(), [""; 0]);
}

#[test]
fn who_ended_a_request_and_when_is_told() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let trace = agent.trace(&["--errors"]);
    let playing = server.serve(|mut peer| {
        peer.read_message();
        peer.write(answer("200 OK", "{}"));
        peer.read_message();
        peer.write(STREAM_HEAD.to_owned() + &event("a"));
        peer.read_to_end();
    });
    let mut client = server.connect();
    // Not asked for.
    client.ask(get("/v1/models"), answer("200 OK", "{}").len());
    let request = with_field(&chat(), "X-Request-Id: r-17");
    let asked = client.ask(&request, STREAM_HEAD.len() + event("a").len());
    let ((), gone) = Stamp::of(|| client.close());
    playing.truth();
    let told = trace.next();
    assert_eq!(told["aborted"], serde_json::json!({"side": "client", "phase": "streaming"}));
    assert_eq!((&told["code"], &told["request_id"]), (&200.into(), &"r-17".into()));
    assert_eq!(told["request_bytes"], request.len());
    assert_within("duration", seconds(&told, "/duration"), asked.until(gone));
}

#[test]
fn what_failed_or_was_slow_is_told_afterwards() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let refused = answer("503 Service Unavailable", "{}");
    let playing = server.answer_each(vec![(0, refused.clone()), (200, answer("200 OK", "{}"))]);
    let mut client = server.connect();
    client.ask(get("/v1/models"), refused.len());
    client.ask(chat(), answer("200 OK", "{}").len());
    playing.truth();
    assert_eventually!(agent, |page| page.requests() == 2);
    let last = |options: &[&str]| {
        let (status, text) = agent.command(&[&["trace", "--last", "10", "--format", "json"], options].concat());
        assert!(status.success(), "{text}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let all = last(&[]);
    assert_eq!(all.iter().map(|told| &told["code"]).collect::<Vec<_>>(), [&503, &200]);
    assert!(seconds(&all[1], "/duration") >= 0.2);
    assert_eq!(all[1]["request_bytes"], Value::Null, "nobody looked");
    assert_eq!(last(&["--errors"]).len(), 1);
    assert_eq!(last(&["--slower-than", "100ms"]).len(), 1);
    assert_eq!(last(&["--endpoint", "embeddings"]).len(), 0);
    assert_eq!(last(&["--client", "127.0.0.0/8"]).len(), 2);

    // Whoever does not want them has none, not even of those before.
    let setup = Setup::new().model("model", server.port()).ebpf("client_addresses: false");
    agent.reload(&setup);
    agent.wait_for_log("configuration reloaded");
    assert!(last(&[]).iter().all(|told| told["client"].is_null()));
    assert_eq!(last(&["--client", "127.0.0.0/8"]).len(), 0);
}

#[test]
fn pipelined_requests_have_no_details_that_could_be_another_ones() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let trace = agent.trace(&[]);
    let (one, two) = (answer("200 OK", "{}"), answer("201 Created", "{\"a\":1}"));
    let both = one.clone() + &two;
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        peer.read_message();
        peer.write(both);
    });
    let mut client = server.connect();
    let requests = with_field(&get("/v1/models"), "X-Request-Id: first") + &with_field(&chat(), "X-Request-Id: second");
    client.ask(requests, one.len() + two.len());
    playing.truth();
    let told = [trace.next(), trace.next()];
    assert_eq!(told.each_ref().map(|told| &told["code"]), [&200, &201]);
    for told in told {
        assert_eq!((&told["request_id"], &told["request_bytes"]), (&Value::Null, &Value::Null), "{told:#}");
    }
}

#[test]
fn every_request_is_told_once_or_counted_as_not_told() {
    const CLIENTS: u64 = 4;
    const EACH: u64 = 4000;
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let trace = agent.trace(&[]);
    let response = answer("200 OK", "{}");
    let playing: Vec<_> =
        (0..CLIENTS).map(|_| server.answer_each(vec![(0, response.clone()); EACH as usize])).collect();
    let clients = (0..CLIENTS).map(|n| {
        let (mut client, length) = (server.connect(), response.len());
        thread::spawn(move || {
            for i in 0..EACH {
                client.ask(with_field(&get("/v1/models"), &format!("X-Request-Id: {n}-{i}")), length);
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("the client asks"));
    playing.into_iter().for_each(|playing| drop(playing.truth()));
    let mut seen = BTreeSet::new();
    let mut not_shown = 0;
    while (seen.len() as u64) + not_shown < CLIENTS * EACH {
        let told = trace.next();
        let id = told["request_id"].as_str().unwrap_or_else(|| panic!("no ID: {told:#}")).to_owned();
        assert!(seen.insert(id), "twice: {told:#}");
        let count = |line: String| line.split(' ').next().and_then(|count| count.parse::<u64>().ok());
        not_shown += trace.complaints().into_iter().map(|line| count(line).expect("a number")).sum::<u64>();
    }
    assert_eq!(seen.len() as u64 + not_shown, CLIENTS * EACH);
    assert!(agent.status()["events_lost"]["trace_full"].as_u64().expect("a number") <= not_shown);
}
