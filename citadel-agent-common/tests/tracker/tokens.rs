//! What responses say about their tokens, in each engine's form.

use citadel_agent_common::abi::Side;
use citadel_agent_common::http::usage::Tokens;
use proptest::prelude::*;

use crate::recorder::Tracked;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Prompt, completion and cached tokens.
type Stated = (Option<u32>, Option<u32>, Option<u32>);

const NOTHING: Stated = (None, None, None);

fn stated(tokens: Tokens) -> Stated {
    let known = |which, value| (tokens.known & which != 0).then_some(value);
    (
        known(Tokens::PROMPT, tokens.prompt),
        known(Tokens::COMPLETION, tokens.completion),
        known(Tokens::CACHED, tokens.cached),
    )
}

/// What the response of these bytes to a request for `path` states, if they come in segments that end at `cuts`.
fn answered(path: &str, response: &str, cuts: &[usize]) -> Stated {
    let mut tracked = Tracked::new();
    tracked.client(1, format!("POST {path} HTTP/1.1\r\n\r\n").as_bytes(), 0);
    let mut from = 0;
    for &cut in cuts.iter().chain([&response.len()]) {
        if cut > from {
            tracked.server(1 + from as u32, &response.as_bytes()[from..cut], 1, 1);
            from = cut;
        }
    }
    tracked.check();
    let [tokens] = tracked.tokens() else { panic!("one response, {:?}", tracked.tokens()) };
    stated(*tokens)
}

/// A response of known length.
fn plain(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A response in these chunks.
fn in_chunks(head: &str, chunks: &[&str]) -> String {
    let chunk = |chunk: &&str| format!("{:x}\r\n{chunk}\r\n", chunk.len());
    format!("{head}{}0\r\n\r\n", chunks.iter().map(chunk).collect::<String>())
}

/// As a plain response in any segments, and in chunks: what a chunk's end cuts is not known, and never wrong.
fn in_all_ways(path: &str, body: &str) -> Stated {
    let whole = answered(path, &plain(body), &[]);
    let in_segments = |response: &str, whole: Stated| {
        for size in [1, 2, 3, 7, 8, 9, 64] {
            let cuts: Vec<_> = (0..response.len()).step_by(size).collect();
            assert_eq!(answered(path, response, &cuts), whole, "in segments of {size}: {body}");
        }
    };
    in_segments(&plain(body), whole);
    // The counts are in the second chunk.
    let (before, counts) = body.split_at(body.len().saturating_sub(300));
    let pieces: Vec<_> = [before, counts].into_iter().filter(|piece| !piece.is_empty()).collect();
    let chunked = in_chunks(CHUNKED, &pieces);
    assert_eq!(answered(path, &chunked, &[]), whole, "{body}");
    in_segments(&chunked, whole);
    for size in 1..20 {
        let pieces: Vec<_> = body.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        let cut = answered(path, &in_chunks(CHUNKED, &pieces), &[]);
        let right = |cut: Option<u32>, whole: Option<u32>| cut.is_none() || cut == whole;
        assert!(
            right(cut.0, whole.0) && right(cut.1, whole.1) && right(cut.2, whole.2),
            "in chunks of {size}: {cut:?}, {body}"
        );
    }
    whole
}

/// A body without a length ends with the connection.
#[test]
fn a_body_up_to_the_end_of_the_connection_states_usage() {
    let body = "{\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":12}}";
    let mut tracked = Tracked::new();
    tracked.client(1, b"POST /v1/completions HTTP/1.0\r\n\r\n", 0);
    tracked.server(1, format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes(), 1, 1);
    tracked.close(true, Side::Server, 2);
    tracked.check();
    assert_eq!(tracked.tokens().iter().copied().map(stated).collect::<Vec<_>>(), [(Some(25), Some(12), None)]);
}

