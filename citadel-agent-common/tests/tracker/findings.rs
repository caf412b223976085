//! What the properties found: one minimal case each, so that it stays mended.

use citadel_agent_common::abi::{Endpoint, Lost, Phase, Side};

use crate::recorder::{Observation, Tracked};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\n\r\n";
const MODELS: &[u8] = b"GET /v1/models HTTP/1.1\r\n\r\n";
const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn ended(tracked: &Tracked) -> Vec<Observation> {
    tracked.observed().filter(|seen| matches!(seen, Observation::Completed { .. })).collect()
}

fn ended_well(endpoint: Endpoint) -> Observation {
    Observation::Completed { endpoint: endpoint as u32, code: 200 }
}

/// The second byte of a one-byte segment is not there to be looked at.
#[test]
fn a_first_byte_alone_shows_the_same_protocol() {
    for bytes in [&b"\x16\x03\x01"[..], b"\x14\x00", b"\x17\x04"] {
        let (mut whole, mut cut) = (Tracked::new(), Tracked::new());
        whole.client(1, bytes, 1);
        cut.client(1, &bytes[..1], 1);
        cut.client(2, &bytes[1..], 2);
        assert!(whole.observed().eq(cut.observed()), "{bytes:?}");
    }
}

/// A reset that another CPU sees while the server still sends.
#[test]
fn a_response_that_goes_on_after_the_connection_ended_ends_nothing() {
    let mut tracked = Tracked::new();
    tracked.client(1, MODELS, 1);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}";
    tracked.server(1, head, 1, 2);
    tracked.close(false, Side::Client, 3);
    tracked.server(1 + head.len() as u32, b"{}", 1, 4);
    tracked.check();
    let phase = Phase::Body;
    let aborted = Observation::Aborted { endpoint: Endpoint::Models as u32, side: Side::Client, phase };
    assert!(tracked.observed().any(|seen| seen == aborted));
    assert_eq!((ended(&tracked), tracked.under_way()), (vec![], 0));
}

/// Else every response of the connection is taken for that of the request before.
#[test]
fn a_first_response_that_is_no_http_takes_no_later_one_for_its_own() {
    let mut tracked = Tracked::new();
    tracked.client(1, HEALTH, 1);
    tracked.server(1, b"oops\r\n", 25, 2);
    tracked.client(25, MODELS, 3);
    tracked.server(7, EMPTY, 52, 4);
    tracked.check();
    assert_eq!(ended(&tracked), [ended_well(Endpoint::Models)]);
    assert_eq!((tracked.lost(Lost::ResponseFraming), tracked.under_way()), (1, 0));
}

/// The handshake was seen, so the unseen bytes were somebody's.
#[test]
fn a_first_request_out_of_order_is_said_to_be_lost() {
    let mut tracked = Tracked::new();
    tracked.expect_first(1);
    tracked.client(9, &HEALTH[8..], 1);
    tracked.client(1, &HEALTH[..8], 2);
    tracked.check();
    assert_eq!((tracked.begun(), tracked.lost(Lost::RequestFraming)), (0, 1));
}

/// The rest of a lost request's body, which has no line end, is not the beginning of the next request's line.
#[test]
fn the_request_after_a_lost_one_is_read() {
    for body in ["hello", "HELLO"] {
        let mut tracked = Tracked::new();
        tracked.expect_first(1);
        let head = b"POST /v1/rerank HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
        let (body_seq, end) = (1 + head.len() as u32, 11 + head.len() as u32);
        tracked.client(31, &head[30..], 1);
        tracked.client(1, &head[..30], 2);
        tracked.client(31, &head[30..], 3);
        tracked.client(body_seq, body.as_bytes(), 4);
        tracked.client(body_seq + 5, body.as_bytes(), 5);
        tracked.server(1, EMPTY, end, 6);
        tracked.client(end, HEALTH, 7);
        tracked.server(1 + EMPTY.len() as u32, EMPTY, end + 24, 8);
        tracked.check();
        assert_eq!(ended(&tracked).last(), Some(&ended_well(Endpoint::Health)), "{body}");
        assert_eq!(tracked.under_way(), 0);
    }
}

