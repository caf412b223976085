//! What connections take of the kernel's memory, which counts as the agent's: anybody can open some.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use citadel_agent_tests::agent::Setup;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, chat, event};
use citadel_agent_tests::limit::{MEMORY_MAX, MemoryLimit};
use citadel_agent_tests::names::{CONNECTIONS, LOST, MAP_CAPACITY, MAP_ENTRIES, OPEN, REQUEST_BYTES, RESPONSE_BYTES};
use citadel_agent_tests::scrape::Page;
use citadel_agent_tests::truth::pause;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections to a server of the test's own, both ends.
struct Pairs {
    server: TcpListener,
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Pairs {
    fn new() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("allow many descriptors");
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        Self { server, pairs: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.server.local_addr().expect("it listens")
    }

    fn open(&mut self, count: usize) -> std::ops::Range<usize> {
        let first = self.pairs.len();
        for _ in 0..count {
            let client = TcpStream::connect(self.address()).expect("connect");
            let (server, _) = self.server.accept().expect("accept");
            self.pairs.push((client, server));
        }
        first..self.pairs.len()
    }

    /// A request on each, and the beginning of a streamed answer.
    fn stream(&mut self, which: std::ops::Range<usize>) {
        for (client, server) in &mut self.pairs[which] {
            client.write_all(chat().as_bytes()).expect("ask");
            let mut request = [0; 4096];
            assert!(server.read(&mut request).expect("be asked") > 0);
            server.write_all(format!("{STREAM_HEAD}{}", event("a")).as_bytes()).expect("begin to answer");
        }
    }

    /// What a TLS handshake and some data look like from outside: `ROUNDS` records in each direction.
    fn speak_tls(&mut self, which: std::ops::Range<usize>) {
        for (client, server) in &mut self.pairs[which] {
            for round in 0..ROUNDS {
                let record = [22, 3, 1, 0, 5, round as u8, 0, 1, 2, 3];
                client.write_all(&record).expect("send");
                server.read_exact(&mut [0; 10]).expect("receive");
                server.write_all(&record[..7]).expect("answer");
                client.read_exact(&mut [0; 7]).expect("get the answer");
            }
        }
    }

    /// The rest of the answers.
    fn end(&mut self, which: std::ops::Range<usize>) {
        for (_, server) in &mut self.pairs[which] {
            server.write_all(format!("{}{LAST_CHUNK}", event("b")).as_bytes()).expect("answer");
        }
    }
}

fn entries(page: &Page, map: &str) -> u64 {
    page.gauge(MAP_ENTRIES).label("map", map).value()
}

/// As it is once the agent has nothing to do.
fn settled(limit: &MemoryLimit) -> u64 {
    pause(1500);
    limit.usage()
}

#[test]
fn a_connection_takes_little_until_something_comes_and_then_not_much() {
    // Two descriptors each, of which a process often has 20,000 at most.
    const IDLE: usize = 8_000;
    const ACTIVE: usize = 3_000;
    let mut pairs = Pairs::new();
    let limit = MemoryLimit::new(MEMORY_MAX);
    let agent = Setup::new().model("model", pairs.address().port()).within(limit.entrance()).start();
    agent.assert_measuring();
    let page = agent.scrape();
    let most = page.gauge(MAP_CAPACITY).label("map", "connections").value();
    assert!((ACTIVE as u64..=MEMORY_MAX / 1024).contains(&most), "{most} of 128 MiB");

    let before = settled(&limit);
    pairs.open(IDLE);
    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == IDLE as u64);
    assert_eq!((entries(&page, "idle_connections"), entries(&page, "connections")), (IDLE as u64, 0), "{page}");
    let idle = settled(&limit).saturating_sub(before) / IDLE as u64;

    let before = settled(&limit);
    pairs.stream(0..ACTIVE);
    let page = assert_eventually!(agent, |page| entries(page, "connections") == ACTIVE as u64);
    assert_eq!(entries(&page, "idle_connections"), (IDLE - ACTIVE) as u64, "{page}");
    let active = idle + settled(&limit).saturating_sub(before) / ACTIVE as u64;
    println!("an idle connection: {idle} bytes, one that streams: {active} bytes");
    assert!(idle <= 384, "{idle} bytes an idle connection");
    assert!(active <= MOST_ACTIVE, "{active} bytes an active connection");

    pairs.end(0..ACTIVE);
    let page = assert_eventually!(agent, |page| page.requests() == ACTIVE as u64);
    page.assert_nothing_lost();
    drop(pairs);
    let all = |page: &Page| page.counter(CONNECTIONS).by(["port"]).values().sum::<u64>();
    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0 && all(page) == IDLE as u64);
    assert_eq!((entries(&page, "idle_connections"), entries(&page, "connections")), (0, 0), "{page}");
    assert_eq!(limit.kills(), 0);
}

const ROUNDS: usize = 4;

