//! Fuzzes the connection tracker with any sequence of events on a connection, and with one client's bytes split in two
//! ways.
//!
//! The driver and its invariants are those of the property tests.

#![no_main]

use arbitrary::Arbitrary;
use citadel_agent_common::abi::{Lost, Side};
use libfuzzer_sys::fuzz_target;

#[path = "../../citadel-agent-common/tests/tracker/operations.rs"]
mod operations;
#[path = "../../citadel-agent-common/tests/tracker/recorder.rs"]
mod recorder;

use operations::{Beginning, Operation, perform};
use recorder::{Observation, Steps, Tracked};

#[derive(Arbitrary, Debug)]
enum Happens {
    Client { offset: i16, bytes: Vec<u8> },
    ClientNext { bytes: Vec<u8> },
    Server { offset: i16, ack: i16, bytes: Vec<u8> },
    ServerNext { bytes: Vec<u8> },
    Overrun { bytes: Vec<u8> },
    ClientEnds,
    Close { orderly: bool, server: bool },
}

#[derive(Arbitrary, Debug)]
enum Input {
    Anything { client_seq: u32, server_seq: u32, joined: bool, handshake: bool, happens: Vec<Happens> },
    Client { sizes: [Vec<u8>; 2], bytes: Vec<u8> },
    Server { sizes: [Vec<u8>; 2], requests: u8, bytes: Vec<u8> },
}

/// The kernel programs go on with one step a call.
const STEPS: [Steps; 2] = [Steps::One, Steps::Eight];

fuzz_target!(|input: Input| match input {
    Input::Anything { client_seq, server_seq, joined, handshake, happens } => {
        let beginning = Beginning { client_seq, server_seq, joined, handshake: handshake && !joined };
        perform(beginning, &happens.into_iter().map(operation).collect::<Vec<_>>());
    }
    // Whether it may be TLS depends on a second byte, which may be missing: see `findings` of the property tests.
    Input::Client { bytes, .. } if first_of_line(&bytes).is_some_and(|first| (20..=23).contains(&first)) => {}
    Input::Client { sizes, bytes } => {
        let [one, other] = [0, 1].map(|which| until_loss(&client(&bytes, &sizes[which], STEPS[which])));
        assert_eq!(one, other, "the segments made a difference");
    }
    Input::Server { sizes, requests, bytes } => {
        let [one, other] = [0, 1].map(|which| server(requests, &bytes, &sizes[which], STEPS[which]).by_direction());
        assert_eq!(one, other, "the segments made a difference");
    }
});

fn operation(happens: Happens) -> Operation {
    match happens {
        Happens::Client { offset, bytes } => Operation::Client { offset, bytes },
        Happens::ClientNext { bytes } => Operation::Client { offset: 0, bytes },
        Happens::Server { offset, ack, bytes } => Operation::Server { offset, ack, bytes },
        Happens::ServerNext { bytes } => Operation::Server { offset: 0, ack: 0, bytes },
        Happens::Overrun { bytes } => Operation::Overrun { offset: 0, ack: 0, bytes },
        Happens::ClientEnds => Operation::ClientEnds,
        Happens::Close { orderly, server } => {
            Operation::Close { orderly, otherwise: if server { Side::Server } else { Side::Client } }
        }
    }
}

/// The first byte that is not part of an empty line.
fn first_of_line(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|byte| !b"\r\n".contains(byte))
}

/// Calls `send` with each segment of `bytes`; the sizes are used in turn.
fn cut(bytes: &[u8], sizes: &[u8], mut send: impl FnMut(u32, &[u8])) {
    let mut at = 0;
    let mut sizes = sizes.iter().map(|&size| usize::from(size).max(1)).cycle();
    while at < bytes.len() {
        let end = bytes.len().min(at + sizes.next().unwrap_or(bytes.len()));
        send(u32::MAX.wrapping_add(at as u32), &bytes[at..end]);
        at = end;
    }
}

fn client(bytes: &[u8], sizes: &[u8], steps: Steps) -> Tracked {
    let mut tracked = Tracked::new().in_steps(steps);
    cut(bytes, sizes, |seq, segment| tracked.client(seq, segment, 1));
    tracked.check();
    assert_eq!(tracked.bytes(), [bytes.len() as u64, 0]);
    tracked
}

/// A server that is known to speak HTTP: otherwise each segment may be the start of a connection.
fn server(requests: u8, bytes: &[u8], sizes: &[u8], steps: Steps) -> Tracked {
    let mut tracked = Tracked::new().in_steps(steps);
    let request = if requests & 1 == 0 { "GET / HTTP/1.1\r\n\r\n" } else { "HEAD /health HTTP/1.1\r\n\r\n" };
    tracked.client(1, request.repeat(usize::from(requests >> 1) % 16 + 1).as_bytes(), 1);
    let bytes = [b"HTTP/1.1 200\r\n", bytes].concat();
    cut(&bytes, sizes, |seq, segment| tracked.server(seq, segment, 1, 2));
    tracked.check();
    assert_eq!(tracked.bytes()[1], bytes.len() as u64);
    tracked
}

/// The observations before requests were lost: where the tracker resynchronizes depends on the segments.
fn until_loss(tracked: &Tracked) -> Vec<Observation> {
    let is_loss = |seen: &Observation| matches!(seen, Observation::Lost { why: Lost::RequestFraming, .. });
    let until = tracked.observed().position(|seen| is_loss(&seen)).map_or(usize::MAX, |at| at + 1);
    tracked.observed().take(until).collect()
}
