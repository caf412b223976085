//! A server across a network that loses, doubles, reorders and delays: its own network namespace, its own TUN device.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::forward::Fate::{ComesTwice, IsLost, IsOvertakenBy, Passes};
use citadel_agent_tests::forward::{Fate, Network, Segment, Tally, Way};
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, event, get, post};
use citadel_agent_tests::names::{ABORTED, CHUNKS, CONNECTIONS, DURATION, INTER_TOKEN, LOST, REQUEST_BYTES, REQUESTS};
use citadel_agent_tests::names::{RESPONSE_BYTES, RETRANSMITS, RTT, TTFB, TTFT};
use citadel_agent_tests::peer::{Heard, Peer};
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::{Span, Stamp, pause};
use citadel_agent_tests::tun::tcp_info;

/// A network that is as bad as it gets, both ways and to every tenth segment in each of three ways.
fn tampers(segment: Segment<'_>) -> Fate {
    match segment.nth % 10 {
        3 => IsLost,
        5 => ComesTwice,
        8 => IsOvertakenBy(2),
        _ => Passes,
    }
}

/// As [`tampers`], but the segment that begins a request arrives in order.
fn tampers_with_bodies(segment: Segment<'_>) -> Fate {
    if segment.payload.starts_with(b"POST ") { Passes } else { tampers(segment) }
}

/// What one connection truly did.
struct Truth {
    retransmits: u64,
    rtt_us: u64,
    sent: u64,
    received: u64,
}

impl Truth {
    /// Of the server's end, after the client has closed.
    fn of(mut peer: Peer) -> Self {
        peer.read_to_end();
        let info = tcp_info(&peer);
        Self {
            retransmits: info.tcpi_total_retrans.into(),
            rtt_us: info.tcpi_rtt.into(),
            sent: peer.sent,
            received: peer.received,
        }
    }
}

/// Uploads and downloads 200 KB five times and streams 200 tokens once, and holds the page against it.
fn uploads_downloads_and_a_stream_are_exact(network: &Network) -> Truth {
    const BODY: usize = 200_000;
    let server = network.bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", &"y".repeat(BODY));
    let length = response.len();
    let playing = server.serve(move |mut peer| {
        for _ in 0..5 {
            peer.read_message();
            pause(2);
            peer.write(&response);
        }
        peer.read_message();
        peer.write(STREAM_HEAD);
        for _ in 0..200 {
            pause(1);
            peer.write(event("token"));
        }
        peer.write(LAST_CHUNK);
        Truth::of(peer)
    });
    let mut client = network.connect(&server);
    for _ in 0..5 {
        client.ask(post("/v1/embeddings", &"x".repeat(BODY)), length);
    }
    client.write(post("/v1/chat/completions", &"x".repeat(BODY)));
    client.read_through(LAST_CHUNK);
    client.close();
    let truth = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() >= 6);
    page.assert_nothing_lost();
    let expected = sums([("embeddings 200", 5), ("chat_completions 200", 1)]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 1)]));
    assert_eq!(page.counter(CHUNKS).value(), 200);
    assert_eq!(page.histogram(INTER_TOKEN).count(), 199);
    assert_eq!(page.histogram(TTFT).count(), 1);
    assert_eq!(page.histogram(TTFB).count(), 6);
    assert_eq!(page.histogram(DURATION).count(), 6);
    assert_eq!(page.counter(REQUEST_BYTES).value(), truth.received, "each byte once");
    assert_eq!(page.counter(RESPONSE_BYTES).value(), truth.sent, "each byte once");
    assert_eq!(page.counter(RETRANSMITS).value(), truth.retransmits);
    truth
}

#[test]
fn a_gentle_network_is_exact() {
    let network = Network::new(0, |_| Passes);
    // On a busy machine TCP may take a late acknowledgement for a loss, so even here retransmits need not be 0.
    let _ = uploads_downloads_and_a_stream_are_exact(&network);
    assert_eq!(network.tally(), Tally { lost: 0, doubled: 0, overtaken: 0 });
}

#[test]
fn what_is_sent_again_is_counted_once() {
    let network = Network::new(0, |segment| if segment.way == Way::ToClient { tampers(segment) } else { Passes });
    let truth = uploads_downloads_and_a_stream_are_exact(&network);
    let tally = network.tally();
    assert!(tally.lost > 20 && tally.doubled > 20 && tally.overtaken > 20, "{tally:?}");
    assert!(truth.retransmits >= tally.lost, "{tally:?}");
}

#[test]
fn what_arrives_twice_or_out_of_order_is_counted_once() {
    let network =
        Network::new(0, |segment| if segment.way == Way::ToServer { tampers_with_bodies(segment) } else { Passes });
    let _ = uploads_downloads_and_a_stream_are_exact(&network);
    let tally = network.tally();
    assert!(tally.lost > 20 && tally.doubled > 20 && tally.overtaken > 20, "{tally:?}");
}

#[test]
fn a_network_that_is_bad_both_ways_changes_no_count() {
    let network = Network::new(1, tampers_with_bodies);
    let truth = uploads_downloads_and_a_stream_are_exact(&network);
    assert!(truth.retransmits > 20, "{}", truth.retransmits);
}

/// Sends 40 requests of one segment each across a network with this rule.
fn small_requests_are_exact(rule: fn(Segment<'_>) -> Fate) {
    let network = Network::new(0, rule);
    let server = network.bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        for _ in 0..40 {
            peer.read_message();
            peer.write(&script);
        }
        Truth::of(peer)
    });
    let mut client = network.connect(&server);
    for _ in 0..40 {
        client.ask(post("/v1/embeddings", "{\"input\":1}"), response.len());
    }
    client.close();
    let truth = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() >= 40);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("embeddings 200", 40)]));
    assert_eq!(page.counter(REQUEST_BYTES).value(), truth.received);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), truth.sent);
    assert_eq!(page.counter(RETRANSMITS).value(), truth.retransmits);
    assert_eq!(page.histogram(TTFB).count(), 40);
}

