//! Recorded streams of real engines, replayed through real sockets at the recorded times. What the agent measures is held
//! against a reader in this file, which takes the events apart as a client does: whole, as JSON.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, chat, chunk, event, post};
use citadel_agent_tests::names::{
    ABORTED, CHUNKS, COMPLETION_TOKENS, DURATION, INTER_TOKEN, PROMPT_TOKENS, REQUESTS, STREAM_EVENTS, STREAMS_UNREAD,
    TOKENS, TTFB, TTFC, TTFT, WITH_USAGE, WITHOUT_USAGE,
};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::{Stamp, gaps, pause};
use serde_json::Value;

/// Longest pause that is replayed: the times between tokens are far shorter, and one recording waits for its engine to compile.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One recorded answer.
struct Recording {
    name: String,
    path: String,
    body: String,
    /// When, since the request, which bytes.
    segments: Vec<(Duration, Vec<u8>)>,
}

impl Recording {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("read a recording");
        let json: Value = serde_json::from_str(&text).expect("a recording is JSON");
        let (mut now, mut before) = (Duration::ZERO, Duration::ZERO);
        let segment = |pair: &Value| {
            let at = Duration::from_secs_f64(pair[0].as_f64().expect("milliseconds") / 1000.0);
            now += at.saturating_sub(before).min(LONGEST_PAUSE);
            before = at;
            let latin1 = pair[1].as_str().expect("text").chars();
            (now, latin1.map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect())
        };
        Self {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            path: json["request"]["path"].as_str().expect("a path").to_owned(),
            body: json["request"]["body"].to_string(),
            segments: json["segments_ms_text_latin1"].as_array().expect("segments").iter().map(segment).collect(),
        }
    }

    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/streams");
        let files = fs::read_dir(folder).expect("list the recordings").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
        files.sort();
        files.iter().map(|path| Self::read(path)).collect()
    }

    fn length(&self) -> usize {
        self.segments.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Writes each segment when it is due.
    fn play(self, mut peer: Peer) -> (Self, Vec<Stamp>) {
        peer.read_message();
        let start = Instant::now();
        let write = |(at, bytes): &(Duration, Vec<u8>)| {
            thread::sleep((start + *at).saturating_duration_since(Instant::now()));
            peer.write(bytes)
        };
        let stamps = self.segments.iter().map(write).collect();
        (self, stamps)
    }
}

/// What an answer is, by a reader that has all of it: which segments show what.
#[derive(Debug)]
struct Truth {
    code: u32,
    streamed: bool,
    chunks: u64,
    /// The segment with the end of the header, and the one with the first byte of the body.
    header: usize,
    body: Option<usize>,
    /// The segment with the end of each event that has output.
    outputs: Vec<usize>,
    others: u64,
    tokens: Option<Tokens>,
}

/// How many tokens an answer says that it took, of the prompt, generated, and from the cache.
type Tokens = (Option<u64>, u64, Option<u64>);

/// The tokens in a whole answer or event, as the APIs' documentation says where they are. Of an answer that comes in parts, those of
/// the parts before are known.
fn tokens_in(json: &Value, before: Option<Tokens>) -> Option<Tokens> {
    let usage = [json, &json["response"], &json["message"]].map(|part| &part["usage"]);
    if let Some(usage) = usage.into_iter().find(|usage| usage.is_object()) {
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| usage[*key].as_u64());
        let details = [&usage["prompt_tokens_details"], &usage["input_tokens_details"]];
        let part_of_prompt = details.iter().find_map(|details| details["cached_tokens"].as_u64());
        let beside_prompt = usage["cache_read_input_tokens"].as_u64();
        let prompt = number(["prompt_tokens", "input_tokens"]).map(|prompt| prompt + beside_prompt.unwrap_or(0));
        return Some((
            prompt.or(before.and_then(|(prompt, ..)| prompt)),
            number(["completion_tokens", "output_tokens"]).expect("generated tokens"),
            part_of_prompt.or(beside_prompt).or(before.and_then(|(.., cached)| cached)),
        ));
    }
    let timings = &json["timings"];
    let of = |key: &str| timings[key].as_u64();
    if let (None, Some(prompt), Some(predicted)) = (before, of("prompt_n"), of("predicted_n")) {
        let cached = of("cache_n").expect("llama.cpp's cache");
        return Some((Some(prompt + cached), predicted, Some(cached)));
    }
    before
}

