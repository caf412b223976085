//! A connection that ends at any point: each request that began is accounted for, with the phase it was in.

use proptest::prelude::*;
use proptest::sample::Index;

use citadel_agent_common::abi::{Phase, Protocol, Side};

use crate::conversation::{Bodies, conversations};
use crate::recorder::{Observation, Tracked};
use crate::reference::{Request, Response, requests, responses};
use crate::stream::Stream;
use crate::wire::{Wire, choices};

/// How far a response has come when `sent` of the server's bytes have left; `None` before its first byte.
fn response_phase(response: &Response, server: &[u8], sent: usize) -> Option<Phase> {
    let begun = response.starts.iter().rposition(|&start| start < sent)?;
    if response.starts.get(begun + 1) == Some(&sent) {
        // Just after an interim response.
        return None;
    }
    let come = response.body.iter().filter(|&&at| at < sent).count();
    Some(match response.data.first() {
        Some(_) if response.streamed && Stream::read(&response.content(server)[..come]).failed => Phase::Error,
        Some(&first) if first < sent && response.streamed => Phase::Streaming,
        Some(&first) if first < sent => Phase::Body,
        _ => Phase::Headers,
    })
}

/// Which requests are aborted when the connection ends after so many bytes: endpoint and phase.
fn aborted(
    requests: &[Request],
    responses: &[Response],
    server: &[u8],
    sent: [usize; 2],
    orderly: bool,
) -> Vec<(u32, Phase)> {
    let [from_client, from_server] = sent;
    let pairs = requests.iter().zip(responses).filter(|(request, response)| {
        let begun = request.line_end <= from_client;
        let ended = if response.until_close {
            orderly && response.head_end <= from_server
        } else {
            response.end <= from_server
        };
        let failed = ended && response.streamed && Stream::read(&response.content(server)).failed;
        begun && (!ended || failed)
    });
    let phases = pairs.map(|(request, response)| {
        let waiting = if request.end <= from_client { Phase::Waiting } else { Phase::Request };
        (request.endpoint, response_phase(response, server, from_server).unwrap_or(waiting))
    });
    phases.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_connection_that_ends_accounts_for_each_request(
        conversation in conversations(4, Bodies::Any),
        choices in choices(true),
        at in any::<Index>(),
        (orderly, client_first, server) in any::<(bool, bool, bool)>(),
    ) {
        let requests = requests(&conversation.client);
        let responses = responses(&conversation.server, &requests);
        let wire = Wire::new(&conversation, &choices);
        let at = at.index(wire.segments.len() + 1);
        let mut tracked = Tracked::new();
        wire.send(&mut tracked, 0..at);
        if client_first {
            tracked.client_ends();
        }
        tracked.close(orderly, if server { Side::Server } else { Side::Client }, wire.end());
        // The socket's last state change comes after the packets that ended it.
        tracked.end(Side::Client, wire.end());
        tracked.check();
        let sent = wire.sent_before(at);
        let side = if client_first || !server { Side::Client } else { Side::Server };
        let expected: Vec<_> = aborted(&requests, &responses, &conversation.server, sent, orderly)
            .into_iter()
            .map(|(endpoint, phase)| {
                let side = if phase == Phase::Error { Side::Server } else { side };
                Observation::Aborted { endpoint, side, phase }
            })
            .collect();
        let seen: Vec<_> = tracked.observed().filter(|seen| matches!(seen, Observation::Aborted { .. })).collect();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(tracked.begun(), requests.iter().filter(|request| request.line_end <= sent[0]).count() as u64);
        prop_assert_eq!(tracked.under_way(), 0);
    }
}

/// What reaches a connection after its end, because another CPU was about to process it.
#[test]
fn what_arrives_after_the_end_leaves_no_trace() {
    let request = b"GET /v1/models HTTP/1.1\r\n\r\n";
    let mut tracked = Tracked::new();
    tracked.end(Side::Server, 1);
    tracked.client(0, request, 2);
    assert_eq!(tracked.observed().collect::<Vec<_>>(), [Observation::Protocol(Protocol::Other)]);

    let mut tracked = Tracked::new();
    tracked.client(0, request, 1);
    tracked.end(Side::Server, 2);
    tracked.client(request.len() as u32, request, 3);
    assert_eq!(tracked.begun(), 1);
    assert_eq!(tracked.observed().filter(|seen| matches!(seen, Observation::Aborted { .. })).count(), 1);
    tracked.check();
}
