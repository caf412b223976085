//! What responses and requests may hold in memory.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::http::{Content, Limits};
use citadel_agent::metrics::encode;
use citadel_agent::metrics::format::Format;
use flate2::read::GzDecoder;

use crate::support::client::{PATIENCE, Response, connect, get, read_answer, request};
use crate::support::{Fake, Server, page};
use crate::{SHORT, assert_scrape, is_closed, large, metrics, slow_client};

/// A fake agent with this page, and how often it was collected.
fn counting(page: fn() -> citadel_agent::metrics::family::Page) -> (Arc<Fake>, Arc<AtomicUsize>) {
    let collected = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&collected);
    let fake = Fake::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(page())
    });
    (fake, collected)
}

/// Waits until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lets go of the requests that wait for the sources, once there are so many.
fn read_the_sources(fake: &Fake, requests: usize) {
    eventually("the requests wait", || fake.gate.receiver_count() == requests);
    fake.gate.send_replace(1);
}

fn whole(stream: &mut TcpStream) -> io::Result<Response> {
    stream.set_read_timeout(Some(PATIENCE))?;
    read_answer(stream)
}

// Compression

#[test]
fn who_asks_for_gzip_gets_it_and_nobody_else() {
    let server = metrics();
    for path in ["/metrics", "/metrics/models", "/"] {
        let plain = get(server.addr, path, "Accept-Encoding: deflate, br\r\n");
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let gzip = get(server.addr, path, "Accept-Encoding: gzip\r\n");
        assert_eq!(gzip.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(gzip.header("content-type"), plain.header("content-type"), "{path}");
        assert_eq!(gzip.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(gzip.header("content-length"), Some(&*gzip.body.len().to_string()), "{path}");
        let head = request(server.addr, "HEAD", path, "Accept-Encoding: gzip\r\n");
        assert_eq!(head.header("content-length"), gzip.header("content-length"), "{path}");
        assert_eq!((head.header("content-encoding"), head.body.len()), (Some("gzip"), 0), "{path}");
        let mut decoded = Vec::new();
        GzDecoder::new(&gzip.body[..]).read_to_end(&mut decoded).unwrap();
        assert!(decoded == plain.body, "{path}");
        assert!(gzip.body.len() < plain.body.len() / 2, "{path}: {} of {}", gzip.body.len(), plain.body.len());
    }
}

// Shared pages

#[test]
fn requests_that_wait_for_one_reading_share_a_page_for_each_format_and_coding() {
    let (fake, collected) = counting(|| page(&["phi3"]));
    fake.gate.send_replace(0);
    let server = Server::start(Content::Metrics, Arc::clone(&fake), Limits::default());
    let kinds = ["", "Accept-Encoding: gzip\r\n", "Accept: application/openmetrics-text\r\n"];
    let clients: Vec<_> = (kinds.iter().cycle().take(12))
        .map(|headers| {
            let mut stream = connect(server.addr);
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\n{headers}\r\n").unwrap();
            stream
        })
        .collect();
    read_the_sources(&fake, 12);
    let answers: Vec<Response> = clients.into_iter().map(|mut stream| whole(&mut stream).unwrap()).collect();
    assert_eq!(collected.load(Ordering::SeqCst), kinds.len(), "once for each kind");
    for (kind, answer) in kinds.iter().cycle().zip(&answers) {
        let alone = get(server.addr, "/metrics", kind);
        assert_eq!((answer.status, &answer.headers[..]), (200, &read_again(&alone, answer)[..]), "{kind}");
        assert!(answer.body == alone.body, "{kind}");
    }
}

/// The headers of `other`, without what belongs to its connection or its second.
fn read_again(other: &Response, like: &Response) -> Vec<(String, String)> {
    let own = |name: &str| like.header(name).map(|value| (name.to_owned(), value.to_owned()));
    let headers = other.headers.iter().filter(|(name, _)| name != "connection");
    headers.map(|(name, value)| own(name).filter(|_| name == "date").unwrap_or((name.clone(), value.clone()))).collect()
}

#[test]
fn a_later_request_has_a_page_of_its_own() {
    let (fake, collected) = counting(|| page(&["phi3"]));
    let server = Server::start(Content::Metrics, fake, Limits::default());
    for scrapes in 1..=3 {
        assert_scrape(server.addr);
        assert_eq!(collected.load(Ordering::SeqCst), scrapes);
    }
}

// Slow readers

/// Asks for a page and takes one byte of it.
fn begin(addr: SocketAddr) -> TcpStream {
    let mut stream = slow_client(addr);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Takes the rest; whether that was all.
fn takes_all(stream: &mut TcpStream, length: usize) -> bool {
    let (mut taken, mut buffer) = (0, vec![0; 1 << 16]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while taken <= length
        && let Ok(count @ 1..) = stream.read(&mut buffer)
    {
        taken += count;
    }
    taken > length
}

#[test]
fn the_slowest_readers_go_when_responses_take_too_much_memory() {
    let length = encode(large(), Format::Text).unwrap().len();
    let limits = Limits { response_bytes: length * 5 / 2, ..Limits::default() };
    let log = Log::default();
    let server = log.of(|| Server::start(Content::Metrics, Fake::new(|_| Ok(large())), limits));
    let mut readers: Vec<TcpStream> = (0..6).map(|_| begin(server.addr)).collect();
    eventually("four make room for two", || server.dropped("memory_limit") == 4);
    let answer = get(server.addr, "/metrics", "");
    assert_eq!((answer.status, answer.body.len()), (200, length), "who reads gets its page");
    eventually("one of two made room for it", || server.dropped("memory_limit") == 5);
    let whole: Vec<bool> = readers.iter_mut().map(|stream| takes_all(stream, length)).collect();
    assert_eq!(whole, [false, false, false, false, false, true]);
    assert_eq!(log.count("reason=\"memory_limit\""), 1, "logged once, not at each");
}

#[test]
fn readers_that_share_a_page_hold_it_once() {
    let length = encode(large(), Format::Text).unwrap().len();
    let fake = Fake::new(|_| Ok(large()));
    fake.gate.send_replace(0);
    let limits = Limits { response_bytes: length * 3 / 2, ..Limits::default() };
    let server = Server::start(Content::Metrics, Arc::clone(&fake), limits);
    let mut readers: Vec<TcpStream> = (0..10).map(|_| slow_client(server.addr)).collect();
    read_the_sources(&fake, 10);
    readers.iter_mut().for_each(|stream| assert!(takes_all(stream, length)));
    assert_eq!(server.dropped("memory_limit"), 0);
}

#[test]
fn a_response_larger_than_the_memory_for_all_is_still_sent() {
    let limits = Limits { response_bytes: 1000, ..Limits::default() };
    let server = Server::start(Content::Metrics, Fake::new(|_| Ok(large())), limits);
    let answer = get(server.addr, "/metrics", "");
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    assert_eq!(server.dropped("memory_limit"), 0);
}

#[test]
fn a_response_that_waits_for_its_sources_is_neither_idle_nor_slow() {
    let fake = Fake::new(|_| Ok(large()));
    fake.gate.send_replace(0);
    let limits = Limits { idle: SHORT, connections: 3, ..Limits::default() };
    let server = Server::start(Content::Metrics, Arc::clone(&fake), limits);
    let mut waiting = connect(server.addr);
    waiting.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    thread::sleep(SHORT * 2);
    let _idle: Vec<TcpStream> = (0..10).map(|_| connect(server.addr)).collect();
    assert_eq!(get(server.addr, "/nowhere", "").status, 404);
    fake.gate.send_replace(1);
    assert_eq!(whole(&mut waiting).unwrap().status, 200);
}

// Requests

#[test]
fn pipelined_requests_wait_until_their_client_reads() {
    let (fake, collected) = counting(large);
    let server = Server::start(Content::Metrics, fake, Limits::default());
    let mut stream = slow_client(server.addr);
    stream.set_write_timeout(Some(SHORT)).unwrap();
    // As many as the sockets take.
    _ = stream.write_all("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100_000).as_bytes());
    thread::sleep(SHORT);
    assert!(collected.load(Ordering::SeqCst) <= 2, "{} pages for one client", collected.load(Ordering::SeqCst));
    assert_scrape(server.addr);
}

#[test]
fn request_bodies_are_not_read() {
    let server = metrics();
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 1073741824\r\n\r\n", 405),
        ("GET /metrics/gpu HTTP/1.1\r\nHost: test\r\nContent-Length: 1073741824\r\n\r\n", 200),
        ("GET /metrics/gpu HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n", 200),
        ("PUT /nowhere HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n", 404),
    ] {
        let mut stream = connect(server.addr);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap().status, status, "{request}");
        let taken = (0..1024).take_while(|_| stream.write_all(&[0; 65536]).is_ok()).count();
        assert!(taken < 512, "{taken} times 64 KiB of a body were taken: {request}");
        assert!(is_closed(&mut stream, PATIENCE), "{request}");
    }
    assert_scrape(server.addr);
}

#[test]
fn a_request_line_without_end_is_refused() {
    let server = metrics();
    let mut stream = connect(server.addr);
    let taken = (0..1024).take_while(|_| stream.write_all(&[b'x'; 65536]).is_ok()).count();
    assert!(taken < 512, "{taken} times 64 KiB were taken");
    let path = format!("/{}", "x".repeat(15_000));
    assert_eq!(get(server.addr, &path, "").status, 404);
    assert_eq!(get(server.addr, &path.repeat(2), "").status, 431);
    assert_scrape(server.addr);
}

/// What a server logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Runs something whose log this is.
    fn of<T>(&self, run: impl FnOnce() -> T) -> T {
        // Without a log of the process, tracing may ask only the thread that reaches a line first whether the line is
        // wanted, and remember its no for all threads. The tests beside this one have no log.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let nowhere = tracing_subscriber::fmt().with_writer(io::sink).finish();
            tracing::subscriber::set_global_default(nowhere).unwrap();
        });
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        tracing::subscriber::with_default(subscriber, run)
    }

    fn count(&self, what: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(what).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