impl Truth {
    fn of(recording: &Recording) -> Self {
        let segment_of = recording.segments.iter().enumerate().flat_map(|(i, (_, bytes))| vec![i; bytes.len()]);
        let segment_of: Vec<usize> = segment_of.collect();
        let bytes: Vec<u8> = recording.segments.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let head_end = find(&bytes, b"\r\n\r\n").expect("the end of the head") + 4;
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
        let mut truth = Self {
            code: head[9..12].parse().expect("a status code"),
            streamed: head.contains("text/event-stream"),
            chunks: 0,
            header: segment_of[head_end - 1],
            body: None,
            outputs: vec![],
            others: 0,
            tokens: None,
        };
        if !truth.streamed {
            let json: Value = serde_json::from_slice(&bytes[head_end..]).expect("a plain answer is JSON");
            truth.tokens = tokens_in(&json, None);
            return truth;
        }
        // The body's bytes, each with its segment.
        let (mut body, mut at) = (vec![], head_end);
        assert!(head.contains("transfer-encoding: chunked"), "{}", recording.name);
        loop {
            let line = find(&bytes[at..], b"\r\n").expect("a chunk size");
            let size = std::str::from_utf8(&bytes[at..at + line]).expect("ASCII");
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            if size == 0 {
                break;
            }
            at += line + 2;
            truth.chunks += 1;
            body.extend((at..at + size).map(|at| (bytes[at], segment_of[at])));
            at += size + 2;
        }
        truth.body = body.first().map(|&(_, segment)| segment);
        let text: Vec<u8> = body.iter().map(|&(byte, _)| byte).collect();
        let mut at = 0;
        while let Some(length) = find(&text[at..], b"\n\n") {
            let event = String::from_utf8_lossy(&text[at..at + length]);
            at += length + 2;
            let data = event.lines().find_map(|line| line.strip_prefix("data:")).expect("an event has data");
            if let Ok(json) = serde_json::from_str(data) {
                truth.tokens = tokens_in(&json, truth.tokens);
            }
            if has_output(&event) {
                truth.outputs.push(body[at - 1].1);
            } else {
                truth.others += 1;
            }
        }
        truth
    }

    fn assert_tokens(&self, page: &Page, name: &str) {
        let tokens = page.counter(TOKENS).label("model", name).by(["kind"]);
        // Zeros are left out.
        let (prompt, completion, cached) = self.tokens.unwrap_or_default();
        let prompt = prompt.unwrap_or(0);
        let kinds = [("prompt", prompt), ("completion", completion), ("cached", cached.unwrap_or(0))];
        let expected = kinds.into_iter().filter(|&(_, count)| count > 0).map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(tokens, expected.collect(), "{name}");
        let sum = |metric: &str| page.histogram(metric).label("model", name).sum();
        assert_eq!((sum(PROMPT_TOKENS), sum(COMPLETION_TOKENS)), (prompt as f64, completion as f64), "{name}");
        let requests =
            |metric: &str| page.counter(metric).label("model", name).by(["model"]).into_values().sum::<u64>();
        let stated = u64::from(self.tokens.is_some());
        let missing = u64::from(self.tokens.is_none() && self.code == 200);
        assert_eq!((requests(WITH_USAGE), requests(WITHOUT_USAGE)), (stated, missing), "{name}");
    }