#[test]
fn plain_answers_state_usage_at_their_end() {
    let text = "x".repeat(3000);
    let vllm = format!(
        "{{\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}],\"usage\":{{\"prompt_tokens\":25,\"total_tokens\":37,\
         \"completion_tokens\":12,\"prompt_tokens_details\":null}},\"kv_transfer_params\":null}}"
    );
    assert_eq!(in_all_ways("/v1/chat/completions", &vllm), (Some(25), Some(12), None));
    let spaced = "{\"usage\": {\"prompt_tokens\":  25, \"completion_tokens\": 1234567, \"prompt_tokens_details\": {\"cached_tokens\": 16}}}";
    assert_eq!(in_all_ways("/v1/completions", spaced), (Some(25), Some(1_234_567), Some(16)));
    let llamacpp = "{\"content\":\"x\",\"tokens_predicted\":12,\"tokens_evaluated\":9,\"timings\":{\"cache_n\":1,\"prompt_n\":8,\
                    \"prompt_ms\":13.754,\"prompt_per_token_ms\":1.71925,\"predicted_n\":12,\"predicted_ms\":42.231}}";
    assert_eq!(in_all_ways("/completion", llamacpp), (Some(9), Some(12), Some(1)));
    let ollama = "{\"model\":\"m\",\"response\":\"x\",\"done\":true,\"context\":[1,2,3],\"total_duration\":5,\"prompt_eval_count\":26,\
                  \"prompt_eval_duration\":7,\"eval_count\":290,\"eval_duration\":8}";
    assert_eq!(in_all_ways("/api/generate", ollama), (Some(26), Some(290), None));
    let tgi =
        "{\"generated_text\":\"x\",\"details\":{\"finish_reason\":\"length\",\"generated_tokens\":20,\"seed\":null}}";
    assert_eq!(in_all_ways("/generate", tgi), (None, Some(20), None));
    let responses = "{\"usage\":{\"input_tokens\":911,\"input_tokens_details\":{\"cached_tokens\":0,\"cache_write_tokens\":896},\
                     \"output_tokens\":12,\"output_tokens_details\":{\"reasoning_tokens\":3},\"total_tokens\":923},\"user\":null}";
    assert_eq!(in_all_ways("/v1/responses", responses), (Some(911), Some(12), Some(0)));
    // Anthropic's input excludes what was read from the cache and written to it.
    let messages = "{\"content\":[],\"usage\":{\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":1000,\"input_tokens\":7,\
                    \"output_tokens\":5}}";
    assert_eq!(in_all_ways("/v1/messages", messages), (Some(1107), Some(5), Some(1000)));
    let embeddings =
        format!("{{\"data\":[{}0.1],\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}", "0.25,".repeat(2000));
    assert_eq!(in_all_ways("/v1/embeddings", &embeddings), (Some(8), None, None));
}

/// Usage is more exact than timings, whichever comes first.
#[test]
fn usage_comes_before_timings() {
    let usage =
        "\"usage\":{\"completion_tokens\":12,\"prompt_tokens\":52,\"prompt_tokens_details\":{\"cached_tokens\":51}}";
    let timings = "\"timings\":{\"cache_n\":50,\"prompt_n\":3,\"predicted_n\":14}";
    for body in [format!("{{{usage},{timings}}}"), format!("{{{timings},{usage}}}")] {
        assert_eq!(answered("/v1/chat/completions", &plain(&body), &[]), (Some(52), Some(12), Some(51)), "{body}");
    }
    assert_eq!(
        answered("/v1/chat/completions", &plain(&format!("{{{timings}}}")), &[]),
        (Some(53), Some(14), Some(50))
    );
}

#[test]
fn streams_state_usage_in_an_event_without_output() {
    let content =
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9\"}}],\"usage\":null}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"total_tokens\":37,\"completion_tokens\":12}}\n\n";
    let chat = in_chunks(STREAM, &[content, content, usage, "data: [DONE]\n\n"]);
    assert_eq!(answered("/v1/chat/completions", &chat, &[]), (Some(25), Some(12), None));
    assert_eq!(answered("/v1/chat/completions", &in_chunks(STREAM, &[content, content]), &[]), NOTHING);
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":{\"input_tokens\":25,\
                 \"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
    let end =
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":12}}\n\n";
    let messages = in_chunks(STREAM, &[start, delta, delta, end]);
    assert_eq!(answered("/v1/messages", &messages, &[]), (Some(28), Some(12), Some(3)));
    let text = "y".repeat(5000);
    let completed = format!(
        "event: response.completed\ndata: {{\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],\"usage\":{{\"input_tokens\":16,\
         \"output_tokens\":12}},\"user\":null}},\"type\":\"response.completed\"}}\n\n"
    );
    let piece = "event: response.output_text.delta\ndata: {\"content_index\":0,\"delta\":\"di\",\"item_id\":\"m\"}\n\n";
    let responses = in_chunks(STREAM, &[piece, piece, &completed]);
    for cuts in [vec![], (0..responses.len()).step_by(1448).collect(), (0..responses.len()).step_by(5).collect()] {
        assert_eq!(answered("/v1/responses", &responses, &cuts), (Some(16), Some(12), None));
    }
}

