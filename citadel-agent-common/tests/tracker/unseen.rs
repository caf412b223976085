//! Responses of which a part is not parsed: there were not enough steps for a packet, or no program saw it.

use proptest::prelude::*;
use proptest::sample::Index;

use citadel_agent_common::abi::{Endpoint, Latency, Lost, Phase, Side};

use crate::conversation::{Bodies, conversations};
use crate::recorder::{Observation, Tracked};
use crate::reference::{requests, responses};
use crate::wire::{Choices, Wire, choices};

const CHAT: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const LAST: &str = "0\r\n\r\n";
const ENDPOINT: u32 = Endpoint::ChatCompletions as u32;

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn event() -> String {
    chunk("data: {\"choices\":[{\"delta\":{\"content\":\"t\"}}]}\n\n")
}

/// A server's side of a connection on which `requests` came.
struct Talk {
    tracked: Tracked,
    seq: u32,
}

impl Talk {
    fn new(requests: usize) -> Self {
        let mut tracked = Tracked::new();
        tracked.client(1, &CHAT.repeat(requests), 100);
        Self { tracked, seq: u32::MAX - 20 }
    }

    fn sends(&mut self, bytes: &str, now: u64) {
        self.tracked.server(self.seq, bytes.as_bytes(), 1, now);
        self.seq = self.seq.wrapping_add(bytes.len() as u32);
    }

    /// More than there are steps for.
    fn overruns(&mut self, bytes: &str, now: u64) {
        self.tracked.overrun::<4>(self.seq, bytes.as_bytes(), 1, now);
        self.seq = self.seq.wrapping_add(bytes.len() as u32);
    }

    /// Nobody sees it.
    const fn misses(&mut self, bytes: &str) {
        self.seq = self.seq.wrapping_add(bytes.len() as u32);
    }

    /// Codes and durations of the requests that ended.
    fn ended(&self) -> (Vec<u32>, Vec<u64>) {
        self.tracked.check();
        let code = |seen| if let Observation::Completed { code, .. } = seen { Some(code) } else { None };
        let duration = |seen| match seen {
            Observation::Latency { which: Latency::Duration, ns, .. } => Some(ns),
            _ => None,
        };
        (self.tracked.observed().filter_map(code).collect(), self.tracked.observed().filter_map(duration).collect())
    }

    fn assert_kept(&self, durations: &[u64]) {
        let (codes, seen) = self.ended();
        assert_eq!((codes, &seen[..]), (vec![200; durations.len()], durations));
        assert_eq!(self.tracked.lost(Lost::ResponseFraming), 0);
    }
}

#[test]
fn the_end_is_found_where_the_same_packet_ends() {
    let mut talk = Talk::new(1);
    talk.sends(STREAM, 110);
    let burst = event().repeat(20);
    talk.overruns(&(burst.clone() + LAST), 130);
    talk.assert_kept(&[30]);
    assert_eq!(talk.tracked.under_way(), 0);
    let count = |wanted: fn(&Observation) -> bool| talk.tracked.observed().filter(wanted).count() as u32;
    let seen = count(|seen| matches!(seen, Observation::Chunk { .. }));
    assert!((1..20).contains(&seen), "{seen} chunks");
    let unseen = (20 - seen) * event().len() as u32 + LAST.len() as u32;
    let of_unseen = |seen: &Observation| matches!(seen, Observation::Unseen { .. } | Observation::Unread { .. });
    assert_eq!(
        talk.tracked.observed().filter(of_unseen).collect::<Vec<_>>(),
        [Observation::Unseen { endpoint: ENDPOINT, bytes: unseen }, Observation::Unread { endpoint: ENDPOINT }]
    );
    assert_eq!(talk.tracked.bytes()[1], (STREAM.len() + burst.len() + LAST.len()) as u64);
}

