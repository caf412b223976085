//! Requests without a complete response: for how long, and for how long nothing has come.

use std::sync::mpsc;

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, chunk, event, post_head};
use citadel_agent_tests::names::{IN_FLIGHT, LONGEST_WAIT, OLDEST_REQUEST};
use citadel_agent_tests::peer::{Peer, Playing, Server};
use citadel_agent_tests::truth::{Stamp, assert_within, pause};
use serde_json::{Value, json};

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
        let (tell, told) = mpsc::channel();
        let playing = server.serve(move |mut peer| {
            peer.read_message();
            tell.send(()).expect("the test waits");
            _ = ended.recv();
        });
        let mut client = server.connect();
        let asked = client.write(chat());
        // Else the next one's thread could accept this connection, and this one the next.
        told.recv().expect("the server reads");
        Self { end, playing, client, asked }
    }

    /// Half a request.
    fn half(server: &Server) -> Self {
        let (end, ended) = mpsc::channel();
        let playing = server.serve(move |peer| {
            _ = ended.recv();
            drop(peer);
        });
        let mut client = server.connect();
        let asked = client.write(post_head("/v1/completions", 100) + "half of the body");
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
    let Unanswered { end, playing, client: _client, asked: begun } = Unanswered::half(&server);
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
    let listed = listed(&agent);
    assert_eq!(listed["in_flight"], 100);
    let ports: Vec<_> = running(&listed).iter().map(client_port).collect();
    let oldest: Vec<_> = requests[..20].iter().map(|request| u64::from(request.client.port())).collect();
    assert_eq!(ports, oldest, "the oldest, the oldest first");
    let playing: Vec<_> = requests.into_iter().map(|request| request.playing).collect();
    playing.into_iter().for_each(Playing::truth);
}

/// Single requests of the model, as the control socket gives them.
#[track_caller]
fn listed(agent: &Agent) -> Value {
    let models = agent.order(&json!({"order": "requests"}));
    assert_eq!((models[0]["model"].as_str(), models.as_array().map(Vec::len)), (Some("model"), Some(1)), "{models:#}");
    models[0].clone()
}

fn running(listed: &Value) -> &[Value] {
    listed["running"].as_array().map_or(&[], Vec::as_slice)
}

#[track_caller]
fn client_port(request: &Value) -> u64 {
    let port = request["client"].as_str().and_then(|client| client.strip_prefix("127.0.0.1:"));
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no client in {request:#}"))
}

/// A request to a server that sends so many events, one without output before them, and then nothing until `end` is dropped.
struct Streamed {
    end: mpsc::Sender<()>,
    playing: Playing<()>,
    client: Peer,
    asked: Stamp,
    last: Stamp,
}

impl Streamed {
    fn ask(server: &Server, events: usize) -> Self {
        let (end, ended) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let playing = server.serve(move |mut peer| {
            peer.read_message();
            let head =
                STREAM_HEAD.to_owned() + &chunk("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n");
            let mut last = peer.write(head);
            for n in 0..events {
                last = peer.write(event(&format!("token {n}")));
            }
            tell.send(last).expect("the test waits");
            _ = ended.recv();
            peer.write(LAST_CHUNK);
        });
        let mut client = server.connect();
        let asked = client.write(chat());
        let last = told.recv().expect("the server writes");
        Self { end, playing, client, asked, last }
    }
}

#[test]
fn each_request_in_flight_is_listed_as_client_and_server_know_it() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    assert_eq!((&listed(&agent)["in_flight"], running(&listed(&agent))), (&json!(0), &[][..]));
    // One that is done, and the slowest because there is no other.
    let playing = server.answer_each(vec![(50, answer("200 OK", "{}"))]);
    let mut done = server.connect();
    done.ask(chat(), answer("200 OK", "{}").len());
    playing.truth();

    // No more than what TCP sends at once: ten segments, of which one has the head.
    let streams: Vec<_> = [1, 3, 9].into_iter().map(|events| (events, Streamed::ask(&server, events))).collect();
    let hanging: Vec<_> = (0..4).map(|_| Unanswered::ask(&server)).collect();
    let Unanswered { end, playing, client: arriving, asked: begun } = Unanswered::half(&server);
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 8);
    let (listed, now) = Stamp::of(|| listed(&agent));

    assert_eq!((&listed["in_flight"], running(&listed).len()), (&json!(8), 8), "{listed:#}");
    let of = |client: &Peer| {
        let port = u64::from(client.port());
        let found = running(&listed).iter().find(|request| client_port(request) == port);
        found.unwrap_or_else(|| panic!("no request of port {port} in {listed:#}"))
    };
    let seconds = |request: &Value, key: &str| request[key].as_f64().unwrap_or_else(|| panic!("no {key}: {request:#}"));
    for (events, stream) in &streams {
        let request = of(&stream.client);
        assert_eq!((&request["phase"], &request["events"]), (&json!("streaming"), &json!(events)));
        assert_eq!(request["endpoint"], "chat_completions");
        assert_within("age of a stream", seconds(request, "elapsed"), stream.asked.until(now));
        assert_within("silence of a stream", seconds(request, "waiting"), stream.last.until(now));
    }
    for request in &hanging {
        let (asked, request) = (request.asked, of(&request.client));
        assert_eq!((&request["phase"], &request["events"]), (&json!("waiting"), &Value::Null));
        assert_within("age of a request", seconds(request, "elapsed"), asked.until(now));
        assert_within("silence of a server", seconds(request, "waiting"), asked.until(now));
    }
    let request = of(&arriving);
    assert_eq!((&request["phase"], &request["endpoint"]), (&json!("request"), &json!("completions")));
    assert_eq!((&request["waiting"], &request["events"]), (&Value::Null, &Value::Null));
    assert_within("age of half a request", seconds(request, "elapsed"), begun.until(now));
    let slowest = &listed["slowest"];
    assert_eq!((slowest.as_array().map(Vec::len), &slowest[0]["code"]), (Some(1), &json!(200)), "{slowest:#}");

    // The page shows the same to everybody: nothing of the clients.
    let shown = agent.metrics("/requests");
    assert!(shown.contains("\"streaming\"") && shown.contains("\"slowest\":[{"), "{shown}");
    assert!(!shown.contains("client") && !shown.contains("127.0.0.1"), "{shown}");
    // Nor does the socket if nobody wants addresses.
    let setup = Setup::new().model("model", server.port()).ebpf("client_addresses: false");
    agent.reload(&setup);
    agent.wait_for_log("configuration reloaded");
    let without = self::listed(&agent);
    assert!(running(&without).len() == 8 && !without.to_string().contains("client"), "{without:#}");

    drop(end);
    playing.truth();
    let ends = streams.into_iter().map(|(_, stream)| (stream.end, stream.playing, stream.client));
    let ends: Vec<_> = ends.chain(hanging.into_iter().map(|r| (r.end, r.playing, r.client))).collect();
    for (end, playing, client) in ends {
        drop(end);
        playing.truth();
        drop(client);
    }
    // A client sees its answer before the kernel's programs have ended the request.
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 0);
    assert_eq!(self::listed(&agent)["in_flight"], 0);
}
