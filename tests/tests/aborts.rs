//! Connections that end before the response does: by whom, and when.

use std::net::Ipv4Addr;
use std::sync::mpsc;

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, answer_head, chat, event, get, post, post_head};
use citadel_agent_tests::names::{ABORTED, CHUNKS, DURATION, IN_FLIGHT, OPEN, REQUESTS, TTFB, TTFT};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::raw::flag::{ACK, FIN, PSH, RST, SYN};
use citadel_agent_tests::raw::{Header, Wire};
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::pause;

/// How a connection is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Rst,
}

impl End {
    fn of(self, peer: Peer) {
        match self {
            Self::Fin => peer.close(),
            Self::Rst => peer.reset(),
        }
    }
}

/// What has happened on a connection when it is ended.
struct Phase {
    name: &'static str,
    endpoint: &'static str,
    /// What the client has sent.
    request: String,
    /// What the server has sent.
    response: String,
}

/// All phases of the contract, some at more than one place.
fn phases() -> Vec<Phase> {
    let phase = |name, endpoint, request: String, response: String| Phase { name, endpoint, request, response };
    vec![
        phase("request", "completions", post_head("/v1/completions", 100) + "half of the body", String::new()),
        phase("waiting", "models", get("/v1/models"), String::new()),
        phase("headers", "chat_completions", chat(), STREAM_HEAD.to_owned()),
        phase("streaming", "chat_completions", chat(), STREAM_HEAD.to_owned() + &event("a") + &event("b")),
        phase("streaming", "chat_completions", chat(), STREAM_HEAD.to_owned() + &event("a")[..10]),
        // All tokens are out, but not the end.
        phase("streaming", "chat_completions", chat(), STREAM_HEAD.to_owned() + &event("a") + "0\r\n"),
        phase("body", "embeddings", post("/v1/embeddings", "{}"), answer_head("200 OK", 1000) + "a part"),
    ]
}

/// Ends one connection in each phase and holds what the agent counted against it.
fn every_phase_is_told(side: &'static str, end: End) {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    for Phase { request, response, .. } in phases() {
        let (length, expected) = (request.len(), response.len());
        let (client_is_ready, ready) = mpsc::channel();
        let playing = server.serve(move |mut peer| {
            peer.read(length);
            if !response.is_empty() {
                peer.write(&response);
            }
            ready.recv().expect("the client has read what there is");
            match side {
                "server" => end.of(peer),
                _ => drop(peer.read_to_end()),
            }
        });
        let mut client = server.connect();
        client.ask(request, expected);
        client_is_ready.send(()).expect("the server waits");
        match side {
            "client" => end.of(client),
            _ => drop(client.read_to_end()),
        }
        playing.truth();
    }

    let all = phases().len() as u64;
    let page = assert_eventually!(agent, |page| page.counter(ABORTED).value() == all);
    page.assert_nothing_lost();
    let mut expected = sums([]);
    for Phase { name, endpoint, .. } in phases() {
        *expected.entry(format!("{endpoint} {side} {name}")).or_default() += 1;
    }
    assert_eq!(page.counter(ABORTED).by(["endpoint", "side", "phase"]), expected, "{side} {end:?}");
    assert_eq!(page.counter(REQUESTS).by(["code"]), sums([]), "none of them ended");
    assert_eq!(page.histogram(DURATION).count(), 0, "none of them ended");
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
    assert_eq!(page.gauge(OPEN).value(), 0);
    let chunks = page.counter(CHUNKS).value();
    assert!((3..=4).contains(&chunks), "two, one, and one that was cut: {chunks}");
}

#[test]
fn a_client_that_closes_is_the_side_in_every_phase() {
    every_phase_is_told("client", End::Fin);
}

#[test]
fn a_client_that_resets_is_the_side_in_every_phase() {
    every_phase_is_told("client", End::Rst);
}

#[test]
fn a_server_that_closes_is_the_side_in_every_phase() {
    every_phase_is_told("server", End::Fin);
}

#[test]
fn a_server_that_resets_is_the_side_in_every_phase() {
    every_phase_is_told("server", End::Rst);
}

