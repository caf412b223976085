//! The same bytes mean the same however they are cut, and they mean what the reference says.

use proptest::prelude::*;

use citadel_agent_common::abi::{Lost, Side};
use citadel_agent_common::http::conn::PIPELINE;

use crate::conversation::{Bodies, Conversation, conversations};
use crate::recorder::{Observation, Steps, Tracked};
use crate::reference::{requests, responses, truth};
use crate::wire::{Choices, Wire, choices};

/// Sends all of a conversation and ends it; returns the tracker and when it ended.
fn run(wire: &Wire<'_>) -> (Tracked, u64) {
    run_in(wire, Steps::Two)
}

fn run_in(wire: &Wire<'_>, steps: Steps) -> (Tracked, u64) {
    let mut tracked = Tracked::new().in_steps(steps);
    wire.send_all(&mut tracked);
    tracked.close(true, Side::Server, wire.end());
    tracked.check();
    (tracked, wire.end())
}

/// Observations without times.
fn timeless(tracked: &Tracked) -> [Vec<Observation>; 2] {
    tracked.by_direction().map(|seen| {
        let without_time = |(_, observation)| match observation {
            Observation::Latency { which, endpoint, .. } => Observation::Latency { which, endpoint, ns: 0 },
            other => other,
        };
        seen.into_iter().map(without_time).collect()
    })
}