#[test]
fn a_connection_that_is_not_parsed_gives_its_memory_back_and_its_bytes_count() {
    const COUNT: usize = 3_000;
    let mut pairs = Pairs::new();
    let limit = MemoryLimit::new(MEMORY_MAX);
    let agent = Setup::new().model("model", pairs.address().port()).within(limit.entrance()).start();
    agent.assert_measuring();
    let before = settled(&limit);
    let all = pairs.open(COUNT);
    pairs.speak_tls(all.clone());
    let page = assert_eventually!(agent, |page| entries(page, "connections") == 0);
    assert_eq!(entries(&page, "idle_connections"), COUNT as u64, "{page}");
    let each = settled(&limit).saturating_sub(before) / COUNT as u64;
    println!("a connection that is not parsed: {each} bytes");
    assert!(each <= 384, "{each} bytes a connection that is not parsed");

    // What comes later is not parsed either, and not counted twice.
    pairs.speak_tls(all);
    drop(pairs);
    let page = assert_eventually!(agent, |page| page.counter(CONNECTIONS).label("protocol", "tls").value()
        == COUNT as u64
        && page.gauge(OPEN).value() == 0);
    assert_eq!(entries(&page, "idle_connections"), 0, "{page}");
    let records = (2 * ROUNDS * COUNT) as u64;
    assert_eq!(page.counter(REQUEST_BYTES).value(), 10 * records, "{page}");
    assert_eq!(page.counter(RESPONSE_BYTES).value(), 7 * records, "{page}");
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]).values().sum::<u64>(), COUNT as u64, "{page}");
    page.assert_no_request_invented();
    page.assert_nothing_lost();
}

#[test]
fn connections_older_than_the_agent_that_are_upgraded_give_their_memory_back_too() {
    const COUNT: usize = 20;
    const UPGRADE: &str = "GET /v1/realtime HTTP/1.1\r\nHost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let mut pairs = Pairs::new();
    let all = pairs.open(COUNT);
    let agent = Setup::new().model("model", pairs.address().port()).start();
    agent.assert_measuring();
    for (client, server) in &mut pairs.pairs {
        client.write_all(UPGRADE.as_bytes()).expect("ask");
        server.read_exact(&mut [0; UPGRADE.len()]).expect("be asked");
        server.write_all(SWITCHING.as_bytes()).expect("switch");
        client.read_exact(&mut [0; SWITCHING.len()]).expect("be told");
    }
    pairs.speak_tls(all);
    let page = assert_eventually!(agent, |page| entries(page, "connections") == 0);
    assert_eq!(entries(&page, "idle_connections"), COUNT as u64, "{page}");

    drop(pairs);
    let page = assert_eventually!(agent, |page| entries(page, "idle_connections") == 0);
    assert_eq!(entries(&page, "connections"), 0, "{page}");
    assert_eq!(page.counter(CONNECTIONS).label("protocol", "upgraded").value(), COUNT as u64, "{page}");
    assert_eq!(page.counter(REQUEST_BYTES).value(), (COUNT * (UPGRADE.len() + 10 * ROUNDS)) as u64, "{page}");
    assert_eq!(page.counter(RESPONSE_BYTES).value(), (COUNT * (SWITCHING.len() + 7 * ROUNDS)) as u64, "{page}");
    assert_eq!(page.requests(), COUNT as u64, "{page}");
    page.assert_nothing_lost();
}

/// Bytes of a connection on which requests came.
const MOST_ACTIVE: u64 = 1408;

#[test]
fn connections_beyond_the_limit_are_counted_but_not_followed() {
    let mut pairs = Pairs::new();
    let setup = Setup::new().model("model", pairs.address().port());
    let agent = setup.start();
    agent.assert_measuring();
    let config = agent.config();
    agent.reload_with(&config.replace("syscall_form: raw_tp", "syscall_form: raw_tp, max_connections: 10"));
    assert_eventually!(agent, |page| page.gauge(MAP_CAPACITY).label("map", "connections").value() == 10);

    let all = pairs.open(25);
    pairs.stream(all.clone());
    pairs.end(all);
    let page = assert_eventually!(agent, |page| page.requests() == 10);
    assert_eq!(page.gauge(OPEN).value(), 25, "{page}");
    assert_eq!(page.counter(LOST).label("reason", "connections_full").value(), 15, "{page}");
    agent.wait_for_log("ebpf.max_connections");
    let incomplete = &agent.status()["families"]["net"]["incomplete"];
    assert_eq!(incomplete[0]["reason"], "connections_full", "{incomplete}");

    // Room comes back with the connections that end, and those that had none are counted as what was seen of them: nothing.
    drop(pairs.pairs.split_off(0));
    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0 && entries(page, "connections") == 0);
    assert_eq!(page.counter(CONNECTIONS).label("protocol", "http1").value(), 10, "{page}");
    assert_eq!(page.counter(CONNECTIONS).label("protocol", "other").value(), 15, "{page}");
    let all = pairs.open(10);
    pairs.stream(all.clone());
    pairs.end(all);
    let page = assert_eventually!(agent, |page| page.requests() == 20);
    assert_eq!(page.counter(LOST).label("reason", "connections_full").value(), 15, "{page}");
}
