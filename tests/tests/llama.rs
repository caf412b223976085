//! A real engine: llama.cpp's server with a model of random weights. What the agent measures below its socket is held against what
//! the client saw and what the engine says of itself.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;

use citadel_agent_tests::agent::{Agent, Setup, free_port};
use citadel_agent_tests::http::{LAST_CHUNK, post};
use citadel_agent_tests::names::{
    ABORTED, COMPLETION_TOKENS, IN_FLIGHT, INTER_TOKEN, PROMPT_TOKENS, REQUESTS, STREAM_EVENTS, TOKENS, TTFT,
    WITH_USAGE, WITHOUT_USAGE,
};
use citadel_agent_tests::peer::Peer;
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::tools::{Daemon, llama_server};
use citadel_agent_tests::truth::monotonic_ns;
use citadel_agent_tests::{assert_eventually, gguf};
use serde_json::{Value, json};

/// Requests that it works on at the same time.
const SLOTS: usize = 4;
/// Letters in a prompt: some hundred milliseconds of work.
const PROMPT: usize = 150;
/// Tokens of an answer.
const ANSWER: u64 = 40;

/// The engine's own counts.
const ENGINE_TOKENS: &str = "citadel_engine_tokens_total";
/// Its own times.
const ENGINE_PHASES: &str = "citadel_engine_phase_seconds_total";
/// What it works on.
const ENGINE_RUNNING: &str = "citadel_engine_requests_running";

fn start(dir: &Path) -> (Daemon, u16) {
    let model = dir.join("noise.gguf");
    gguf::write(&model).expect("write the model");
    let port = free_port();
    let mut command: Command = llama_server();
    command.args(["--host", "127.0.0.1", "--metrics", "--threads", "1", "--parallel", &SLOTS.to_string()]);
    command.args(["--port", &port.to_string(), "--model"]).arg(model);
    (Daemon::start(&mut command, port, dir.join("output.log")), port)
}

/// What the client and the engine say about one answer.
#[derive(Debug)]
struct Answer {
    /// From the request's last byte to the first event with output, in seconds.
    first: f64,
    /// Events with output, and without.
    events: (u64, u64),
    /// Tokens of the prompt, and generated.
    tokens: (u64, u64),
    /// The engine's time for the prompt, and for all generated tokens but the first, in seconds.
    engine: (f64, f64),
}

/// The request for a stream of this many tokens.
fn request(path: &str, number: usize, tokens: u64) -> String {
    let letter = |place: usize| char::from(b'a' + ((place * (number + 1) + number) % 26) as u8);
    let prompt: String = (0..PROMPT).flat_map(|place| [letter(place), ' ']).collect();
    let mut body = json!({
        "stream": true, "temperature": 0, "ignore_eos": true, "cache_prompt": false, "max_tokens": tokens, "n_predict": tokens,
    });
    if path.ends_with("/chat/completions") {
        body["messages"] = json!([{ "role": "user", "content": prompt }]);
        body["stream_options"] = json!({ "include_usage": true });
    } else {
        body["prompt"] = prompt.into();
    }
    post(path, &body.to_string())
}