/// TGI's and SGLang's native APIs have the counts in events with output: the last one's.
#[test]
fn streams_state_usage_beside_output() {
    let tgi = |text: &str, details: &str| {
        format!(
            "data:{{\"index\":1,\"token\":{{\"id\":5,\"text\":\"{text}\",\"logprob\":-0.5,\"special\":false}},\"generated_text\":null,\"details\":{details}}}\n\n"
        )
    };
    let last = tgi("c", "{\"finish_reason\":\"length\",\"generated_tokens\":3,\"seed\":null,\"input_length\":7}");
    let sglang = |text: &str, count: u32| {
        format!(
            "data: {{\"text\": \"{text}\", \"meta_info\": {{\"id\": \"f\", \"finish_reason\": null, \"prompt_tokens\": 11, \"completion_tokens\": {count}, \"cached_tokens\": 4, \"e2e_latency\": 0.25}}}}\n\n"
        )
    };
    let long = "x".repeat(2000);
    let streams: [(&str, Vec<String>, Stated); 3] = [
        ("/generate_stream", vec![tgi("a", "null"), tgi("b", "null"), last], (None, Some(3), None)),
        (
            "/generate",
            vec![sglang("a", 1), sglang("ab", 2), sglang("abc", 13), "data: [DONE]\n\n".to_owned()],
            (Some(11), Some(13), Some(4)),
        ),
        ("/generate", vec![sglang("a", 1), sglang("b", 2), sglang(&long, 30)], (Some(11), Some(30), Some(4))),
    ];
    for (path, events, expected) in streams {
        let events: Vec<_> = events.iter().map(String::as_str).collect();
        let stream = in_chunks(STREAM, &events);
        let ends = events.iter().scan(STREAM.len(), |at, event| {
            *at += in_chunks("", &[event]).len() - "0\r\n\r\n".len();
            Some(*at)
        });
        for cuts in
            [vec![], ends.collect(), (0..stream.len()).step_by(7).collect(), (0..stream.len()).step_by(100).collect()]
        {
            assert_eq!(answered(path, &stream, &cuts), expected, "{path}, {} segments", cuts.len());
        }
    }
    // What a chunk's end cuts may hide newer counts.
    let stream = format!("{}{}", sglang("a", 1), sglang("b", 2));
    let (one, two) = stream.split_at(stream.len() - 60);
    assert_eq!(answered("/generate", &in_chunks(STREAM, &[one, two]), &[]), NOTHING);
}

/// An event that states tokens, in chunks that end anywhere in it: a count is the right one or missing, and never that of an event
/// before.
#[test]
fn an_event_that_is_cut_states_nothing_old() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\
                 \"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
    let end =
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":12}}\n\n";
    let whole = (Some(28), Some(12), Some(3));
    for cut in 1..end.len() {
        let (one, two) = end.split_at(cut);
        let found = answered("/v1/messages", &in_chunks(STREAM, &[start, delta, one, two]), &[]);
        assert!(found == NOTHING || found == whole, "cut at {cut}: {found:?}");
        // Lines are often written one by one.
        assert!(found == whole || !one.ends_with('\n'), "cut at {cut}");
    }
    for cut in 1..start.len() {
        let (one, two) = start.split_at(cut);
        let found = answered("/v1/messages", &in_chunks(STREAM, &[one, two, delta, end]), &[]);
        assert!(found == NOTHING || found == whole, "cut at {cut}: {found:?}");
    }
    // One in an event with output hides nothing.
    let (one, two) = delta.split_at(40);
    assert_eq!(answered("/v1/messages", &in_chunks(STREAM, &[start, one, two, end]), &[]), whole);
}

/// A stream that cannot be read any more has not stated what it stated at its start.
#[test]
fn the_rest_of_an_unread_stream_is_unknown() {
    let start =
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    let strange = format!("{}\n\n", "?".repeat(700));
    assert_eq!(answered("/v1/messages", &in_chunks(STREAM, &[start, &strange, &strange]), &[]), NOTHING);
}

/// Two responses in a segment: the second one has nothing of the first.
#[test]
fn a_response_does_not_state_those_of_another_in_the_same_segment() {
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":12}}\n\n";
    let done = "data: [DONE]\n\n";
    let first = in_chunks(STREAM, &[role, content, usage, done]);
    let second = in_chunks(STREAM, &[role, content, done]);
    let request = "POST /v1/chat/completions HTTP/1.1\r\n\r\n";
    let mut tracked = Tracked::new();
    tracked.client(1, request.repeat(2).as_bytes(), 0);
    let both = first + &second;
    // The second one's role event is in the segment of the first one's usage.
    let cut = both.len() - second.len() + STREAM.len() + role.len() + 10;
    tracked.server(1, &both.as_bytes()[..cut], 1, 1);
    tracked.server(1 + cut as u32, &both.as_bytes()[cut..], 1, 1);
    tracked.check();
    for tokens in tracked.tokens() {
        assert!([NOTHING, (Some(25), Some(12), None)].contains(&stated(*tokens)));
    }
    assert_eq!(tracked.tokens().len(), 2);
    assert_eq!(
        tracked.tokens().iter().filter(|tokens| stated(**tokens) == NOTHING).count(),
        2,
        "the first came with another"
    );
}