    /// Holds one model's part of the page against it.
    fn assert_measured(&self, page: &Page, name: &str, asked: Stamp, written: &[Stamp]) {
        let one = |endpoint_and_code: Vec<_>| (endpoint_and_code.len(), endpoint_and_code.iter().sum::<u64>());
        let requests = page.counter(REQUESTS).label("model", name).label("code", &self.code.to_string());
        assert_eq!(one(requests.by(["endpoint"]).into_values().collect()), (1, 1), "{name}");
        let response = if self.streamed { "stream" } else { "plain" };
        let ttfb = page.histogram(TTFB).label("model", name).label("response", response);
        ttfb.assert_holds(&[asked.until(written[0])]);
        page.histogram(DURATION).label("model", name).assert_holds(&[asked.until(written[written.len() - 1])]);
        let outputs: Vec<_> = self.outputs.iter().map(|&segment| written[segment]).collect();
        let first = outputs.first().map(|first| asked.until(*first));
        assert_holds(page, TTFT, name, &Vec::from_iter(first));
        assert_holds(page, INTER_TOKEN, name, &gaps(&outputs));
        let chunk = self.body.map(|segment| asked.until(written[segment]));
        assert_holds(page, TTFC, name, &Vec::from_iter(chunk));
        let counter = |metric: &str| page.counter(metric).label("model", name);
        let events = counter(STREAM_EVENTS).by(["kind"]);
        let of = |kind: &str| events.get(kind).copied().unwrap_or(0);
        assert_eq!((of("content"), of("other")), (outputs.len() as u64, self.others), "{name}");
        let chunks: u64 = counter(CHUNKS).by(["model"]).into_values().sum();
        assert_eq!(chunks, self.chunks, "{name}");
        self.assert_tokens(page, name);
        assert!(self.header < written.len());
    }
}

/// As [`Histogram::assert_holds`](citadel_agent_tests::scrape::Histogram), also for none at all.
fn assert_holds(page: &Page, metric: &str, model: &str, spans: &[citadel_agent_tests::truth::Span]) {
    let histogram = page.histogram(metric).label("model", model);
    assert_eq!(histogram.count(), spans.len() as u64, "{model}: {metric}");
    if !spans.is_empty() {
        println!("{model}: {metric}: {:.6} s in {}", histogram.sum(), histogram.count());
        histogram.assert_holds(spans);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Whether an event has text, reasoning or arguments of a tool call, as the APIs' documentation says where these are.
fn has_output(event: &str) -> bool {
    let data = event.lines().find_map(|line| line.strip_prefix("data:")).expect("an event has data").trim();
    let Ok(json) = serde_json::from_str::<Value>(data) else {
        assert_eq!(data, "[DONE]");
        return false;
    };
    let some = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if let Some(choices) = json["choices"].as_array() {
        return choices.iter().any(|choice| {
            let delta = &choice["delta"];
            ["content", "reasoning_content", "reasoning"].iter().any(|key| some(&delta[*key])) || some(&choice["text"])
        });
    }
    match json["type"].as_str() {
        Some("content_block_delta") => {
            ["text", "thinking", "partial_json"].iter().any(|key| some(&json["delta"][*key]))
        }
        Some(kind) => kind.ends_with(".delta") && some(&json["delta"]),
        // llama.cpp's own.
        None => some(&json["content"]),
    }
}

#[test]
fn recorded_streams_are_measured_as_their_clients_saw_them() {
    let recordings = Recording::all();
    assert!(recordings.len() > 20, "the recordings are there");
    let servers: Vec<_> = recordings.iter().map(|_| Server::bind()).collect();
    let models = recordings.iter().zip(&servers);
    let agent =
        models.fold(Setup::new(), |setup, (recording, server)| setup.model(&recording.name, server.port())).start();
    agent.assert_measuring();
    // All at the same time: together they take as long as the longest.
    let playing: Vec<_> = recordings
        .into_iter()
        .zip(&servers)
        .map(|(recording, server)| {
            let (request, length) = (post(&recording.path, &recording.body), recording.length());
            let playing = server.serve(move |peer| recording.play(peer));
            let mut client = server.connect();
            (thread::spawn(move || client.ask(request, length)), playing)
        })
        .collect();
    let count = playing.len() as u64;
    let played: Vec<_> =
        playing.into_iter().map(|(client, server)| (client.join().expect("a client"), server.truth())).collect();
    let page = assert_eventually!(agent, |page| page.requests() == count);
    page.assert_nothing_lost();
    assert!(!page.counter(STREAMS_UNREAD).is_present(), "each of them can be read");
    for (asked, (recording, written)) in played {
        Truth::of(&recording).assert_measured(&page, &recording.name, asked, &written);
    }
}

/// Plays pieces of a stream's body, each written at once after a pause, and gives the page and when each was written.
fn play(head: &str, pieces: Vec<Vec<u8>>, requests: u64) -> (Page, Stamp, Vec<Stamp>) {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let length = head.len() + pieces.iter().map(Vec::len).sum::<usize>();
    let head = head.to_owned();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        peer.write(head);
        let write = |piece: Vec<u8>| {
            pause(20);
            peer.write(piece)
        };
        pieces.into_iter().map(write).collect::<Vec<_>>()
    });
    let mut client = server.connect();
    let asked = client.ask(chat(), length);
    let written = playing.truth();
    let page = assert_eventually!(agent, |page| {
        page.requests() == requests && page.gauge("citadel_model_requests_in_flight").value() == 0
    });
    page.assert_nothing_lost();
    (page, asked, written)
}

