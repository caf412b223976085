//! A campaign over real sockets and raw packets: clients that keep to no rule, a server that closes as it likes. When all
//! sockets are gone, each request that began has left, and each connection was one handshake.
//!
//! `CAMPAIGN_SECONDS` says for how long (`cargo xtask campaign net`), `CAMPAIGN_SEED` repeats one.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::chance::Chance;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, event, get, post, post_head};
use citadel_agent_tests::names::{ABORTED, CONNECTIONS, IN_FLIGHT, LOST, OPEN};
use citadel_agent_tests::raw::flag::{ACK, FIN, PSH, RST, SYN};
use citadel_agent_tests::raw::{Header, SERVER, Wire};
use citadel_agent_tests::truth::pause;
use rustix::net::sockopt::set_socket_linger;

/// What a client may say: whole requests, parts of them, and noise.
fn sayings() -> Vec<Vec<u8>> {
    let chunked = "POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        get("/v1/models").into_bytes(),
        chat().into_bytes(),
        post("/v1/embeddings", "{\"input\":1}").into_bytes(),
        get("/health").repeat(3).into_bytes(),
        post_head("/v1/completions", 100).into_bytes(),
        format!("{chunked}5\r\nhello\r\n0\r\n\r\n").into_bytes(),
        format!("{chunked}ffff\r\nhel").into_bytes(),
        b"GET /v1/mod".to_vec(),
        b"els HTTP/1.1\r\n\r\n".to_vec(),
        b"hello, this is no request\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00".to_vec(),
    ]
}

/// What a server may say.
fn answers() -> Vec<Vec<u8>> {
    vec![
        answer("200 OK", "{}").into_bytes(),
        format!("{STREAM_HEAD}{}{LAST_CHUNK}", event("a")).into_bytes(),
        format!("{STREAM_HEAD}{}", event("a")).into_bytes(),
        b"HTTP/1.1 200 OK\r\n\r\nuntil I close".to_vec(),
        b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"oops\r\n".to_vec(),
    ]
}

/// A server's connection: it reads, answers or does not, and ends in one of the ways in which a connection can end.
fn serve(mut stream: TcpStream, mut chance: Chance, over: &AtomicBool) {
    let answers = answers();
    let _ = stream.set_read_timeout(Some(Duration::from_millis(30)));
    let patience = 1 + chance.below(6);
    for _ in 0..patience {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut bytes = [0; 4096];
        if chance.one_in(3) || stream.read(&mut bytes).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(chance.of(&answers));
        }
    }
    match chance.below(4) {
        0 => {
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
        1 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            thread::sleep(Duration::from_millis(20));
        }
        // What it has not read makes a reset of the close.
        _ => {}
    }
}

/// Takes connections until the campaign is over.
fn accept(listener: &TcpListener, seed: u64, over: &Arc<AtomicBool>) {
    listener.set_nonblocking(true).expect("do not block");
    let mut chance = Chance(seed);
    let mut serving = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).expect("block");
            let (chance, over) = (Chance(chance.number() | 1), Arc::clone(over));
            serving.push(thread::spawn(move || serve(stream, chance, &over)));
        } else {
            pause(1);
        }
        if serving.len() > 200 {
            serving.into_iter().for_each(|serving| serving.join().expect("a server's connection"));
            serving = Vec::new();
        }
    }
    serving.into_iter().for_each(|serving| serving.join().expect("a server's connection"));
}

/// A client that was put together by hand.
#[derive(Clone, Copy)]
struct Client {
    address: (Ipv4Addr, u16),
    /// What it sends next.
    seq: u32,
    /// What it expects next; 0 before the server has said anything.
    ack: u32,
}

/// Clients that keep to no rule, for some time.
fn misbehave(wire: &Wire, port: u16, chance: &mut Chance, time: Duration) {
    let sayings = sayings();
    let mut clients: Vec<Client> = Vec::new();
    let mut next_port = 1024u16;
    let begun = Instant::now();
    while begun.elapsed() < time {
        while let Some(answer) = wire.receive(0) {
            let header = answer.header;
            if let Some(client) = clients.iter_mut().find(|client| client.address == header.client) {
                let takes = answer.length + u32::from(header.flags & (SYN | FIN) != 0);
                if client.ack == 0 || header.seq == client.ack {
                    client.ack = header.seq.wrapping_add(takes);
                }
            }
        }
        let send = |client: &Client, flags: u8, seq: u32, payload: &[u8]| {
            wire.send(&Header { client: client.address, port, seq, ack: client.ack, flags }, payload);
        };
        if clients.len() < 40 || chance.one_in(8) {
            next_port = next_port.checked_add(1).unwrap_or(1024);
            let address = (Ipv4Addr::new(198, 51, 100, 2 + chance.below(200) as u8), next_port);
            let mut client = Client { address, seq: chance.number() as u32, ack: 0 };
            match chance.below(6) {
                // Data with the SYN, which a server without a Fast Open cookie leaves out.
                0 => send(&client, SYN, client.seq, chance.of(&sayings)),
                // Never a handshake at all.
                1 => client.ack = chance.number() as u32,
                _ => send(&client, SYN, client.seq, b""),
            }
            client.seq = client.seq.wrapping_add(1);
            clients.push(client);
            if clients.len() > 120 {
                clients.swap_remove(chance.below(60));
            }
            continue;
        }
        let at = chance.below(clients.len());
        let client = &mut clients[at];
        let stray = client.seq.wrapping_add((chance.number() as u32) >> chance.below(32));
        match chance.below(24) {
            0 => send(client, RST, client.seq, b""),
            1 => send(client, RST | ACK, stray, b""),
            2 => {
                send(client, FIN | ACK, client.seq, b"");
                client.seq = client.seq.wrapping_add(1);
            }
            3 => send(client, FIN | ACK, stray, b""),
            4 => send(client, ACK | PSH, stray, chance.of(&sayings)),
            5 => {
                let payload = chance.of(&sayings);
                send(client, FIN | ACK | PSH, client.seq, payload);
                client.seq = client.seq.wrapping_add(payload.len() as u32 + 1);
            }
            6..10 => send(client, ACK, client.seq, b""),
            _ => {
                let payload = chance.of(&sayings);
                send(client, ACK | PSH, client.seq, payload);
                client.seq = client.seq.wrapping_add(payload.len() as u32);
            }
        }
    }
}

