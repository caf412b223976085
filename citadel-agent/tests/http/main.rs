//! The listeners over real sockets: what they answer, and that no client keeps another from its answer.

mod flood;
mod guard;
mod memory;

#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::http::{BindError, CollectError, Content, Limits, bind};
use citadel_agent::metrics::catalogue::{Section, models::REQUESTS_IN_FLIGHT};
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::format::Format;
use socket2::{Domain, Socket, Type};
use support::client::{PATIENCE, Response, connect, get, read_answer, request};
use support::{Fake, NASTY, Server, page};

/// Long enough for a busy machine to do something that takes milliseconds, short enough to wait for.
const SHORT: Duration = Duration::from_millis(800);

/// A page of several megabytes: more than the sockets buffer.
fn large() -> Page {
    let names: Vec<String> = (0..400).map(|i| format!("model-{i:0>60}")).collect();
    page(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fake() -> Arc<Fake> {
    Fake::new(|section| {
        let mut page = page(&NASTY);
        page.families
            .retain(|family| section.is_none_or(|section| [section, Section::Agent].contains(&family.desc.section)));
        Ok(page)
    })
}

fn metrics() -> Server {
    Server::start(Content::Metrics, fake(), Limits::default())
}

fn assert_scrape(addr: SocketAddr) {
    let start = Instant::now();
    let answer = get(addr, "/metrics", "");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("citadel_model_requests_total"));
    assert!(start.elapsed() < PATIENCE, "a scrape took {:?}", start.elapsed());
}

/// Whether the other side closes the connection while we send nothing more.
fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let deadline = Instant::now() + within;
    let mut buffer = [0; 65536];
    while Instant::now() < deadline {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(_) => return true,
        }
    }
    false
}

/// A client that takes next to nothing into its own buffers.
fn slow_client(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream
}

// What is answered

#[test]
fn each_page_carries_its_section_and_the_agent() {
    let server = metrics();
    for (path, models) in [
        ("/metrics", true),
        ("/metrics/models", true),
        ("/metrics/gpu", false),
        ("/metrics/system", false),
        ("/metrics/storage", false),
        ("/metrics/services?collect[]=unit", false),
    ] {
        let answer = get(server.addr, path, "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.text().contains("citadel_model_requests_total"), models, "{path}");
        assert!(answer.text().contains("citadel_agent_build_info"), "{path}");
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()), "{path}");
    }
}

#[test]
fn the_format_follows_accept() {
    let server = metrics();
    let content_type = |accept: &str| get(server.addr, "/metrics", accept).header("content-type").unwrap().to_owned();
    assert!(content_type("").starts_with("text/plain; version=0.0.4; charset=utf-8"));
    assert!(
        content_type("Accept: application/openmetrics-text\r\n")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    let two_fields = "Accept: text/plain;q=0.1\r\nAccept: application/vnd.google.protobuf;encoding=delimited\r\n";
    assert!(
        content_type(two_fields)
            .starts_with("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily")
    );
}

#[test]
fn the_overview_is_one_page_and_nothing_from_outside_becomes_markup() {
    let server = metrics();
    let answer = get(server.addr, "/", "");
    let html = answer.text();
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    for part in ["/metrics/models", "phi\\u003c3>", "\\u003cb>&amp;", "11403", "unsupported", "8001"] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(!html.contains("<b>") && !html.contains("<i>"), "{html}");
    // The library of the plots says in a comment where it comes from.
    let html = html.replacen("/*! https://github.com/leeoniya/uPlot ", "", 1);
    assert!(!html.contains("http://") && !html.contains("https://"), "it refers to something outside");
}

#[test]
fn an_unknown_path_lists_the_known_ones() {
    let metrics = metrics();
    let answer = get(metrics.addr, "/metrics/", "");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/metrics/models") && answer.text().contains("/metrics/services"));

    let health = Server::start(Content::Health, fake(), Limits::default());
    let answer = get(health.addr, "/metrics", "");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/ready") && answer.text().contains("/status"));
}

#[test]
fn other_methods_are_refused_and_head_has_no_body() {
    let server = metrics();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = request(server.addr, method, "/metrics", "Content-Length: 0\r\n");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let head = request(server.addr, "HEAD", "/metrics", "");
    let get = get(server.addr, "/metrics", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
}

#[test]
fn the_health_port_says_alive_ready_and_what_is_measured() {
    let fake = fake();
    let server = Server::start(Content::Health, Arc::clone(&fake), Limits::default());
    assert_eq!(get(server.addr, "/health", "").status, 200);
    assert_eq!(get(server.addr, "/ready", "").status, 200);
    *fake.ready.lock().unwrap() = Err("the first read is under way".to_owned());
    let answer = get(server.addr, "/ready", "");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("the first read is under way"));
    assert_eq!(get(server.addr, "/health", "").status, 200, "alive even if not ready");

    let answer = get(server.addr, "/status", "");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["families"][0]["verdict"], "ok");
}