#[test]
fn requests_and_answers_that_come_twice_are_one() {
    small_requests_are_exact(|_| ComesTwice);
}

#[test]
fn requests_and_answers_that_are_lost_and_sent_again_are_one() {
    small_requests_are_exact(|segment| if segment.nth % 8 == 1 { IsLost } else { Passes });
}

#[test]
fn a_request_whose_begin_arrives_late_is_exact_or_reported_lost() {
    // The begin of each request is overtaken by its own body, or lost, and sent again after it.
    let network = Network::new(0, |segment| match segment.payload.starts_with(b"POST ") {
        true if segment.nth.is_multiple_of(2) => IsLost,
        true => IsOvertakenBy(3),
        false => Passes,
    });
    let server = network.bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        for _ in 0..10 {
            peer.read_message();
            peer.write(&script);
        }
        Truth::of(peer)
    });
    let mut client = network.connect(&server);
    for _ in 0..10 {
        client.ask(post("/v1/embeddings", &get("/x").repeat(500)), response.len());
    }
    client.close();
    let truth = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() >= 10 || page.counter(LOST).value() > 0);
    let requests = page.counter(REQUESTS).by(["endpoint", "code"]);
    assert!(requests.keys().all(|labels| labels == "embeddings 200"), "none is invented: {requests:?}");
    assert!(page.requests() <= 10, "none is invented: {requests:?}");
    assert!(page.requests() == 10 || page.counter(LOST).value() > 0, "{} and none lost", page.requests());
    assert_eq!(page.counter(REQUEST_BYTES).value(), truth.received, "each byte once, whatever it means");
    assert_eq!(page.counter(RESPONSE_BYTES).value(), truth.sent);
}

/// One exchange of one segment each, after 20 ms: when the client asked, when the server had the request and answered.
fn one_exchange(network: &Network) -> (Agent, Stamp, Heard, Stamp, Truth) {
    let server = network.bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let length = response.len();
    let playing = server.serve(move |mut peer| {
        let heard = peer.read_message();
        pause(20);
        let answered = peer.write(response);
        (heard, answered, Truth::of(peer))
    });
    let mut client = network.connect(&server);
    let asked = client.ask(chat(), length);
    client.close();
    let (heard, answered, truth) = playing.truth();
    (agent, asked, heard, answered, truth)
}

#[test]
fn an_answer_that_is_lost_left_when_it_was_first_sent() {
    let network =
        Network::new(0, |segment| if segment.way == Way::ToClient && segment.nth == 1 { IsLost } else { Passes });
    let (agent, asked, heard, answered, truth) = one_exchange(&network);
    assert!(truth.retransmits > 0, "the answer was sent again");
    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    let span = asked.stretched_to(heard.at).until(answered);
    page.histogram(TTFB).assert_holds(&[span]);
    page.histogram(DURATION).assert_holds(&[span]);
    assert_eq!(page.counter(RETRANSMITS).value(), truth.retransmits);
}

#[test]
fn a_request_that_is_lost_came_when_it_arrived() {
    let network =
        Network::new(0, |segment| if segment.way == Way::ToServer && segment.nth == 1 { IsLost } else { Passes });
    let (agent, asked, heard, answered, truth) = one_exchange(&network);
    assert!(heard.at.after - asked.after > 100_000_000, "the client waited before it sent again");
    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    // It arrived shortly before the server read it; the time that the client lost is not the server's.
    let arrived = Stamp { before: heard.at.after - 20_000_000, after: heard.at.after };
    page.histogram(TTFB).assert_holds(&[arrived.until(answered)]);
    page.histogram(DURATION).assert_holds(&[arrived.until(answered)]);
    assert_eq!(page.counter(RETRANSMITS).value(), truth.retransmits, "the client's are not counted");
}

#[test]
fn round_trip_times_are_those_of_the_network() {
    const ONE_WAY_MS: u64 = 15;
    let network = Network::new(ONE_WAY_MS, |_| Passes);
    let server = network.bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        for _ in 0..10 {
            peer.read_message();
            peer.write(&script);
        }
        Truth::of(peer)
    });
    let mut client = network.connect(&server);
    for _ in 0..10 {
        client.ask(get("/v1/models"), response.len());
    }
    client.close();
    let truth = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 10);
    page.assert_nothing_lost();
    let rtt = page.histogram(RTT);
    assert!(rtt.count() >= 10, "a sample a response: {}", rtt.count());
    let mean_us = rtt.sum() / rtt.count() as f64 * 1e6;
    let (least, kernel) = (2.0 * ONE_WAY_MS as f64 * 1e3, truth.rtt_us as f64);
    assert!(mean_us > least * 0.95, "{mean_us} us is faster than the network's {least} us");
    assert!(mean_us < kernel * 1.5 && mean_us > kernel / 1.5, "{mean_us} us, but the kernel says {kernel} us");
    let faster = rtt.buckets().into_iter().find(|(le, _)| *le == 0.015625).expect("a bucket of 2^-6 s");
    assert_eq!(faster.1, 0, "no sample is below 15.6 ms");
    // The network's delay is not the server's: the request is counted from its arrival.
    let fast = Span { lo: 0, hi: 2 * ONE_WAY_MS * 1_000_000 };
    let ttfb = page.histogram(TTFB).sum() / 10.0;
    assert!(ttfb * 1e9 < fast.hi as f64, "{ttfb} s");
}
