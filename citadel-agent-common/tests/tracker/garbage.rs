//! Anything at all: no panic, no endless loop, nothing invented, and the same however it is cut.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use citadel_agent_common::abi::{Lost, Protocol, Side};

use crate::conversation::{Bodies, conversations};
use crate::operations::{Beginning, Operation, perform};
use crate::recorder::{Observation, Tracked};
use crate::reference::{requests, responses, truth};
use crate::wire::{Choices, Wire, choices, seq, sizes};

/// Bytes that a parser takes for something now and then.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words: [&[u8]; 26] = [
        b"GET ",
        b"HEAD /v1/models",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"CONNECT h:1 HTTP/1.1\r\n\r\n",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101\r\n\r\n",
        b"HTTP/1.0 204 \n\n",
        b"Content-Length: ",
        b"content-length:5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"transfer-encoding: gzip\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"ffffffffffffff\r\n",
        b"17",
        b"\x16\x03\x01\x02\x00",
        b"\x00\x01",
        b"x",
    ];
    let word = prop_oneof![6 => select(words.to_vec()).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 1..30)];
    vec(word, 0..12).prop_map(|words| words.concat())
}

fn operation() -> impl Strategy<Value = Operation> {
    let offset = || prop_oneof![6 => Just(0i16), 2 => -40i16..40, 1 => any::<i16>()];
    prop_oneof![
        8 => (offset(), soup()).prop_map(|(offset, bytes)| Operation::Client { offset, bytes }),
        8 => (offset(), offset(), soup()).prop_map(|(offset, ack, bytes)| Operation::Server { offset, ack, bytes }),
        2 => (offset(), offset(), soup()).prop_map(|(offset, ack, bytes)| Operation::Overrun { offset, ack, bytes }),
        1 => Just(Operation::ClientEnds),
        1 => any::<(bool, bool)>().prop_map(|(orderly, server)| {
            Operation::Close { orderly, otherwise: if server { Side::Server } else { Side::Client } }
        }),
    ]
}

fn beginning() -> impl Strategy<Value = Beginning> {
    (seq(), seq(), any::<(bool, bool)>()).prop_map(|(client_seq, server_seq, (joined, handshake))| Beginning {
        client_seq,
        server_seq,
        joined,
        handshake: handshake && !joined,
    })
}

/// Sends bytes in segments of these sizes.
fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = (u32, &'a [u8])> {
    let mut at = 0;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let end = at + sizes.next()?.min(&(bytes.len() - at));
        let segment = (at as u32, &bytes[at..end]);
        at = end;
        (!segment.1.is_empty()).then_some(segment)
    })
}

/// A connection whose client sends these bytes in order.
fn client(bytes: &[u8], sizes: &[usize]) -> Tracked {
    let mut tracked = Tracked::new();
    for (at, segment) in cut(bytes, sizes) {
        tracked.client(u32::MAX.wrapping_add(at), segment, u64::from(at));
        tracked.check();
    }
    tracked
}

/// A connection on which these requests came, and whose server sends these bytes in order.
fn server(requests: &[&str], bytes: &[u8], sizes: &[usize]) -> Tracked {
    let mut tracked = Tracked::new();
    tracked.client(1, requests.concat().as_bytes(), 1);
    for (at, segment) in cut(bytes, sizes) {
        tracked.server(u32::MAX.wrapping_add(at), segment, 1, 2);
        tracked.check();
    }
    tracked
}