#[test]
fn a_page_that_cannot_be_made_is_an_error_and_never_half_a_page() {
    let unreadable = Fake::new(|_| Err(CollectError { what: "the map of requests", cause: "it is gone".into() }));
    let twice = Fake::new(|_| {
        let mut page = page(&["phi3"]);
        page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11400"], Value::Integer(7));
        Ok(page)
    });
    for (fake, reasons) in [
        (unreadable, ["the map of requests", "it is gone"]),
        (twice, ["citadel_model_requests_in_flight", "phi3, 11400"]),
    ] {
        let server = Server::start(Content::Metrics, fake, Limits::default());
        let answer = get(server.addr, "/metrics", "");
        assert_eq!(answer.status, 500);
        for reason in reasons {
            assert!(answer.text().contains(reason), "{}", answer.text());
        }
        assert!(!answer.text().contains("# TYPE"));
    }
}

#[test]
fn a_reload_moves_a_page() {
    let fake = fake();
    let server = Server::start(Content::Metrics, Arc::clone(&fake), Limits::default());
    fake.config.lock().unwrap().local.endpoints.models = "/llm".to_owned();
    assert_eq!(get(server.addr, "/llm", "").status, 200);
    assert_eq!(get(server.addr, "/metrics/models", "").status, 404);
}

#[test]
fn a_connection_serves_many_requests_one_by_one_and_pipelined() {
    let server = metrics();
    let mut stream = connect(server.addr);
    let one = "GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(one.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    }
    stream.write_all(one.repeat(3).as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    }
}

// What clients do to each other

#[test]
fn a_thousand_idle_connections_do_not_stop_a_scrape() {
    allow_files(4096);
    let server = metrics();
    let mut idle: Vec<TcpStream> = (0..1000).map(|_| connect(server.addr)).collect();
    for _ in 0..3 {
        assert_scrape(server.addr);
    }
    idle.retain_mut(|stream| !is_closed(stream, Duration::from_millis(1)));
    assert!(idle.len() <= Limits::default().connections, "{} are still open", idle.len());
    drop(idle);
    assert_scrape(server.addr);
}

#[test]
fn a_thousand_half_sent_requests_do_not_stop_a_scrape() {
    allow_files(4096);
    let server = metrics();
    let mut half: Vec<TcpStream> = Vec::new();
    for i in 0..1000 {
        let mut stream = connect(server.addr);
        // It may be closed by now, to make room for the next.
        _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: te");
        half.push(stream);
        if i % 250 == 0 {
            assert_scrape(server.addr);
        }
    }
    assert_scrape(server.addr);
}