/// An event of more keys than are looked at in one step, with its counts in the middle.
#[test]
fn a_long_event_states_usage() {
    let numbers = |name: &str| (0..40).map(|i| format!("\"{name}{i}\":{i}.5,")).collect::<String>();
    let (before, after) = (numbers("a"), numbers("b"));
    let event = format!(
        "data: {{\"choices\":[{{\"delta\":{{}}}}],\"timings\":{{{before}\"prompt_n\":52,\"predicted_n\":12,{after}\"cache_n\":0}}}}\n\n"
    );
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let stream = in_chunks(STREAM, &[content, content, &event, "data: [DONE]\n\n"]);
    assert_eq!(answered("/v1/chat/completions", &stream, &[]), (Some(52), Some(12), Some(0)));
}

#[test]
fn text_is_not_taken_for_usage() {
    for body in [
        r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\": 8}}"}}]}"#,
        r#"{"choices":[{"text":"\\\"prompt_tokens\\\":9"}]}"#,
        r#"{"tools":[{"properties":{"prompt_tokens":{"type":"integer"}}}]}"#,
        r#"{"usage":{"prompt_tokens":null,"completion_tokens":"8"}}"#,
        r#"{"usage":{"my_prompt_tokens":1,"input_tokens_total":2,"prompt_tokens":99999999999999999999}}"#,
    ] {
        assert_eq!(in_all_ways("/v1/chat/completions", body), NOTHING, "{body}");
    }
}

/// Errors state nothing, other endpoints are not searched.
#[test]
fn only_successes_of_endpoints_with_tokens_state_them() {
    let body = "{\"usage\":{\"prompt_tokens\":25}}";
    for (path, head) in [("/v1/chat/completions", "400 Bad Request"), ("/v1/models", "200 OK")] {
        let mut tracked = Tracked::new();
        tracked.client(1, format!("POST {path} HTTP/1.1\r\n\r\n").as_bytes(), 0);
        tracked.server(1, plain(body).replace("200 OK", head).as_bytes(), 1, 1);
        tracked.check();
        assert_eq!(tracked.tokens(), [], "{path}");
    }
}

/// The next response on the same connection states its own.
#[test]
fn each_response_states_its_own() {
    let mut tracked = Tracked::new();
    let request = b"POST /v1/completions HTTP/1.1\r\n\r\n";
    let (mut asked, mut answered) = (1, 1);
    for body in
        ["{\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":1}}", "{}", "{\"usage\":{\"completion_tokens\":3}}"]
    {
        tracked.client(asked, request, 0);
        let response = plain(body);
        tracked.server(answered, response.as_bytes(), 1, 1);
        asked += request.len() as u32;
        answered += response.len() as u32;
    }
    tracked.check();
    let all: Vec<_> = tracked.tokens().iter().copied().map(stated).collect();
    assert_eq!(all, [(Some(25), Some(1), None), NOTHING, (None, Some(3), None)]);
}

proptest! {
    /// JSON with any content, cut anywhere.
    #[test]
    fn usage_is_read_wherever_it_is_cut(
        text in "[ -~]{0,200}", prompt in 0u32..1 << 30, completion in 0u32..2000, cached in proptest::option::of(0u32..500),
        spaced in any::<bool>(), after in "[a-z]{0,300}", mut cuts in proptest::collection::vec(0usize..1200, 0..6),
    ) {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        let details = cached.map_or("null".to_owned(), |cached| format!("{{\"cached_tokens\":{cached}}}"));
        let mut body = format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}],\"usage\":{{\"prompt_tokens\":{prompt},\
             \"completion_tokens\":{completion},\"prompt_tokens_details\":{details}}},\"id\":\"{after}\"}}"
        );
        if spaced {
            body = body.replace(",\"", ", \"").replace("\":", "\": ");
        }
        let response = plain(&body);
        cuts.sort_unstable();
        cuts.retain(|&cut| cut < response.len());
        prop_assert_eq!(answered("/v1/chat/completions", &response, &cuts), (Some(prompt), Some(completion), cached));
    }
}
