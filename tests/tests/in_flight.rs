//! Requests without a complete response: for how long, and for how long nothing has come.

use std::sync::mpsc;

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, chat, event, post_head};
use citadel_agent_tests::names::{IN_FLIGHT, LONGEST_WAIT, OLDEST_REQUEST};
use citadel_agent_tests::peer::{Peer, Playing, Server};
use citadel_agent_tests::truth::{Stamp, assert_within, pause};

/// The metric's value now, which is the time since a moment.
#[track_caller]
fn assert_since(agent: &Agent, metric: &str, moment: Stamp) {
    let (page, now) = Stamp::of(|| agent.scrape());
    assert_within(metric, page.gauge(metric).number(), moment.until(now));
}

/// A request to a server that says nothing until `end` is dropped, and then closes.
struct Unanswered {
    end: mpsc::Sender<()>,
    playing: Playing<()>,
    client: Peer,
    asked: Stamp,
}

impl Unanswered {
    fn ask(server: &Server) -> Self {
        let (end, ended) = mpsc::channel();
        let playing = server.serve(move |mut peer| {
            peer.read_message();
            _ = ended.recv();
        });
        let mut client = server.connect();
        let asked = client.write(chat());
        Self { end, playing, client, asked }
    }
}

#[test]
fn a_server_that_never_answers_shows_a_number() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let page = agent.scrape();
    assert_eq!((page.gauge(OLDEST_REQUEST).number(), page.gauge(LONGEST_WAIT).number()), (0.0, 0.0));
    let Unanswered { end, playing, mut client, asked } = Unanswered::ask(&server);
    assert_eventually!(agent, |page| page.gauge(LONGEST_WAIT).number() > 0.5);
    assert_since(&agent, OLDEST_REQUEST, asked);
    assert_since(&agent, LONGEST_WAIT, asked);
    drop(end);
    playing.truth();
    client.read_to_end();
    assert_eventually!(agent, |page| page.gauge(OLDEST_REQUEST).number() == 0.0
        && page.gauge(LONGEST_WAIT).number() == 0.0);
}

#[test]
fn a_stream_waits_since_its_last_byte_and_is_as_old_as_its_first() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (end, ended) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        peer.write(STREAM_HEAD);
        pause(300);
        tell.send(peer.write(event("the last one"))).expect("the test waits");
        _ = ended.recv();
        peer.write(LAST_CHUNK);
    });
    let mut client = server.connect();
    let asked = client.write(chat());
    let last = told.recv().expect("the server writes");
    assert_eventually!(agent, |page| page.gauge(LONGEST_WAIT).number() > 0.2);
    assert_since(&agent, OLDEST_REQUEST, asked);
    assert_since(&agent, LONGEST_WAIT, last);
    drop(end);
    client.read_through(LAST_CHUNK);
    playing.truth();
    let page = assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 0);
    // The connection is still open, and no request is on it.
    assert_eq!((page.gauge(OLDEST_REQUEST).number(), page.gauge(LONGEST_WAIT).number()), (0.0, 0.0));
}

#[test]
fn a_request_that_still_arrives_is_old_and_waits_for_nothing() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let (end, ended) = mpsc::channel::<()>();
    let playing = server.serve(move |peer| {
        _ = ended.recv();
        drop(peer);
    });
    let mut client = server.connect();
    let begun = client.write(post_head("/v1/completions", 100) + "half of the body");
    let page = assert_eventually!(agent, |page| page.gauge(OLDEST_REQUEST).number() > 0.2);
    assert_eq!(page.gauge(LONGEST_WAIT).number(), 0.0);
    assert_since(&agent, OLDEST_REQUEST, begun);
    drop(end);
    playing.truth();
}

/// More than the kernel's buffer holds at once.
#[test]
fn the_oldest_of_many_connections_is_found() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let requests: Vec<_> = (0..100).map(|_| Unanswered::ask(&server)).collect();
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 100);
    let first = requests[0].asked;
    assert_since(&agent, OLDEST_REQUEST, first);
    assert_since(&agent, LONGEST_WAIT, first);
    let playing: Vec<_> = requests.into_iter().map(|request| request.playing).collect();
    playing.into_iter().for_each(Playing::truth);
}