#[test]
fn the_end_is_found_in_a_later_packet_however_it_is_cut() {
    for cut in 0..=LAST.len() {
        let mut talk = Talk::new(1);
        talk.sends(STREAM, 110);
        talk.overruns(&event().repeat(20), 120);
        talk.sends(&event(), 130);
        let (one, two) = LAST.split_at(cut);
        for (now, part) in [(140, one), (150, two)] {
            if !part.is_empty() {
                talk.sends(part, now);
            }
        }
        talk.assert_kept(&[if cut == LAST.len() { 40 } else { 50 }]);
    }
}

#[test]
fn a_packet_that_nobody_saw_loses_no_request() {
    let mut talk = Talk::new(2);
    talk.sends(STREAM, 110);
    talk.sends(&event(), 120);
    talk.misses(&event());
    talk.sends(&(event() + LAST), 140);
    // Of known length: the end is known too.
    talk.sends("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01", 150);
    talk.misses("2345");
    talk.sends("6789", 170);
    talk.assert_kept(&[40, 70]);
    assert_eq!(talk.tracked.under_way(), 0);
}

#[test]
fn the_next_response_shows_the_end() {
    let mut talk = Talk::new(2);
    talk.sends(STREAM, 110);
    talk.overruns(&event().repeat(20), 120);
    // Its trailers hide the end.
    talk.sends("0\r\nA: b\r\n\r\n", 130);
    talk.assert_kept(&[]);
    talk.sends(&(STREAM.to_owned() + &event()), 140);
    talk.assert_kept(&[30]);
    talk.sends(LAST, 150);
    talk.assert_kept(&[30, 50]);
}

#[test]
fn data_is_no_end() {
    for data in ["3\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
        let mut talk = Talk::new(1);
        talk.sends(STREAM, 110);
        talk.overruns(&event().repeat(20), 120);
        talk.sends(data, 130);
        talk.assert_kept(&[]);
        talk.sends(LAST, 140);
        talk.assert_kept(&[40]);
    }
}

#[test]
fn close_ends_it_and_a_reset_aborts_it() {
    for orderly in [true, false] {
        let mut talk = Talk::new(1);
        talk.sends(STREAM, 110);
        talk.overruns(&event().repeat(20), 120);
        talk.tracked.close(orderly, Side::Server, 200);
        let aborted = Observation::Aborted { endpoint: ENDPOINT, side: Side::Server, phase: Phase::Streaming };
        assert_eq!(talk.tracked.observed().any(|seen| seen == aborted), !orderly);
        talk.assert_kept(if orderly { &[20] } else { &[] });
        assert_eq!(talk.tracked.under_way(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whichever segments are not parsed to their end, no response is taken for another's, and each is accounted for.
    #[test]
    fn what_is_not_parsed_invents_nothing(
        conversation in conversations(4, Bodies::Bland),
        choices in choices(false),
        overruns in prop::collection::vec(any::<Index>(), 1..4),
    ) {
        let requests = requests(&conversation.client);
        let responses = responses(&conversation.server, &requests);
        let choices = Choices { pipelined: false, ..choices };
        let wire = Wire::new(&conversation, &choices);
        let mut tracked = Tracked::new();
        let overruns: Vec<_> = overruns.iter().map(|at| at.index(wire.segments.len())).collect();
        for at in 0..wire.segments.len() {
            if overruns.contains(&at) {
                wire.overrun(&mut tracked, at);
            } else {
                wire.send(&mut tracked, at..at + 1);
            }
            tracked.check();
        }
        tracked.close(true, Side::Server, wire.end());
        tracked.check();
        prop_assert_eq!(tracked.under_way(), 0);
        let codes: Vec<_> = responses.iter().map(|response| response.code).collect();
        let ended = tracked.observed().filter_map(|seen| match seen {
            Observation::Completed { code, .. } => Some(code),
            _ => None,
        });
        let mut left = codes.iter();
        for code in ended {
            prop_assert!(left.any(|expected| *expected == code), "{} is out of place among {:?}", code, codes);
        }
    }
}
