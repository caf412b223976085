//! Servers and clients that people run, with their own counts as truth.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;

use citadel_agent_tests::agent::{Agent, free_port};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, post};
use citadel_agent_tests::names::{ABORTED, CHUNKS, DURATION, IN_FLIGHT, INTER_TOKEN, OPEN, REQUESTS, RESPONSE_BYTES};
use citadel_agent_tests::names::{TTFB, TTFT};
use citadel_agent_tests::peer::Peer;
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::tools::{self, Daemon, fixture};
use citadel_agent_tests::truth::{Span, Stamp, gaps};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the file that nginx serves with sendfile.
const FILE: usize = 100_000;

/// nginx with two worker processes that share a port by `SO_REUSEPORT`, and a log line for each request.
struct Nginx {
    dir: TempDir,
    daemon: Daemon,
    port: u16,
}

impl Nginx {
    fn start() -> Self {
        let nginx = tools::program("nginx", "nginx");
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let port = free_port();
        let root = dir.path().display();
        let config = format!(
            "daemon off;\nuser root;\nworker_processes 2;\npid {root}/nginx.pid;\nerror_log {root}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
               log_format truth '$request_uri $status $request_completion $bytes_sent';\n\
               access_log {root}/access.log truth;\n\
               keepalive_requests 1000000;\n\
               sendfile on;\n\
               default_type application/json;\n\
               server {{\n\
                 listen 127.0.0.1:{port} reuseport;\n\
                 location = /v1/models {{ return 200 '{{\"data\":[]}}'; }}\n\
                 location = /v1/embeddings {{ alias {root}/file; }}\n\
                 location = /health {{ return 204; }}\n\
               }}\n\
             }}\n"
        );
        let config_path = dir.path().join("nginx.conf");
        fs::write(&config_path, config).expect("write nginx.conf");
        fs::write(dir.path().join("file"), vec![b'x'; FILE]).expect("write the file to serve");
        let mut command = Command::new(nginx);
        command.arg("-p").arg(dir.path()).arg("-c").arg(config_path);
        let daemon = Daemon::start(&mut command, port, dir.path().join("output.log"));
        Self { dir, daemon, port }
    }

    /// Ends nginx and reads its log: requests and bytes by path and status, and those not completed.
    fn log(&mut self) -> (BTreeMap<String, u64>, u64, u64) {
        self.daemon.stop().expect("end nginx");
        let log = fs::read_to_string(self.dir.path().join("access.log")).expect("read nginx's log");
        let (mut counts, mut bytes, mut broken) = (BTreeMap::new(), 0, 0);
        for line in log.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [path, status, completion, sent] = words[..] else { panic!("a strange line in nginx's log: {line}") };
            *counts.entry(format!("{path} {status}")).or_default() += 1;
            bytes += sent.parse::<u64>().expect("a number of bytes");
            broken += u64::from(completion != "OK");
        }
        (counts, bytes, broken)
    }
}

/// Runs wrk for as many requests on each of two threads, with 16 connections; how many it has completed.
fn wrk(port: u16, requests_a_thread: u64, seconds: u64) -> u64 {
    let url = format!("http://127.0.0.1:{port}/");
    let mut command = Command::new(tools::program("wrk", "wrk"));
    command.args(["-t2", "-c16", &format!("-d{seconds}s"), "-s"]).arg(fixture("bounded.lua"));
    let report = tools::run(command.arg(url).arg("--").arg(requests_a_thread.to_string()));
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let line = report.lines().find(|line| line.contains(" requests in ")).expect("wrk reports its requests");
    line.trim().split(' ').next().and_then(|count| count.parse().ok()).expect("wrk counts its requests")
}

#[test]
fn nginx_under_wrk_is_counted_exactly() {
    const A_THREAD: u64 = 6000;
    let mut nginx = Nginx::start();
    let agent = Agent::measuring(nginx.port);
    let completed = wrk(nginx.port, A_THREAD, 6);
    assert_eq!(completed, 2 * A_THREAD, "wrk had the time to finish");

    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0 && page.requests() >= 2 * A_THREAD);
    let (logged, bytes, broken) = nginx.log();
    assert_eq!(broken, 0, "no request was under way at the end");
    assert_eq!(logged.values().sum::<u64>(), completed, "nginx and wrk agree");
    page.assert_nothing_lost();
    let third = completed / 3;
    let expected = sums([("models 200", third), ("embeddings 200", third), ("health 204", third)]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
    assert_eq!(page.histogram(DURATION).count(), completed);
    assert_eq!(page.histogram(TTFB).count(), completed);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), bytes, "bytes as nginx counts them");
    let (duration, ttfb) = (page.histogram(DURATION).sum(), page.histogram(TTFB).sum());
    assert!(ttfb > 0.0 && ttfb <= duration, "the first byte comes before the last: {ttfb} s, {duration} s");
}

