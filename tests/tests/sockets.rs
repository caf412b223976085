//! The kinds of sockets that servers listen on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{answer, get, post};
use citadel_agent_tests::names::{ABORTED, CONNECTIONS, DURATION, OPEN, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES, TTFB};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::{pause, spans};
use citadel_agent_tests::tun::set_tcp_option;
use rustix::net::sockopt::set_socket_reuseport;

#[test]
fn ipv6_and_ipv4_clients_of_one_socket_are_measured_alike() {
    // An IPv6 socket takes IPv4 clients as mapped addresses, ::ffff:127.0.0.1.
    let server = Server::bind_with(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), |_| ());
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let (mut sent, mut received) = (0, 0);
    let clients = [
        (SocketAddr::from((Ipv6Addr::LOCALHOST, server.port())), "/health"),
        (SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())), "/v1/models"),
    ];
    for (address, path) in clients {
        let playing = server.answer_each(vec![(15, response.clone()), (5, response.clone())]);
        let mut client = Peer::connect(address);
        asked.push(client.ask(get(path), response.len()));
        asked.push(client.ask(get(path), response.len()));
        answered.extend(playing.truth());
        (sent, received) = (sent + client.sent, received + client.received);
    }
    let truths = spans(&asked, &answered);

    let page = assert_eventually!(agent, |page| page.requests() == 4);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("health 200", 2), ("models 200", 2)]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 2)]));
    page.histogram(TTFB).assert_holds(&truths);
    assert_eq!(page.counter(REQUEST_BYTES).value(), sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), received);
}

#[test]
fn a_socket_for_ipv6_alone_is_measured() {
    let server = Server::bind_to((Ipv6Addr::LOCALHOST, 0));
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(10, response.clone())]);
    let mut client = Peer::connect((Ipv6Addr::LOCALHOST, server.port()));
    let asked = client.ask(post("/v1/embeddings", "{}"), response.len());
    let answered = playing.truth()[0];

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    page.histogram(TTFB).assert_holds(&[asked.until(answered)]);
}

#[test]
fn workers_that_share_a_port_are_one_model() {
    // Sockets of one process here; `real_servers.rs` has nginx with several processes.
    let reuse = |socket: BorrowedFd<'_>| set_socket_reuseport(socket, true).expect("set SO_REUSEPORT");
    let first = Server::bind_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), reuse);
    let port = first.port();
    let mut workers = vec![first];
    workers.extend((0..3).map(|_| Server::bind_with(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), reuse)));
    let agent = Agent::measuring(port);
    let response = answer("200 OK", "{}");
    // The kernel picks a worker by a hash of the client's port, so every worker is ready to take all. Those that wait
    // for connections that others got end with the test.
    for worker in &workers {
        drop(worker.answer_all(64, response.clone()));
    }
    for _ in 0..64 {
        Peer::connect((Ipv4Addr::LOCALHOST, port)).ask(get("/v1/models"), response.len());
    }

    let page = assert_eventually!(agent, |page| page.requests() == 64 && page.gauge(OPEN).value() == 0);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 64)]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 64)]));
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
}

#[test]
fn a_request_that_completes_the_handshake_belongs_to_its_connection() {
    // With TCP_DEFER_ACCEPT the first segment with payload completes the handshake, and runs with the listener's socket.
    let server = Server::bind_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), |socket| {
        set_tcp_option(&socket, libc::TCP_DEFER_ACCEPT, 5);
    });
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..3 {
        let playing = server.answer_each(vec![(20, response.clone()), (10, response.clone())]);
        let mut client = server.connect();
        pause(15);
        asked.push(client.ask(get("/v1/models"), response.len()));
        asked.push(client.ask(get("/health"), response.len()));
        answered.extend(playing.truth());
        (sent, received) = (sent + client.sent, received + client.received);
    }
    let truths = spans(&asked, &answered);

    let page = assert_eventually!(agent, |page| page.requests() == 6);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 3), ("health 200", 3)]));
    assert_eq!(page.counter(CONNECTIONS).by(["protocol"]), sums([("http1", 3)]));
    page.histogram(TTFB).assert_holds(&truths);
    page.histogram(DURATION).assert_holds(&truths);
    assert_eq!(page.counter(REQUEST_BYTES).value(), sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), received);
}

#[test]
fn open_connections_go_up_and_down() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    assert_eq!(agent.scrape().gauge(OPEN).value(), 0);
    let mut clients = Vec::new();
    for open in 1..=3 {
        let playing = server.serve(|mut peer| drop(peer.read_to_end()));
        clients.push((server.connect(), playing));
        assert_eventually!(agent, |page| page.gauge(OPEN).value() == open);
    }
    for open in (0..3).rev() {
        let (client, playing) = clients.pop().expect("three are open");
        client.close();
        playing.truth();
        assert_eventually!(agent, |page| page.gauge(OPEN).value() == open);
    }
    assert_eq!(agent.scrape().counter(CONNECTIONS).value(), 3);
}

#[test]
fn a_connection_older_than_the_agent_does_not_make_the_gauge_wrap() {
    let server = Server::bind();
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()), (0, response.clone())]);
    let mut client = server.connect();
    client.ask(get("/v1/models"), response.len());
    let agent = Agent::measuring(server.port());
    client.ask(get("/v1/models"), response.len());
    playing.truth();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.gauge(OPEN).value(), 0);
}

#[test]
fn models_on_two_ports_are_two_models() {
    let (phi, yi) = (Server::bind(), Server::bind());
    let agent = Setup::new().model("phi3", phi.port()).model("yi34b", yi.port()).start();
    agent.assert_measuring();
    let response = answer("200 OK", "{}");
    let mut truths = Vec::new();
    for (server, ms) in [(&phi, 5), (&yi, 40)] {
        let playing = server.answer_each(vec![(ms, response.clone()); 3]);
        let mut client = server.connect();
        let asked: Vec<_> = (0..3).map(|_| client.ask(get("/v1/models"), response.len())).collect();
        truths.push(spans(&asked, &playing.truth()));
    }

    let page = assert_eventually!(agent, |page| page.requests() == 6);
    page.assert_nothing_lost();
    let expected = sums([(&format!("phi3 {}", phi.port()), 3), (&format!("yi34b {}", yi.port()), 3)]);
    assert_eq!(page.counter(REQUESTS).by(["model", "port"]), expected);
    page.histogram(TTFB).label("model", "phi3").assert_holds(&truths[0]);
    page.histogram(TTFB).label("model", "yi34b").assert_holds(&truths[1]);
}