/// Sequence numbers come round again after 4 GiB.
#[test]
fn an_early_range_is_forgotten_once_it_was_reached() {
    let head = b"PUT /v1/files HTTP/1.1\r\nContent-Length: 6000000000\r\n\r\n";
    let mut tracked = Tracked::new();
    tracked.client(0, head, 1);
    let next = head.len() as u32;
    tracked.client(next + 10, b"early", 2);
    tracked.client(next, b"0123456789", 3);
    let mut sent = u64::from(next) + 15;
    let interim = b"HTTP/1.1 100\r\n\r\n";
    for (round, gap) in [1 << 30, 1 << 30, 1 << 30, (1 << 30) - 8].into_iter().enumerate() {
        // Nobody sees a gigabyte go by, but the server acknowledges it.
        sent += gap;
        tracked.server((round * interim.len()) as u32, interim, sent as u32, 4);
        tracked.client(sent as u32, b"x", 5);
        sent += 1;
    }
    tracked.check();
    // Three bytes into where the early range was.
    tracked.client(sent as u32, b"x", 6);
    assert_eq!(tracked.bytes()[0], sent + 1);
}

/// Four ranges are remembered, even if one of them comes again once there is room.
#[test]
fn an_early_range_that_comes_again_takes_no_more_room() {
    let head = b"PUT /v1/files HTTP/1.1\r\nContent-Length: 100\r\n\r\n";
    let mut tracked = Tracked::new();
    tracked.client(0, head, 1);
    let body = head.len() as u32;
    tracked.client(body + 10, &[b'x'; 10], 2);
    tracked.client(body + 30, &[b'x'; 10], 3);
    tracked.client(body, &[b'x'; 10], 4);
    for from in [30, 50, 70, 90] {
        tracked.client(body + from, &[b'x'; 10], 5);
    }
    assert_eq!(tracked.lost(Lost::RequestFraming), 0);
    for from in [20, 40, 60, 80] {
        tracked.client(body + from, &[b'x'; 10], 6);
    }
    assert_eq!(tracked.bytes()[0], head.len() as u64 + 100);
}

/// Ranges that have grown together are one.
#[test]
fn an_early_range_that_joins_two_makes_them_one() {
    let head = b"PUT /v1/files HTTP/1.1\r\nContent-Length: 100\r\n\r\n";
    let mut tracked = Tracked::new();
    tracked.client(0, head, 1);
    let body = head.len() as u32;
    for from in [10, 30, 20, 50, 70, 90] {
        tracked.client(body + from, &[b'x'; 10], 2);
    }
    assert_eq!(tracked.lost(Lost::RequestFraming), 0);
}

/// An obsolete line folding (RFC 9112, section 5.2), whole and cut anywhere.
#[test]
fn a_folded_coding_is_one_field() {
    for (fields, body) in [
        ("Transfer-Encoding: gzip,\r\n chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
        ("transfer-encoding:\r\n\tCHUNKED \r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n \r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip,\r\n \r\n chunked\r\n", "0\r\n\r\n"),
        // Of another field.
        ("Transfer-Encoding: chunked\r\nX: a,\r\n gzip\r\n", "0\r\n\r\n"),
        ("Content-Length: 2\r\nX: a\r\n chunked\r\n", "{}"),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        for cut in 1..=response.len() {
            let mut tracked = Tracked::new();
            tracked.client(1, MODELS, 1);
            let (one, two) = response.split_at(cut);
            tracked.server(1, one.as_bytes(), 28, 2);
            if !two.is_empty() {
                tracked.server(1 + cut as u32, two.as_bytes(), 28, 3);
            }
            tracked.client(28, HEALTH, 4);
            tracked.server(1 + response.len() as u32, EMPTY, 52, 5);
            tracked.check();
            let both = [ended_well(Endpoint::Models), ended_well(Endpoint::Health)];
            assert_eq!(ended(&tracked), both, "{fields:?} cut at {cut}");
        }
    }
}

/// The coding that is not last ends the body with the connection.
#[test]
fn a_folded_coding_that_is_not_chunked_extends_to_the_close() {
    let mut tracked = Tracked::new();
    tracked.client(1, MODELS, 1);
    tracked.server(1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n gzip\r\n\r\n0\r\n\r\n", 28, 2);
    assert_eq!(ended(&tracked), []);
    tracked.close(true, Side::Server, 3);
    assert_eq!(ended(&tracked), [ended_well(Endpoint::Models)]);
}