#[test]
fn an_error_in_a_stream_is_a_failure_of_the_server() {
    let error = chunk("data: {\"error\": {\"message\": \"EngineCore encountered an issue\", \"code\": 500}}\n\n");
    let done = chunk("data: [DONE]\n\n");
    let pieces = [event("a"), error, done, LAST_CHUNK.to_owned()];
    let (page, ..) = play(STREAM_HEAD, pieces.map(String::into_bytes).to_vec(), 0);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([("server error", 1)]));
    assert!(!page.counter(REQUESTS).is_present(), "it is no 200");
    assert_eq!(page.counter(STREAM_EVENTS).by(["kind"]), sums([("content", 1), ("other", 2)]));
}

#[test]
fn a_stream_that_cannot_be_read_is_measured_by_its_chunks() {
    let head = STREAM_HEAD.replace("Content-Type", "Content-Encoding: gzip\r\nContent-Type");
    let data: [&[u8]; 3] = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", b"\x4a\x49\x2c\x49", b"\x04\x00\x00\xff\xff"];
    let chunks = data.map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat());
    let (page, asked, written) = play(&head, [&chunks[..], &[LAST_CHUNK.into()]].concat(), 1);
    assert_eq!(page.counter(STREAMS_UNREAD).value(), 1);
    assert!(!page.counter(STREAM_EVENTS).is_present());
    page.histogram(TTFT).assert_holds(&[asked.until(written[0])]);
    page.histogram(INTER_TOKEN).assert_holds(&gaps(&written[..3]));
}

#[test]
fn an_event_may_be_cut_anywhere() {
    let events = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n\
                  data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n";
    // The output's first byte is the last of its piece, and then the first of it.
    let at = events.find("\"a\"").expect("the output") + 1;
    for cut in [at, at + 1, at - 1, 3] {
        let body = chunk(events);
        let start = body.find("data").expect("the data");
        let (one, two) = body.as_bytes().split_at(start + cut);
        let (page, asked, written) = play(STREAM_HEAD, vec![one.to_vec(), two.to_vec(), LAST_CHUNK.into()], 1);
        let shows = usize::from(cut <= at);
        page.histogram(TTFT).assert_holds(&[asked.until(written[shows])]);
        page.histogram(TTFC).assert_holds(&[asked.until(written[0])]);
        assert_eq!(page.counter(STREAM_EVENTS).by(["kind"]), sums([("content", 1), ("other", 1)]), "cut at {cut}");
    }
}
