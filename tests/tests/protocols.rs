//! What is no HTTP/1.x: connections and bytes are counted, requests are never guessed.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, event, get};
use citadel_agent_tests::names::{
    ABORTED, CHUNKS, CONNECTIONS, IN_FLIGHT, OPEN, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES,
};
use citadel_agent_tests::names::{DURATION, TTFB};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::pause;

/// RFC 9113, section 3.4, and an empty SETTINGS frame.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A SETTINGS frame of a server and its acknowledgement.
const HTTP2_SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// The begin of a TLS 1.3 ClientHello (RFC 8446, section 4.1.2) in a record of 512 bytes.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    hello.extend((0..506u32).map(|i| (i * 37 % 256) as u8));
    hello
}

/// Opens a connection, sends `request`, gets `response`, and closes.
fn talk(server: &Server, request: &[u8], response: &'static [u8]) {
    let length = request.len();
    let playing = server.serve(move |mut peer| {
        peer.read(length);
        peer.write(response);
        peer.read_to_end();
    });
    let mut client = server.connect();
    client.ask(request, response.len());
    client.close();
    playing.truth();
}

/// Holds the page of an agent that saw one connection of another protocol.
fn no_request_is_invented(protocol: &str, request: &[u8], response: &'static [u8]) {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    talk(&server, request, response);
    let page = assert_eventually!(agent, |page| page.counter(CONNECTIONS).value() == 1);
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([(protocol, 1)]));
    page.assert_no_request_invented();
    assert_eq!(page.counter(REQUEST_BYTES).value(), request.len() as u64);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), response.len() as u64);
    assert_eq!(page.gauge(OPEN).value(), 0);
}

#[test]
fn http2_with_prior_knowledge_is_http2() {
    no_request_is_invented("http2", HTTP2_PREFACE, HTTP2_SETTINGS);
}

#[test]
fn a_client_hello_is_tls() {
    no_request_is_invented("tls", &client_hello(), &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]);
}

#[test]
fn noise_is_other() {
    no_request_is_invented("other", &[0, 1, 2, 3, 0xff, 0xfe, 13, 10, 13, 10, 0, 0, 0], b"\0\0HTTP?");
}

#[test]
fn words_that_are_no_request_are_other() {
    no_request_is_invented("other", b"HELO mail.example.org\r\n\r\n", b"250 hello\r\n");
}

#[test]
fn an_answer_to_noise_that_looks_like_http_is_no_request() {
    // What real servers say to a TLS hello or to noise.
    no_request_is_invented(
        "other",
        b"\x03\0\0\x13\x0e\xe0\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    );
}

#[test]
fn a_port_scan_is_a_connection_without_a_request() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    for _ in 0..3 {
        let playing = server.serve(|mut peer| peer.read_to_end().bytes);
        server.connect().close();
        assert!(playing.truth().is_empty());
    }
    let playing = server.serve(|mut peer| peer.read_to_end().bytes);
    server.connect().reset();
    assert!(playing.truth().is_empty());

    let page = assert_eventually!(agent, |page| page.counter(CONNECTIONS).value() == 4);
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("other", 4)]));
    page.assert_no_request_invented();
    assert_eq!(page.counter(REQUEST_BYTES).value() + page.counter(RESPONSE_BYTES).value(), 0);
    assert_eq!(page.gauge(OPEN).value(), 0);
}

#[test]
fn protocols_on_one_port_are_told_apart() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    talk(&server, HTTP2_PREFACE, HTTP2_SETTINGS);
    talk(&server, &client_hello(), b"\x15\x03\x03\0\x02\x02\x28");
    talk(&server, b"\xff\xff\xff\xff", b"?");
    talk(&server, get("/v1/models").as_bytes(), b"HTTP/1.1 204 No Content\r\n\r\n");
    talk(&server, get("/health").as_bytes(), b"HTTP/1.1 204 No Content\r\n\r\n");

    let page = assert_eventually!(agent, |page| page.counter(CONNECTIONS).value() == 5);
    let expected = sums([("http1", 2), ("http2", 1), ("tls", 1), ("other", 1)]);
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), expected);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 204", 1), ("health 204", 1)]));
    assert_eq!(page.counter(ABORTED).value(), 0);
}

#[test]
fn a_preface_or_hello_in_two_segments_is_still_known() {
    for (protocol, bytes) in [("http2", HTTP2_PREFACE.to_vec()), ("tls", client_hello())] {
        let server = Server::bind();
        let agent = Agent::measuring(server.port());
        let length = bytes.len();
        let playing = server.serve(move |mut peer| {
            peer.read(length);
            peer.read_to_end();
        });
        let mut client = server.connect();
        client.write(&bytes[..2]);
        pause(10);
        client.write(&bytes[2..]);
        client.close();
        playing.truth();
        let page = assert_eventually!(agent, |page| page.counter(CONNECTIONS).value() == 1);
        assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([(protocol, 1)]));
        page.assert_no_request_invented();
    }
}

#[test]
fn an_upgrade_is_one_request_with_code_101_and_then_bytes() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    // After the switch, whatever it looks like, it is another protocol.
    let frames = STREAM_HEAD.to_owned() + &event("a") + LAST_CHUNK + &answer("200 OK", "{}");
    let expected = frames.len();
    let script = frames.clone();
    let playing = server.serve(move |mut peer| {
        peer.read_head();
        pause(15);
        let switched = peer.write(switching);
        peer.read_head();
        peer.write(script);
        peer.read_to_end();
        switched
    });
    let mut client = server.connect();
    let upgrade = "GET /v1/realtime HTTP/1.1\r\nHost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let asked = client.ask(upgrade, switching.len());
    client.ask(get("/v1/models"), expected);
    let (sent, received) = (client.sent, client.received);
    client.close();
    let switched = playing.truth();

    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0 && page.requests() > 0);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("other 101", 1)]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 1), ("upgraded", 1)]));
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    assert_eq!(page.counter(CHUNKS).value(), 0);
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
    page.histogram(TTFB).assert_holds(&[asked.until(switched)]);
    page.histogram(DURATION).assert_holds(&[asked.until(switched)]);
    assert_eq!(page.counter(REQUEST_BYTES).value(), sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), received);
}

#[test]
fn traffic_on_other_ports_is_not_counted() {
    let (server, other) = (Server::bind(), Server::bind());
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let playing = other.answer_each(vec![(0, response.clone()); 10]);
    let mut stranger = other.connect();
    for _ in 0..10 {
        stranger.ask(chat(), response.len());
    }
    playing.truth();
    // A client's own port may be anything, even the number of a model's port on another host.
    let playing = server.answer_each(vec![(0, response.clone())]);
    let mut client: Peer = server.connect();
    client.ask(get("/v1/models"), response.len());
    playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.counter(REQUESTS).by(["port"]), sums([(&server.port().to_string(), 1)]));
    assert_eq!(page.counter(CONNECTIONS).value(), 1);
    assert_eq!(page.counter(REQUEST_BYTES).value(), client.sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), client.received);
    assert_eq!(page.counter(CONNECTIONS).label("port", &other.port().to_string()).value(), 0);
}