/// Shakes hands by hand and sends a request.
fn ask(wire: &Wire, client: (Ipv4Addr, u16), port: u16, request: &str) {
    let send = |seq, ack, flags, payload: &[u8]| {
        wire.send(&Header { client, port, seq, ack, flags }, payload);
    };
    send(1, 0, SYN, b"");
    let synack = loop {
        let answer = wire.receive(900).expect("an answer to the SYN");
        if answer.header.client == client {
            break answer.header;
        }
    };
    send(2, synack.seq.wrapping_add(1), ACK | PSH, request.as_bytes());
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn when_all_sockets_are_gone_every_request_has_left() {
    let seed = number("CAMPAIGN_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
    let seconds = number("CAMPAIGN_SECONDS").unwrap_or(3);
    println!("CAMPAIGN_SEED={seed}");
    let wire = Wire::new();
    let listener = wire.enter(|| TcpListener::bind((SERVER, 0)).expect("bind the server"));
    let port = listener.local_addr().expect("it is bound").port();
    let agent = Agent::measuring(port);
    let over = Arc::new(AtomicBool::new(false));
    let accepting = {
        let over = Arc::clone(&over);
        thread::spawn(move || accept(&listener, seed ^ 0x5555, &over))
    };
    let mut chance = Chance(seed);
    misbehave(&wire, port, &mut chance, Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    accepting.join().expect("the server");
    // The listener is closed now, and with it what nobody has accepted; nobody answers the rest.
    let deadline = Instant::now() + Duration::from_secs(60);
    while wire.sockets() > 0 {
        assert!(Instant::now() < deadline, "{} sockets are still there", wire.sockets());
        while wire.receive(10).is_some() {}
    }

    let handshakes = wire.handshakes();
    let page = assert_eventually!(agent, |page| page.gauge(OPEN).value() == 0);
    println!("{handshakes} handshakes, {} requests ended, {} aborted", page.requests(), page.counter(ABORTED).value());
    println!("lost: {:?}", page.counter(LOST).by(["reason"]));
    assert!(page.requests() > 0 && page.counter(ABORTED).value() > 0, "the campaign is one:\n{page}");
    assert_eq!(page.gauge(IN_FLIGHT).number(), 0.0, "requests in flight without a socket:\n{page}");
    // Nor have more left than began, which shows beside some that are under way.
    let _nobody_answers = wire.enter(|| TcpListener::bind((SERVER, port)).expect("bind the server again"));
    for nth in 0..5 {
        ask(&wire, (Ipv4Addr::new(198, 51, 100, 250), 40_000 + nth), port, &get("/v1/models"));
    }
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 5);
    assert_eq!(page.counter(CONNECTIONS).value(), handshakes, "connections and handshakes:\n{page}");
    for reason in ["packet_header", "no_memory"] {
        assert_eq!(page.counter(LOST).label("reason", reason).value(), 0, "{reason}");
    }
}

/// Whoever sends to a listener without a handshake leaves no trace, however often.
#[test]
fn data_without_a_handshake_leaves_no_trace() {
    let wire = Wire::new();
    let server = wire.bind();
    let agent = Agent::measuring(server.port());
    let request = get("/v1/models");
    for nth in 0..3000u32 {
        let client = (Ipv4Addr::new(198, 51, 100, 2 + (nth % 200) as u8), 2000 + nth as u16);
        let header = Header { client, port: server.port(), seq: nth * 7919, ack: nth, flags: ACK | PSH };
        wire.send(&header, request.as_bytes());
        wire.send(&Header { flags: SYN, client: (client.0, client.1 + 5000), ..header }, request.as_bytes());
        while wire.receive(0).is_some() {}
    }
    // A real request is seen all the same.
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone())]);
    ask(&wire, (Ipv4Addr::new(198, 51, 100, 250), 40_000), server.port(), &request);
    playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.gauge(IN_FLIGHT).number(), 0.0);
    assert_eq!(page.counter(CONNECTIONS).value(), 1);
    assert_eq!(page.counter("citadel_model_request_bytes_total").value(), request.len() as u64);
}
