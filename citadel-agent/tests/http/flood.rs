//! Clients that open connections as fast as they can, beside one that scrapes.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use citadel_agent::http::{Content, Limits};
use citadel_agent::metrics::family::Page;
use socket2::{Domain, Socket, Type};

use crate::support::client::{PATIENCE, connect, parse, read_answer};
use crate::support::{Fake, Server};
use crate::{fake, metrics};

/// Connects from one of loopback's addresses.
fn connect_from(client: Ipv4Addr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((client, 0)).into())?;
    // The test ends a connection at once, so that no port stays taken.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&addr.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Opens connections from these addresses until it is dropped, and sends `bytes` on each.
struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(clients: Vec<Ipv4Addr>, addr: SocketAddr, bytes: &'static [u8]) -> Self {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&opened));
        let thread = thread::spawn(move || {
            let mut open = VecDeque::new();
            for client in clients.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(mut stream) = connect_from(*client, addr) {
                    _ = stream.write_all(bytes);
                    open.push_back(stream);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if open.len() > 60 {
                    open.pop_front();
                }
            }
        });
        Self { stop, opened, thread: Some(thread) }
    }

    /// Waits until so many have been opened.
    fn wait(&self, opened: usize) {
        while self.opened.load(Ordering::Relaxed) < opened {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Scrapes over a connection of its own; false where that is closed first.
fn scrape(client: Ipv4Addr, addr: SocketAddr) -> bool {
    let scrape = || -> io::Result<Vec<u8>> {
        let mut stream = connect_from(client, addr)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    scrape().is_ok_and(|bytes| !bytes.is_empty() && parse(&bytes).status == 200)
}

/// `127.0.0.2` and those after it.
fn neighbours(count: u8) -> Vec<Ipv4Addr> {
    (2..2 + count).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

fn scrapes_beside_a_flood(bytes: &'static [u8]) {
    // Pages cost next to nothing, so that this is about places and not about CPU time.
    let server = Server::start(Content::Metrics, Fake::new(|_| Ok(Page::default())), Limits::default());
    let floods = [Flood::start(neighbours(8), server.addr, bytes), Flood::start(neighbours(20), server.addr, bytes)];
    floods.iter().for_each(|flood| flood.wait(200));
    let before = server.dropped("connection_limit");
    let answered = (0..20).filter(|_| scrape(Ipv4Addr::LOCALHOST, server.addr)).count();
    floods.iter().for_each(|flood| flood.wait(1000));
    assert_eq!(answered, 20, "scrapes answered");
    assert!(server.dropped("connection_limit") > before + 20, "the flood filled the places");
}

#[test]
fn a_flood_of_connections_from_other_addresses_stops_no_scrape() {
    scrapes_beside_a_flood(b"");
}

#[test]
fn a_flood_of_half_sent_requests_from_other_addresses_stops_no_scrape() {
    scrapes_beside_a_flood(b"GET /metrics HTTP/1.1\r\nHost: te");
}

#[test]
fn a_flood_of_whole_requests_from_other_addresses_stops_no_scrape() {
    scrapes_beside_a_flood(b"GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n");
}

#[test]
fn a_scraper_keeps_its_connection_beside_a_flood_from_other_addresses() {
    let server = metrics();
    let mut scraper = connect(server.addr);
    let flood = Flood::start(neighbours(8), server.addr, b"");
    for scrapes in 1..=20 {
        flood.wait(scrapes * 50);
        scraper.write_all(b"GET /metrics/gpu HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut scraper).unwrap().status, 200);
    }
}

// Beside a flood from its own address, a client has until as many connections came after its own as there may be.

#[test]
fn a_request_that_is_sent_at_once_is_answered_whatever_comes_from_its_address_afterwards() {
    let fake = fake();
    fake.gate.send_replace(0);
    let server = Server::start(Content::Metrics, Arc::clone(&fake), Limits { connections: 4, ..Limits::default() });
    let mut scraper = connect(server.addr);
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let flood: Vec<TcpStream> = (0..500).map(|_| connect(server.addr)).collect();
    fake.gate.send_replace(1);
    assert_eq!(read_answer(&mut scraper).unwrap().status, 200);
    drop(flood);
}

#[test]
fn a_request_that_comes_before_the_places_are_taken_is_answered() {
    let server = Server::start(Content::Metrics, fake(), Limits { connections: 8, ..Limits::default() });
    for _ in 0..20 {
        let mut scraper = connect(server.addr);
        let flood: Vec<TcpStream> = (0..7).map(|_| connect(server.addr)).collect();
        thread::sleep(Duration::from_millis(20));
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut scraper).unwrap().status, 200);
        drop(flood);
    }
}
