//! What is no connection that a model's listener accepted is not measured, and not counted as lost. And what is one, however
//! it came about.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{answer, get, post};
use citadel_agent_tests::names::{CONNECTIONS, OPEN, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::raw::flag::{ACK, PSH, SYN};
use citadel_agent_tests::raw::{self, Header, SERVER, Wire};
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::pause;
use citadel_agent_tests::tun::set_tcp_option;
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket};

/// One request over a connection of its own: so what was counted before it is on the page.
fn one_request(server: &Server, agent: &Agent) -> Page {
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone())]);
    server.connect().ask(get("/health"), response.len());
    playing.truth();
    let page = assert_eventually!(agent, |page| page.requests() == 1 && page.gauge(OPEN).value() == 0);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("health 200", 1)]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 1)]));
    assert_eq!(page.counter(REQUEST_BYTES).value(), get("/health").len() as u64);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), response.len() as u64);
    page
}

#[test]
fn udp_on_a_models_port_is_nobodys() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    for local in [SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())), (Ipv6Addr::LOCALHOST, server.port()).into()] {
        let udp = UdpSocket::bind(local).expect("UDP has ports of its own");
        let client = UdpSocket::bind((local.ip(), 0)).expect("bind a client");
        client.connect(local).expect("connect the client");
        for payload in [&b"x"[..], &[0x50; 1200], get("/v1/models").as_bytes()] {
            client.send(payload).expect("send a datagram");
            let (length, from) = udp.recv_from(&mut [0; 2000]).expect("receive it");
            udp.send_to(&vec![b'y'; length], from).expect("answer");
        }
    }
    one_request(&server, &agent);
}

#[test]
fn a_connection_from_a_models_port_to_elsewhere_is_nobodys() {
    let server = Server::bind();
    // Its port is not measured.
    let elsewhere = Server::bind();
    let agent = Agent::measuring(server.port());
    let playing = elsewhere.serve(|mut peer| {
        peer.read(5);
        // From the side of the model's port, this comes in.
        peer.write(get("/v1/models"));
        peer.read_to_end();
    });
    let client = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).expect("make a socket");
    bind(&client, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), server.port()))).expect("bind to the model's port");
    connect(&client, &SocketAddr::from((Ipv4Addr::LOCALHOST, elsewhere.port()))).expect("connect");
    let mut client = Peer::over(client.into());
    client.write("hello");
    client.read(get("/v1/models").len());
    client.close();
    playing.truth();
    one_request(&server, &agent);
}

#[test]
fn extension_headers_of_ipv6_are_passed_over() {
    // As kernels before 6.19 make BIG TCP: a hop-by-hop header before TCP's. Here with padding (RFC 8200, section 4.2), and unknown
    // destination options behind it.
    let wire = Wire::new();
    let listener = wire.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind the server"));
    let port = listener.local_addr().expect("it is bound").port();
    let agent = Setup::new().model("model", port).start();
    agent.assert_measuring();
    let server = Server::from(listener);
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()); 2]);
    let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const TCP: u8 = 6;
    let (hop, destination) = ([60, 0, 1, 4, 0, 0, 0, 0], [TCP, 1, 0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let extensions = [&hop[..], &destination].concat();
    let send = |seq, ack, flags, payload: &str| {
        let header = Header { client: (Ipv4Addr::UNSPECIFIED, 40_000), port, seq, ack, flags };
        wire.send_packet(&raw::v6(client, &header, 0, &extensions, payload.as_bytes()));
    };
    let answered = |what: &str| {
        (0..50)
            .find_map(|_| wire.receive(100).filter(|answer| answer.header.port == port))
            .unwrap_or_else(|| panic!("{what}"))
    };
    send(1, 0, SYN, "");
    let mut ack = answered("an answer to the SYN").header.seq.wrapping_add(1);
    send(2, ack, ACK, "");
    let mut seq = 2;
    let request = post("/v1/embeddings", "{}");
    for _ in 0..2 {
        send(seq, ack, ACK | PSH, &request);
        seq += request.len() as u32;
        let got = (0..10).map(|_| answered("an answer")).find(|answer| answer.length > 0).expect("a response");
        ack = got.header.seq.wrapping_add(got.length);
        send(seq, ack, ACK, "");
    }
    playing.truth();
    let page = assert_eventually!(agent, |page| page.requests() == 2);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("embeddings 200", 2)]));
    assert_eq!(page.counter(REQUEST_BYTES).value(), 2 * request.len() as u64);
}

#[test]
fn a_request_that_comes_with_the_syn_belongs_to_its_connection() {
    let wire = Wire::new();
    let server = wire.enter(|| {
        // TFO_SERVER_ENABLE and TFO_SERVER_COOKIE_NOT_REQD of `<net/tcp.h>`.
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "514").expect("allow TCP Fast Open");
        Server::bind_with(SocketAddr::from((SERVER, 0)), |socket| {
            set_tcp_option(&socket.as_fd(), libc::TCP_FASTOPEN, 16);
        })
    });
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let request = get("/v1/models");
    for nth in 0..3u16 {
        let playing = server.answer_each(vec![(20, response.clone())]);
        let client = (Ipv4Addr::new(198, 51, 100, 9), 40_000 + nth);
        let header = Header { client, port: server.port(), seq: 77, ack: 0, flags: SYN };
        wire.send(&header, request.as_bytes());
        playing.truth();
        while wire.receive(20).is_some() {}
    }
    pause(50);
    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 3)]));
    assert_eq!(page.counter(REQUEST_BYTES).value(), 3 * request.len() as u64);
    assert!(
        page.histogram("citadel_model_time_to_first_byte_seconds").sum() >= Duration::from_millis(60).as_secs_f64()
    );
}