/// Asks for a stream and reads it as a client does, event by event.
fn ask(port: u16, path: &str, number: usize) -> Answer {
    let mut peer = Peer::connect((Ipv4Addr::LOCALHOST, port));
    let asked = peer.write(request(path, number, ANSWER)).after;
    let mut answer = Answer { first: 0.0, events: (0, 0), tokens: (0, 0), engine: (0.0, 0.0) };
    loop {
        let event = peer.read_through("\n\n");
        let text = String::from_utf8_lossy(&event.bytes).into_owned();
        let (_, data) = text.split_once("data: ").unwrap_or_else(|| panic!("no event: {text}"));
        let Ok(json) = serde_json::from_str::<Value>(data) else {
            assert_eq!(data.trim(), "[DONE]");
            answer.events.1 += 1;
            break;
        };
        let choice = &json["choices"][0];
        let outputs = [&choice["delta"]["content"], &choice["text"], &json["content"]];
        if outputs.into_iter().any(|output| output.as_str().is_some_and(|text| !text.is_empty())) {
            if answer.events.0 == 0 {
                answer.first = (event.at.after - asked) as f64 / 1e9;
            }
            answer.events.0 += 1;
        } else {
            answer.events.1 += 1;
        }
        let timings = &json["timings"];
        if timings.is_object() {
            let count = |key: &str| timings[key].as_u64().unwrap_or_else(|| panic!("{key} in {timings}"));
            let time = |key: &str| timings[key].as_f64().unwrap_or_else(|| panic!("{key} in {timings}")) / 1e3;
            answer.tokens = (count("prompt_n") + count("cache_n"), count("predicted_n"));
            answer.engine = (time("prompt_ms"), time("predicted_ms"));
        }
        // Its own API has no event for the end.
        if json["stop"] == true {
            break;
        }
    }
    peer.read_through(LAST_CHUNK);
    answer
}

/// Fails unless these means differ by no more than this share of the second, or so many seconds.
fn assert_near(what: &str, ours: f64, theirs: f64, share: f64, seconds: f64) {
    let allowed = (theirs * share).max(seconds);
    assert!(
        (ours - theirs).abs() <= allowed,
        "{what}: {ours:.6} s by the agent, {theirs:.6} s, more than {allowed:.6} apart"
    );
}

fn mean(sum: f64, count: u64) -> f64 {
    sum / count as f64
}

/// Holds the page against what client and engine say of these answers, all of one endpoint; prints a row of docs/accuracy.md.
fn assert_times(page: &Page, endpoint: &str, answers: &[Answer]) {
    let histogram = |name: &str| page.histogram(name).label("endpoint", endpoint);
    let count = answers.len() as u64;
    let gaps: u64 = answers.iter().map(|answer| answer.events.0 - 1).sum();
    let (ttft, between) = (histogram(TTFT), histogram(INTER_TOKEN));
    assert_eq!((ttft.count(), between.count()), (count, gaps), "{endpoint}");
    let of = |value: fn(&Answer) -> f64| answers.iter().map(value).sum::<f64>();
    let (ours, client, engine) =
        (mean(ttft.sum(), count), mean(of(|it| it.first), count), mean(of(|it| it.engine.0), count));
    let engine_gaps: u64 = answers.iter().map(|answer| answer.tokens.1 - 1).sum();
    let (our_gap, engine_gap) = (mean(between.sum(), gaps), mean(of(|it| it.engine.1), engine_gaps));
    println!(
        "| llama.cpp b11669, {endpoint}, {count} streams | {:.1} ms | {:.1} ms | {:.1} ms | {:.3} ms | {:.3} ms |",
        ours * 1e3,
        client * 1e3,
        engine * 1e3,
        our_gap * 1e3,
        engine_gap * 1e3
    );
    assert_near(&format!("{endpoint}: first token, at the client"), ours, client, 0.02, 0.001);
    assert!(ours >= engine, "{endpoint}: first token after {ours:.6} s, but the engine took {engine:.6} s");
    assert_near(&format!("{endpoint}: between tokens, by the engine"), our_gap, engine_gap, 0.03, 0.0);
}

/// Holds the counts against those in all answers.
fn assert_counts(page: &Page, answers: &[Answer]) {
    let sum = |of: fn(&Answer) -> u64| answers.iter().map(of).sum::<u64>();
    let (prompt, completion) = (sum(|it| it.tokens.0), sum(|it| it.tokens.1));
    assert_eq!(page.counter(TOKENS).by(["kind"]), sums([("prompt", prompt), ("completion", completion)]));
    let of_requests = |name: &str| (page.histogram(name).count(), page.histogram(name).sum());
    let count = answers.len() as u64;
    assert_eq!(of_requests(PROMPT_TOKENS), (count, prompt as f64));
    assert_eq!(of_requests(COMPLETION_TOKENS), (count, completion as f64));
    assert_eq!(page.counter(WITH_USAGE).value(), count);
    assert_eq!(
        page.counter(STREAM_EVENTS).by(["kind"]),
        sums([("content", sum(|it| it.events.0)), ("other", sum(|it| it.events.1))])
    );
}