/// Compares what the tracker observes with the reference.
fn compare(conversation: &Conversation, choices: &Choices) -> Result<(), TestCaseError> {
    let requests = requests(&conversation.client);
    let responses = responses(&conversation.server, &requests);
    for (index, exchange) in conversation.exchanges.iter().enumerate() {
        prop_assert_eq!(exchange.request.end, requests[index].end, "the generator and httparse disagree");
        prop_assert_eq!(exchange.response.end, responses[index].end, "the generator and httparse disagree");
    }
    let wire = Wire::new(conversation, choices);
    let (tracked, close) = run(&wire);
    prop_assert_eq!(
        tracked.by_direction(),
        truth(|client, at| wire.time(client, at), &conversation.server, &requests, &responses, close)
    );
    prop_assert_eq!(tracked.bytes(), [conversation.client.len() as u64, conversation.server.len() as u64]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_tracker_observes_what_the_reference_says(
        conversation in conversations(5, Bodies::Any),
        choices in choices(false),
    ) {
        compare(&conversation, &choices)?;
    }

    #[test]
    fn bytes_that_come_again_change_nothing(
        conversation in conversations(4, Bodies::Any),
        choices in choices(true),
    ) {
        compare(&conversation, &choices)?;
    }

    #[test]
    fn observations_do_not_depend_on_the_segments(
        conversation in conversations(4, Bodies::Any),
        one in choices(false),
        other in choices(true),
    ) {
        let whole = Choices { client_sizes: vec![usize::MAX], server_sizes: vec![usize::MAX], ..one.clone() };
        let bytes = Choices { client_sizes: vec![1], server_sizes: vec![1], ..other.clone() };
        let (expected, _) = run(&Wire::new(&conversation, &one));
        for (choices, steps) in [(other, Steps::Eight), (whole, Steps::One), (bytes, Steps::One)] {
            let (tracked, _) = run_in(&Wire::new(&conversation, &choices), steps);
            prop_assert_eq!(timeless(&tracked), timeless(&expected));
            prop_assert_eq!(tracked.bytes(), expected.bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn sixteen_requests_can_be_under_way(
        conversation in conversations(PIPELINE, Bodies::Any),
        choices in choices(false),
    ) {
        compare(&conversation, &Choices { pipelined: true, ..choices })?;
    }
}

const MODELS: &[u8] = b"GET /v1/models HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// `count` requests at once, then their responses.
fn pipeline(count: usize, request: &[u8]) -> Tracked {
    let mut tracked = Tracked::new();
    tracked.client(1, &request.repeat(count), 10);
    tracked.server(1, &RESPONSE.repeat(count), 1, 20);
    tracked.check();
    tracked
}

#[test]
fn requests_beyond_the_pipeline_are_lost_and_said_to_be() {
    for count in [PIPELINE, PIPELINE + 1, 2 * PIPELINE + 3] {
        let mut tracked = pipeline(count, MODELS);
        let ended = |tracked: &Tracked| {
            tracked.observed().filter(|seen| matches!(seen, Observation::Completed { code: 200, .. })).count()
        };
        assert_eq!((tracked.begun(), ended(&tracked)), (PIPELINE as u64, PIPELINE));
        assert_eq!(tracked.lost(Lost::PipelineFull), (count - PIPELINE) as u64);
        assert_eq!(tracked.under_way(), 0);
        // When all of them are answered, requests are followed again.
        let seqs = [1 + (count * MODELS.len()) as u32, 1 + (count * RESPONSE.len()) as u32];
        tracked.client(seqs[0], &MODELS.repeat(2), 30);
        tracked.server(seqs[1], &RESPONSE.repeat(2), 1, 50);
        tracked.check();
        assert_eq!((tracked.begun(), ended(&tracked)), (PIPELINE as u64 + 2, PIPELINE + 2));
        assert_eq!((tracked.lost(Lost::PipelineFull), tracked.under_way()), ((count - PIPELINE) as u64, 0));
    }
}

const HEAD: &[u8] = b"HEAD /v1/models HTTP/1.1\r\n\r\n";
/// What follows depends on the request.
const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

/// Fills the pipeline, sends these requests besides, and then the responses to all; then one more request, and its response. Returns
/// the tracker after it.
fn beyond_the_pipeline(more: &[&[u8]]) -> Tracked {
    let mut tracked = Tracked::new();
    let requests = [&MODELS.repeat(PIPELINE)[..], &more.concat()].concat();
    let answers: Vec<_> = more.iter().map(|request| if *request == HEAD { RESPONSE_HEAD } else { RESPONSE }).collect();
    let responses = [&RESPONSE.repeat(PIPELINE)[..], &answers.concat()].concat();
    tracked.client(1, &requests, 10);
    tracked.server(1, &responses, 1, 20);
    tracked.client(1 + requests.len() as u32, MODELS, 30);
    tracked.server(1 + responses.len() as u32, RESPONSE, 1, 40);
    tracked.check();
    tracked
}

proptest! {
    /// What a response to HEAD has after its header depends on the request.
    #[test]
    fn heads_beyond_the_pipeline_are_remembered(heads in prop::collection::vec(any::<bool>(), 1..=64)) {
        let more: Vec<_> = heads.iter().map(|&head| if head { HEAD } else { MODELS }).collect();
        let tracked = beyond_the_pipeline(&more);
        prop_assert_eq!(tracked.begun(), PIPELINE as u64 + 1);
        prop_assert_eq!(tracked.lost(Lost::PipelineFull), heads.len() as u64);
        prop_assert_eq!(tracked.under_way(), 0);
        let completed = |seen: &Observation| matches!(seen, Observation::Completed { code: 200, .. });
        prop_assert_eq!(tracked.observed().filter(completed).count(), PIPELINE + 1);
    }
}

#[test]
fn a_connection_of_which_a_request_is_not_known_is_not_followed() {
    const CONNECT: &[u8] = b"CONNECT m:80 HTTP/1.1\r\n\r\n";
    let one_too_many = [&[MODELS; 64][..], &[HEAD]].concat();
    for more in [&one_too_many[..], &[CONNECT]] {
        let tracked = beyond_the_pipeline(more);
        assert_eq!((tracked.begun(), tracked.under_way()), (PIPELINE as u64, 0));
        assert!(tracked.lost(Lost::PipelineFull) >= more.len() as u64);
    }
    // As long as they are alike, it is known.
    for request in [MODELS, HEAD] {
        let tracked = beyond_the_pipeline(&[request; 200]);
        assert_eq!((tracked.begun(), tracked.under_way()), (PIPELINE as u64 + 1, 0));
        assert_eq!(tracked.lost(Lost::PipelineFull), 200);
    }
}