#[test]
fn a_client_that_leaves_a_stream_is_told_although_the_server_writes_on() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let playing = server.serve(|mut peer| {
        peer.read_message();
        let header = peer.write(STREAM_HEAD);
        pause(20);
        let first = peer.write(event("first"));
        // Until the kernel says that the client is gone.
        for _ in 0..100 {
            pause(5);
            if peer.try_write(event("more")).is_err() {
                return (header, first);
            }
        }
        panic!("the client left, and 100 writes did not notice");
    });
    let mut client = server.connect();
    let asked = client.ask(chat(), (STREAM_HEAD.to_owned() + &event("first")).len());
    client.close();
    let (header, first) = playing.truth();

    let page = assert_eventually!(agent, |page| page.counter(ABORTED).value() == 1);
    assert_eq!(
        page.counter(ABORTED).by(["endpoint", "side", "phase"]),
        sums([("chat_completions client streaming", 1)])
    );
    assert_eq!(page.requests(), 0);
    // What was measured before the abort is true.
    page.histogram(TTFB).assert_holds(&[asked.until(header)]);
    page.histogram(TTFT).assert_holds(&[asked.until(first)]);
}

#[test]
fn a_half_close_is_no_abort() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let playing = server.serve(|mut peer| {
        peer.read_message();
        // The client's FIN arrives here, long before the answer.
        pause(30);
        peer.write(STREAM_HEAD);
        pause(10);
        let token = peer.write(event("a"));
        pause(10);
        (token, peer.write(LAST_CHUNK))
    });
    let mut client = server.connect();
    let asked = client.write(chat());
    client.finish_writing();
    client.read_through(LAST_CHUNK);
    let (token, end) = playing.truth();
    client.read_to_end();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 1)]));
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    page.histogram(TTFT).assert_holds(&[asked.until(token)]);
    page.histogram(DURATION).assert_holds(&[asked.until(end)]);
}

#[test]
fn a_connection_that_closes_between_requests_is_no_abort() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    for end in [End::Fin, End::Rst] {
        let playing = server.answer_each(vec![(0, response.clone())]);
        let mut client = server.connect();
        client.ask(get("/v1/models"), response.len());
        end.of(client);
        playing.truth();
    }
    // And by the server, while the client still is there.
    let playing = server.answer_each(vec![(0, response.clone())]);
    let mut client = server.connect();
    client.ask(get("/v1/models"), response.len());
    playing.truth();
    client.read_to_end();

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
}

#[test]
fn an_early_refusal_is_an_answer_although_the_request_was_not_read_to_its_end() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let refusal = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let head = post_head("/v1/embeddings", 1_000_000);
    let read = head.len();
    let playing = server.serve(move |mut peer| {
        peer.read(read);
        peer.write(refusal);
        peer.finish_writing();
        peer.read_to_end();
    });
    let mut client = server.connect();
    client.ask(head + "the first of many bytes", refusal.len());
    client.close();
    playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("embeddings 413", 1)]));
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
}

/// Segments that no client's TCP has sent: a FIN or RST that the server's TCP does not accept says nothing about the client.
#[test]
fn a_forged_end_does_not_make_the_client_the_side() {
    let wire = Wire::new();
    let server = wire.bind();
    let agent = Agent::measuring(server.port());
    let playing = server.serve(|mut peer| {
        for _ in 0..2 {
            peer.read_message();
        }
        peer.reset();
    });
    let (client, port) = ((Ipv4Addr::new(198, 51, 100, 9), 40_000), server.port());
    let send = |seq, ack, flags, payload: &str| {
        wire.send(&Header { client, port, seq, ack, flags }, payload.as_bytes());
    };
    send(1, 0, SYN, "");
    let answer = (0..50).find_map(|_| wire.receive(100)).expect("an answer to the SYN");
    let ack = answer.header.seq.wrapping_add(1);
    let request = get("/v1/models");
    send(2, ack, ACK | PSH, &request);
    let next = 2 + request.len() as u32;
    // Before what comes next, after it in the window, and far outside of it.
    for seq in [next - 5, next + 100, next + (1 << 30), next.wrapping_sub(1 << 30)] {
        for flags in [RST, RST | ACK, FIN | ACK] {
            send(seq, ack, flags, "");
        }
    }
    send(next, ack, ACK | PSH, &request);
    playing.truth();

    let page = assert_eventually!(agent, |page| page.counter(ABORTED).value() == 2);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([("server waiting", 2)]));
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
}