#[test]
fn agent_client_and_engine_agree() {
    const EACH: usize = 5;
    let paths = ["/v1/chat/completions", "/v1/completions", "/completion"];
    let dir = tempfile::tempdir().expect("make a temporary directory");
    let (_engine, port) = start(dir.path());
    let agent = Setup::new().model("model", port).probing().start();
    agent.assert_measuring();

    // One after the other, so that the engine's times are those of one request.
    let answers = paths.map(|path| (0..EACH).map(|number| ask(port, path, number)).collect::<Vec<_>>());
    let page = assert_eventually!(agent, |page| page.requests() == (paths.len() * EACH) as u64);
    page.assert_nothing_lost();
    let expected = sums([("chat_completions 200", EACH as u64), ("completions 200", 2 * EACH as u64)]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    let [chat, mut completions, own] = answers;
    assert_times(&page, "chat_completions", &chat);
    completions.extend(own);
    assert_times(&page, "completions", &completions);
    let all: Vec<_> = chat.into_iter().chain(completions).collect();
    assert_counts(&page, &all);

    // The engine's own page, which the agent reads, says the same.
    let sum = |of: fn(&Answer) -> u64| all.iter().map(of).sum::<u64>();
    let (prompt, generated) = (sum(|it| it.tokens.0), sum(|it| it.tokens.1));
    let page =
        assert_eventually!(agent, |page| page.counter(ENGINE_TOKENS).by(["kind"]).get("generated") == Some(&generated));
    assert_eq!(page.counter(ENGINE_TOKENS).label("kind", "prompt").value(), prompt);
    let of = |value: fn(&Answer) -> f64| all.iter().map(value).sum::<f64>();
    for (phase, seconds) in [("prefill", of(|it| it.engine.0)), ("decode", of(|it| it.engine.1))] {
        let page_says = page.counter(ENGINE_PHASES).label("phase", phase).number();
        assert_near(phase, page_says, seconds, 0.001, 0.002);
    }
    in_flight_and_aborted(&agent, port, all.len() as u64);
}

/// Streams that are under way are in flight, as the engine says; those that clients leave are aborted, and their tokens unknown.
fn in_flight_and_aborted(agent: &Agent, port: u16, before: u64) {
    const STREAMS: u64 = 3;
    let clients: Vec<_> = (0..STREAMS as usize)
        .map(|number| {
            thread::spawn(move || {
                let mut peer = Peer::connect((Ipv4Addr::LOCALHOST, port));
                // More than it generates before they leave.
                peer.write(request("/v1/completions", number, 100_000));
                peer.read_through("data: ");
                peer
            })
        })
        .collect();
    let peers: Vec<_> =
        clients.into_iter().map(|client| client.join().expect("a client has its first token")).collect();
    let begun = monotonic_ns();
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == STREAMS
        && page.gauge(ENGINE_RUNNING).value() == STREAMS);
    println!("in flight and running: {STREAMS} after {} ms", (monotonic_ns() - begun) / 1_000_000);
    peers.into_iter().for_each(Peer::close);
    let page = assert_eventually!(agent, |page| {
        page.gauge(IN_FLIGHT).value() == 0 && page.gauge(ENGINE_RUNNING).value() == 0
    });
    assert_eq!(page.counter(ABORTED).by(["side"]), sums([("client", STREAMS)]));
    assert_eq!(page.requests(), before);
    let usage = |name: &str| page.counter(name).by(["model"]).into_values().sum::<u64>();
    assert_eq!((usage(WITH_USAGE), usage(WITHOUT_USAGE)), (before, 0), "those of aborted requests are unknown");
}
