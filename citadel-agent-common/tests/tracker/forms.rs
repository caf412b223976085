//! The forms in which engines stream: which of their events carry output.

use citadel_agent_common::abi::{Endpoint, Latency, Phase, Side};

use crate::recorder::{Observation, Tracked};

/// What a stream of these pieces shows: events with output, those without, unread, and when its first token came; a piece each millisecond, in
/// a chunk of its own.
fn streamed(pieces: &[&str]) -> (usize, usize, usize, Option<u64>) {
    let mut tracked = Tracked::new();
    tracked.client(1, b"POST /v1/responses HTTP/1.1\r\n\r\n", 0);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let chunk = |piece: &&str| format!("{:x}\r\n{piece}\r\n", piece.len());
    let writes = [head].into_iter().chain(pieces.iter().map(chunk)).chain(["0\r\n\r\n".to_owned()]);
    let mut seq = 1;
    for (ms, bytes) in writes.enumerate() {
        tracked.server(seq, bytes.as_bytes(), 1, ms as u64);
        seq += bytes.len() as u32;
    }
    tracked.check();
    let count = |wanted: fn(&Observation) -> bool| tracked.observed().filter(wanted).count();
    let first = tracked.observed().find_map(|seen| match seen {
        Observation::Latency { which: Latency::FirstToken, ns, .. } => Some(ns),
        _ => None,
    });
    (
        count(|seen| matches!(seen, Observation::Event { output: true, .. })),
        count(|seen| matches!(seen, Observation::Event { output: false, .. })),
        count(|seen| matches!(seen, Observation::Unread { .. })),
        first,
    )
}

/// A form's name, the pieces of a stream, and what it shows.
type Form<'a> = (&'a str, &'a [&'a str], (usize, usize, usize, Option<u64>));

#[test]
fn each_engines_form_is_known() {
    let forms: [Form<'_>; 12] = [
        (
            "chat",
            &[
                "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
                "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
                "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\\"b\"}}]}\n\n",
                "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
                "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":6}}\n\n",
                "data: [DONE]\n\n",
            ],
            (2, 4, 0, Some(2)),
        ),
        (
            "chat with a tool call and reasoning",
            &[
                "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"\"}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"t\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{\\\"\"}}]}}]}\n\n",
            ],
            (2, 2, 0, Some(2)),
        ),
        (
            "audio",
            &["data: {\"choices\":[{\"delta\":{\"audio\":{\"id\":\"a\",\"data\":\"UklG\"}}}]}\n\n"],
            (1, 0, 0, Some(1)),
        ),
        (
            "completions",
            &[
                "data: {\"choices\":[{\"index\":0,\"text\":\"\"}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"text\":\"x\"}]}\n\n",
            ],
            (1, 1, 0, Some(2)),
        ),
        (
            "responses",
            &[
                "event: response.created\ndata: {\"response\":{\"id\":\"r\",\"error\":null,\"output\":[]}}\n\n",
                ": ping\n\n",
                "event: response.output_item.added\ndata: {\"item\":{\"content\":[],\"role\":\"assistant\"}}\n\n",
                "event: response.output_text.delta\ndata: {\"content_index\":0,\"delta\":\"di\",\"item_id\":\"m\"}\n\n",
                "event: response.output_text.done\ndata: {\"content_index\":0,\"item_id\":\"m\",\"text\":\"di\"}\n\n",
                "event: response.output_item.done\ndata: {\"item\":{\"id\":\"m\",\"content\":[{\"text\":\"di\"}]}}\n\n",
            ],
            (1, 4, 0, Some(4)),
        ),
        (
            "messages",
            &[
                "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\r\n\r\n",
                "event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n",
                "event: content_block_start\r\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\r\n\r\n",
                "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"O\"}}\r\n\r\n",
                "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\"}}\r\n\r\n",
                "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\r\n\r\n",
            ],
            (2, 4, 0, Some(4)),
        ),
        (
            "llama.cpp",
            &[
                "data: {\"index\":0,\"content\":\"w\",\"stop\":false}\n\n",
                "data: {\"index\":0,\"content\":\"\",\"stop\":true}\n\n",
            ],
            (1, 1, 0, Some(1)),
        ),
        (
            "TGI",
            &[
                "data:{\"index\":1,\"token\":{\"id\":264,\"text\":\" a\",\"logprob\":-1.2,\"special\":false},\"generated_text\":null}\n\n",
            ],
            (1, 0, 0, Some(1)),
        ),
        (
            "Ollama",
            &[
                "{\"model\":\"m\",\"created_at\":\"2026-11-30T12:00:00.1Z\",\"message\":{\"role\":\"assistant\",\"content\":\"The\"},\"done\":false}\n",
                "{\"model\":\"m\",\"created_at\":\"2026-11-30T12:00:00.12Z\",\"message\":{\"role\":\"assistant\",\"content\":\" sky\"},\"done\":false}\n",
                "{\"model\":\"m\",\"created_at\":\"2026-11-30T12:00:00.13Z\",\"response\":\"x\",\"done\":false}\n",
                "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true}\n",
            ],
            (3, 1, 0, Some(1)),
        ),
        (
            "Triton",
            &["data: {\"model_name\":\"ensemble\",\"sequence_end\":false,\"text_output\":\"x\"}\n\n"],
            (1, 0, 0, Some(1)),
        ),
        ("SGLang", &["data: {\"text\": \" x\", \"meta_info\": {}}\n\n", "data: [DONE]\n\n"], (1, 1, 0, Some(1))),
        ("no known one", &["data: {\"t\":\"x\"}\n\n", "data: {\"t\":\"y\"}\n\n"], (0, 0, 1, Some(1))),
    ];
    for (name, pieces, expected) in forms {
        assert_eq!(streamed(pieces), expected, "{name}");
        // All in one chunk.
        let (output, other, unread, _) = streamed(&[&pieces.concat()]);
        assert_eq!((output, other, unread), (expected.0, expected.1, expected.2), "{name}, in one chunk");
    }
}

/// What does not show within the bytes that are read is not guessed.
#[test]
fn output_that_begins_late_is_not_seen() {
    let late = format!("data: {{\"model\":\"{}\",\"choices\":[{{\"text\":\"x\"}}]}}\n\n", "m".repeat(600));
    assert_eq!(streamed(&[&late, &late]), (0, 0, 1, Some(1)));
}

#[test]
fn an_error_in_a_stream_ends_the_request_as_the_servers_failure() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for error in [
        "data: {\"error\":{\"code\":500}}\n\n",
        "data:{\"error\":\"dead\"}\n\n",
        "event: error\ndata: {}\n\n",
        "event: response.failed\ndata: {}\n\n",
    ] {
        let mut tracked = Tracked::new();
        tracked.client(1, b"POST /v1/messages HTTP/1.1\r\n\r\n", 1);
        tracked.server(1, head.as_bytes(), 1, 2);
        tracked.server(1 + head.len() as u32, error.as_bytes(), 1, 3);
        tracked.close(true, Side::Server, 4);
        tracked.check();
        let failed =
            Observation::Aborted { endpoint: Endpoint::Messages as u32, side: Side::Server, phase: Phase::Error };
        assert!(tracked.observed().any(|seen| seen == failed), "{error}");
        assert!(!tracked.observed().any(|seen| matches!(seen, Observation::Completed { .. })), "{error}");
    }
}
