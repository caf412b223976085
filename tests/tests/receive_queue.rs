//! Requests that lie in the kernel until the server reads them: what an event loop that is busy looks like.

use std::net::Ipv4Addr;

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{answer, get, post};
use citadel_agent_tests::names::{DURATION, LOST, RECEIVE_QUEUE};
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::truth::{Span, Stamp, pause, spans};
use citadel_agent_tests::tun::set_tcp_option;

/// Reads a request after `ms` milliseconds; the stamp is that of the read.
fn read_late(peer: &mut Peer, ms: u64, length: usize) -> Stamp {
    pause(ms);
    Stamp::of(|| peer.read(length)).1
}

#[test]
fn a_server_that_sleeps_before_it_reads_keeps_requests_waiting_for_as_long() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (request, response) = (post("/v1/chat/completions", "{}"), answer("200 OK", "{}"));
    let (length, script) = (request.len(), response.clone());
    let playing = server.serve(move |mut peer| {
        [150, 0, 60, 20].map(|ms| {
            let read = read_late(&mut peer, ms, length);
            peer.write(&script);
            read
        })
    });

    let mut client = server.connect();
    let asked: Vec<_> = (0..4).map(|_| client.ask(&request, response.len())).collect();
    let waited = spans(&asked, &playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 4);
    page.assert_nothing_lost();
    page.histogram(RECEIVE_QUEUE).assert_holds(&waited);
    assert!(page.histogram(DURATION).sum() >= page.histogram(RECEIVE_QUEUE).sum(), "it is part of the whole");
}

#[test]
fn time_before_accept_is_part_of_it() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (request, response) = (get("/v1/models"), answer("200 OK", "{}"));
    let mut client = server.connect();
    let asked = client.write(&request);
    pause(120);
    let (length, script) = (request.len(), response.clone());
    let playing = server.serve(move |mut peer| {
        let read = read_late(&mut peer, 0, length);
        peer.write(&script);
        read
    });
    client.read(response.len());
    let waited = asked.until(playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.histogram(RECEIVE_QUEUE).assert_holds(&[waited]);
}

#[test]
fn data_that_came_with_the_handshake_waits_as_well() {
    let server = Server::bind_discovered_with(Ipv4Addr::LOCALHOST.into(), |socket| {
        set_tcp_option(&socket, libc::TCP_DEFER_ACCEPT, 5);
    });
    let agent = Agent::measuring(server.port());
    let (request, response) = (get("/v1/models"), answer("200 OK", "{}"));
    let (length, script) = (request.len(), response.clone());
    let playing = server.serve(move |mut peer| {
        let read = read_late(&mut peer, 80, length);
        peer.write(&script);
        read
    });
    let mut client = server.connect();
    let asked = client.ask(&request, response.len());
    let waited = asked.until(playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.histogram(RECEIVE_QUEUE).assert_holds(&[waited]);
}

#[test]
fn each_of_several_requests_waits_for_its_own_first_byte_to_be_read() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (request, response) = (get("/v1/models"), answer("200 OK", "{}"));
    let (length, script) = (request.len(), response.clone());
    // All three come in one segment. The first is read by itself, then one byte of the second, then the rest.
    let playing = server.serve(move |mut peer| {
        let first = read_exactly(&mut peer, 50, length);
        let second = read_exactly(&mut peer, 40, 1);
        let third = read_exactly(&mut peer, 30, 2 * length - 1);
        peer.write(script.repeat(3));
        [first, second, third]
    });
    let mut client = server.connect();
    let asked = client.ask(request.repeat(3), 3 * response.len());
    let reads = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    let waited: Vec<_> = reads.iter().map(|&read| asked.until(read)).collect();
    page.histogram(RECEIVE_QUEUE).assert_holds(&waited);
}

#[test]
fn a_request_that_dribbles_in_waits_for_its_first_byte_only() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (request, response) = (get("/v1/models"), answer("200 OK", "{}"));
    let (length, script) = (request.len(), response.clone());
    let playing = server.serve(move |mut peer| {
        let first = read_exactly(&mut peer, 70, 1);
        peer.read(length - 1);
        peer.write(&script);
        first
    });
    let mut client = server.connect();
    let (first, _) = client.dribble(&request, 2);
    client.read(response.len());
    let waited: Span = first.until(playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.histogram(RECEIVE_QUEUE).assert_holds(&[waited]);
}

/// Takes no more than `length` bytes from the socket, after `ms` milliseconds.
fn read_exactly(peer: &mut Peer, ms: u64, length: usize) -> Stamp {
    pause(ms);
    Stamp::of(|| peer.take(length)).1
}

#[test]
fn requests_beyond_what_can_be_remembered_are_reported() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let request = get("/v1/models");
    let length = request.len();
    let playing = server.serve(move |mut peer| {
        pause(50);
        peer.read(20 * length);
    });
    let mut client = server.connect();
    client.write(request.repeat(20));
    playing.truth();

    let page = assert_eventually!(agent, |page| page.histogram(RECEIVE_QUEUE).count() > 0);
    let lost = page.counter(LOST).label("reason", "pipeline_full").value();
    assert_eq!(page.histogram(RECEIVE_QUEUE).count() + lost, 20, "each is measured or reported");
    assert_eq!(lost, 4);
}