/// What was observed before requests were lost for the first time: where they are found again depends on the segments.
fn before_loss(tracked: &Tracked) -> (Vec<Observation>, bool) {
    let mut lost = false;
    let seen = tracked.observed().take_while(|seen| {
        lost = matches!(seen, Observation::Lost { why: Lost::RequestFraming, .. });
        !lost
    });
    (seen.collect(), lost)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_the_accounts_are_right(
        beginning in beginning(),
        operations in vec(operation(), 0..20),
    ) {
        perform(beginning, &operations);
    }

    #[test]
    fn any_client_is_the_same_however_its_bytes_are_cut(bytes in soup(), one in sizes(), other in sizes()) {
        // See `findings`.
        let first = bytes.iter().find(|byte| !b"\r\n".contains(byte));
        prop_assume!(!first.is_some_and(|first| (20..=23).contains(first)));
        let (one, other) = (client(&bytes, &one), client(&bytes, &other));
        prop_assert_eq!(before_loss(&one), before_loss(&other));
        let counted = bytes.len() as u64;
        prop_assert_eq!((one.bytes(), other.bytes()), ([counted, 0], [counted, 0]));
    }

    #[test]
    fn any_server_is_the_same_however_its_bytes_are_cut(
        requests in vec(select(vec![
            "GET /v1/models HTTP/1.1\r\n\r\n",
            "HEAD /health HTTP/1.1\r\n\r\n",
            "CONNECT h:1 HTTP/1.1\r\n\r\n",
            "POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel",
        ]), 1..4),
        bytes in soup(),
        (one, other) in (sizes(), sizes()),
    ) {
        let status = [b"HTTP/1.1 200 OK\r\n".to_vec(), bytes].concat();
        let (one, other) = (server(&requests, &status, &one), server(&requests, &status, &other));
        prop_assert_eq!(one.by_direction(), other.by_direction());
        prop_assert_eq!(one.bytes(), other.bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_no_http_1_is_no_request(
        (start, protocol) in select(vec![
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Protocol::Http2),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Protocol::Tls),
            (b"\x15\x03\x03\x00\x02", Protocol::Tls),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Other),
            (b"GET / HTTP/2.0\r\n", Protocol::Other),
            (b"GET /\r\n", Protocol::Other),
            (b"get / HTTP/1.1\r\n", Protocol::Other),
            (b"\x00", Protocol::Other),
        ]),
        rest in vec(any::<u8>(), 0..300),
        request_follows in any::<bool>(),
        sizes in vec(2usize..40, 1..6),
    ) {
        let request = if request_follows { &b"GET /v1/models HTTP/1.1\r\n\r\n"[..] } else { b"" };
        let tracked = client(&[start, &rest, request].concat(), &sizes);
        prop_assert_eq!(tracked.observed().collect::<Vec<_>>(), [Observation::Protocol(protocol)]);
    }

    #[test]
    fn a_joined_connection_is_exact_from_the_next_request_on(
        conversation in conversations(4, Bodies::Bland),
        choices in choices(false),
        at in any::<Index>(),
    ) {
        let requests = requests(&conversation.client);
        let responses = responses(&conversation.server, &requests);
        let choices = Choices { pipelined: false, ..choices };
        let wire = Wire::new(&conversation, &choices);
        let inside_a_request_line = |at: usize| {
            let [sent, _] = wire.sent_before(at);
            requests.iter().any(|request| request.start < sent && sent < request.line_end)
        };
        // The rest of a request line can be a request line.
        let at = (at.index(wire.segments.len())..).find(|&at| !inside_a_request_line(at)).expect("the end at least");
        let [from_client, _] = wire.sent_before(at);
        let next = requests.iter().position(|request| from_client <= request.start).unwrap_or(requests.len());
        let mut tracked = Tracked::joined();
        wire.send(&mut tracked, at..wire.segments.len());
        tracked.close(true, Side::Server, wire.end());
        tracked.check();
        let time = |client, at| wire.time(client, at);
        prop_assert_eq!(tracked.by_direction(), truth(time, &conversation.server, &requests[next..], &responses[next..], wire.end()));
    }
}

#[test]
fn a_server_may_send_what_nobody_asked_for() {
    let mut tracked = Tracked::new();
    tracked.client(1, b"GET /health HTTP/1.1\r\n\r\n", 10);
    tracked.server(1, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 24, 20);
    tracked.server(39, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", 24, 30);
    tracked.close(true, Side::Server, 40);
    tracked.check();
    assert_eq!((tracked.begun(), tracked.under_way()), (1, 0));
    assert_eq!(tracked.observed().filter(|seen| matches!(seen, Observation::Completed { .. })).count(), 1);
    assert_eq!(tracked.lost(Lost::ResponseFraming), 0);
}

#[test]
fn after_an_upgrade_bytes_are_only_counted() {
    for (request, response) in [
        ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("CONNECT h:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let tunnelled = "GET / HTTP/1.1\r\n\r\n";
        let mut tracked = Tracked::new();
        tracked.client(1, request.as_bytes(), 10);
        tracked.server(1, response.as_bytes(), 1, 20);
        tracked.client(1 + request.len() as u32, tunnelled.as_bytes(), 30);
        tracked.server(1 + response.len() as u32, b"HTTP/1.1 200 OK\r\n\r\n", 1, 40);
        tracked.check();
        assert_eq!((tracked.begun(), tracked.under_way()), (1, 0));
        let protocols = tracked.observed().filter(|seen| matches!(seen, Observation::Protocol(_)));
        let expected = [Protocol::Http1, Protocol::Upgraded].map(Observation::Protocol);
        assert_eq!(protocols.collect::<Vec<_>>(), expected);
        assert_eq!(tracked.bytes(), [(request.len() + tunnelled.len()) as u64, response.len() as u64 + 19]);
    }
}