#[test]
fn slow_readers_do_not_stop_a_scrape() {
    let server =
        Server::start(Content::Metrics, Fake::new(|_| Ok(large())), Limits { connections: 4, ..Limits::default() });
    let slow: Vec<TcpStream> = (0..6).map(|_| slow_client(server.addr)).collect();
    let answer = get(server.addr, "/metrics", "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()), "the page is whole");
    drop(slow);
}

#[test]
fn a_reader_that_takes_too_long_is_closed() {
    let limits = Limits { answer: SHORT, ..Limits::default() };
    let server = Server::start(Content::Metrics, Fake::new(|_| Ok(large())), limits);
    let whole = encode(large(), Format::Text).unwrap().len();
    let mut slow = slow_client(server.addr);
    let start = Instant::now();
    let mut got = 0;
    while server.dropped("response_timeout") == 0 {
        assert!(start.elapsed() < PATIENCE, "it is not closed");
        got += slow.read(&mut [0]).unwrap_or_default();
        thread::sleep(Duration::from_millis(50));
    }
    // Whatever was in the sockets' buffers still arrives, then the end.
    let mut rest = Vec::new();
    _ = slow.read_to_end(&mut rest);
    got += rest.len();
    assert!(got < whole / 2, "{got} of {whole} bytes came");
}

#[test]
fn a_header_that_takes_too_long_is_closed_though_bytes_keep_coming() {
    let limits = Limits { request: SHORT, ..Limits::default() };
    let server = Server::start(Content::Metrics, fake(), limits);
    let mut stream = connect(server.addr);
    let start = Instant::now();
    let mut closed = false;
    for byte in b"GET /metrics HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat_n(&b'x', 200)) {
        closed = stream.write_all(&[*byte]).is_err() || is_closed(&mut stream, Duration::from_millis(50));
        if closed {
            break;
        }
    }
    assert!(closed && start.elapsed() >= SHORT, "{closed} after {:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed_in_the_end_but_not_while_it_is_used() {
    // Much longer than the pause between two requests, also on a busy machine.
    let limits = Limits { idle: SHORT * 3, ..Limits::default() };
    let server = Server::start(Content::Metrics, fake(), limits);
    let mut used = connect(server.addr);
    let mut unused = connect(server.addr);
    let start = Instant::now();
    while !is_closed(&mut unused, SHORT / 8) {
        assert!(start.elapsed() < PATIENCE, "it is not closed");
        used.write_all(b"GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut used).unwrap().status, 200);
    }
    assert!(!is_closed(&mut used, Duration::from_millis(1)));
    assert!(is_closed(&mut used, PATIENCE), "nor is a used one kept forever");
}

#[test]
fn a_newcomer_takes_the_place_of_the_one_that_is_idle_for_longest() {
    let server = Server::start(Content::Metrics, fake(), Limits { connections: 3, ..Limits::default() });
    let mut connections: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(server.addr);
        stream.write_all(b"GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
        connections.push(stream);
    }
    // The first one asks again, so that the second is now idle for longest.
    connections[0].write_all(b"GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut connections[0]).unwrap().status, 200);
    assert_scrape(server.addr);
    assert!(is_closed(&mut connections[1], PATIENCE));
    assert!(!is_closed(&mut connections[0], SHORT / 4));
    assert!(!is_closed(&mut connections[2], SHORT / 4));
}

#[test]
fn huge_and_broken_headers_are_refused() {
    let server = metrics();
    let huge = get(server.addr, "/metrics", &format!("X-Huge: {}\r\n", "x".repeat(20_000)));
    assert_eq!(huge.status, 431);
    let many = get(server.addr, "/metrics", &"X-Many: x\r\n".repeat(500));
    assert_eq!(many.status, 431);
    let mut stream = connect(server.addr);
    stream.write_all(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n").unwrap();
    assert!(is_closed(&mut stream, PATIENCE));
    assert_scrape(server.addr);
}

#[test]
fn who_has_shut_the_sending_side_still_gets_the_answer() {
    // More than one write, so that the end of the request is seen while the answer is under way.
    let server = Server::start(Content::Metrics, Fake::new(|_| Ok(large())), Limits::default());
    let mut stream = connect(server.addr);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer: Response = read_answer(&mut stream).unwrap();
    assert_eq!(answer.status, 200);
    assert!(is_closed(&mut stream, PATIENCE), "and then the connection ends");

    let mut silent = connect(server.addr);
    silent.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut silent, PATIENCE));
}

// Beginning and end

#[test]
fn at_shutdown_the_answer_under_way_is_finished_and_idle_connections_end() {
    let mut server = Server::start(Content::Metrics, Fake::new(|_| Ok(large())), Limits::default());
    let mut idle = connect(server.addr);
    let mut reader = slow_client(server.addr);
    reader.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
    server.stop();
    assert!(is_closed(&mut idle, PATIENCE));
    assert!(TcpStream::connect(server.addr).is_err(), "no new connections");
    let mut bytes = first.to_vec();
    reader.read_to_end(&mut bytes).unwrap();
    let answer = support::client::parse(&bytes);
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    server.join();
}

#[test]
fn shutdown_does_not_wait_longer_than_the_grace_time() {
    let limits = Limits { grace: SHORT, ..Limits::default() };
    let server = Server::start(Content::Metrics, Fake::new(|_| Ok(large())), limits);
    let mut stuck = slow_client(server.addr);
    let mut first = [0; 1];
    stuck.read_exact(&mut first).unwrap();
    let start = Instant::now();
    server.join();
    assert!(start.elapsed() >= SHORT && start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn the_port_is_free_again_after_a_shutdown() {
    let server = metrics();
    let addr = server.addr;
    // A connection that the server ends leaves TIME_WAIT on the server's side.
    let mut idle = connect(addr);
    server.join();
    assert!(is_closed(&mut idle, PATIENCE));
    bind(addr.ip(), addr.port()).expect("bound again at once");
}

#[test]
fn a_taken_port_is_named_with_its_owner_and_a_way_out() {
    let server = metrics();
    let error = bind(server.addr.ip(), server.addr.port()).unwrap_err();
    let text = error.to_string();
    let BindError::InUse { holder, .. } = error else { panic!("{error:?}") };
    assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()));
    let port = format!("port {}", server.addr.port());
    assert!(text.contains(&port) && text.contains("choose another port"), "{text}");
}

#[test]
fn the_unspecified_address_takes_ipv4_with_or_without_ipv6() {
    let listener = bind(Ipv6Addr::UNSPECIFIED.into(), 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    connect(SocketAddr::from(([127, 0, 0, 1], port)));
    let (_, peer) = listener.accept().unwrap();
    assert!(peer.ip().to_canonical().is_loopback(), "{peer}");
}

/// Raises the soft limit on open files, which is 1024 by default.
fn allow_files(files: libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a limit of our own and keep none.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_cur.max(files).min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    assert!(done && limit.rlim_cur >= files, "this test needs {files} file descriptors");
}