#[test]
fn requests_that_wrk_leaves_under_way_are_ended_or_aborted_but_never_lost() {
    let mut nginx = Nginx::start();
    let agent = Agent::measuring(nginx.port);
    // More than it can send in a second: when its time is over, it drops its 16 connections as they are.
    let completed = wrk(nginx.port, 100_000_000, 1);
    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0);
    let (logged, ..) = nginx.log();
    let logged = logged.values().sum::<u64>();
    page.assert_nothing_lost();
    let (ended, aborted) = (page.requests(), page.counter(ABORTED).value());
    assert!(ended >= completed, "{ended} ended, but wrk has got {completed}");
    assert!(ended + aborted <= completed + 16, "{ended} ended and {aborted} aborted, but wrk began at most 16 more");
    assert!(ended + aborted >= logged, "{ended} ended and {aborted} aborted, but nginx took {logged}");
    assert_eq!(page.counter(ABORTED).label("side", "server").value(), 0, "the client ended first");
}

/// Starts uvicorn with the streaming application on a free port.
fn uvicorn(dir: &Path, options: &[&str]) -> (Daemon, u16) {
    let port = free_port();
    let mut command = Command::new(tools::python());
    command.args(["-m", "uvicorn", "stream_app:app", "--log-level", "warning", "--port", &port.to_string()]);
    command.arg("--app-dir").arg(fixture("")).args(options);
    command.env("TRUTH", dir.join("truth")).env("PYTHONDONTWRITEBYTECODE", "1");
    (Daemon::start(&mut command, port, dir.join("output.log")), port)
}

/// One stream as server and client know it.
struct Streamed {
    asked: Stamp,
    header: Stamp,
    chunks: Vec<Stamp>,
    end: Stamp,
}

impl Streamed {
    fn new(asked: Stamp, done: Stamp, truth: &Value) -> Self {
        let time = |value: &Value| value.as_u64().expect("a time in nanoseconds");
        let chunk = |pair: &Value| Stamp { before: time(&pair[0]), after: time(&pair[1]) };
        Self {
            asked,
            header: Stamp { before: time(&truth["returned"]), after: time(&truth["entered"]) },
            chunks: truth["chunks"].as_array().expect("chunks").iter().map(chunk).collect(),
            end: Stamp { before: time(&truth["ended"]), after: done.after },
        }
    }
}

/// Four clients ask for three streams each, all at once.
fn streams_are_measured_as_the_application_wrote_them(options: &[&str]) {
    const TOKENS: u64 = 25;
    let dir = tempfile::tempdir().expect("make a temporary directory");
    let (_daemon, port) = uvicorn(dir.path(), options);
    let agent = Agent::measuring(port);
    let ask_three = |client: u64| {
        let mut peer = Peer::connect((Ipv4Addr::LOCALHOST, port));
        let ask = |turn: u64| {
            let user = client * 10 + turn;
            let pace = 0.004 + client as f64 / 1000.0;
            let body = format!(r#"{{"user":{user},"max_tokens":{TOKENS},"pace":{pace},"stream":true}}"#);
            let asked = peer.write(post("/v1/chat/completions?version=1", &body));
            (user, asked, peer.read_through(LAST_CHUNK).at)
        };
        (0..3).map(ask).collect::<Vec<_>>()
    };
    let asked: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|client| scope.spawn(move || ask_three(client))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("the client got its answers")).collect()
    });
    let text = fs::read_to_string(dir.path().join("truth")).expect("the application has written its truth");
    let truths: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of_user = |user: u64| truths.iter().find(|truth| truth["user"] == user).expect("every stream told its truth");
    let streams: Vec<_> =
        asked.into_iter().map(|(user, asked, done)| Streamed::new(asked, done, of_user(user))).collect();
    let spans = |end: fn(&Streamed) -> Stamp| -> Vec<Span> {
        streams.iter().map(|stream| stream.asked.until(end(stream))).collect()
    };

    let page = assert_eventually!(agent, |page| page.requests() == 12);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 12)]));
    assert_eq!(page.counter(CHUNKS).value(), 12 * TOKENS);
    page.histogram(TTFB).assert_holds(&spans(|stream| stream.header));
    page.histogram(TTFT).assert_holds(&spans(|stream| stream.chunks[0]));
    page.histogram(DURATION).assert_holds(&spans(|stream| stream.end));
    let between: Vec<_> = streams.iter().flat_map(|stream| gaps(&stream.chunks)).collect();
    page.histogram(INTER_TOKEN).assert_holds(&between);
}

#[test]
fn uvicorn_streams_as_vllm_runs_it() {
    streams_are_measured_as_the_application_wrote_them(&["--http", "httptools", "--loop", "uvloop"]);
}

#[test]
fn uvicorn_streams_in_pure_python() {
    streams_are_measured_as_the_application_wrote_them(&["--http", "h11", "--loop", "asyncio"]);
}
