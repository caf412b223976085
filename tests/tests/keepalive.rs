//! Requests one after the other, and at once, on connections that stay open.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, event, get, post};
use citadel_agent_tests::names::{
    CHUNKS, DURATION, IN_FLIGHT, LOST, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES, TTFB, TTFT,
};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::{Span, assert_within, pause, spans};

#[test]
fn requests_are_counted_by_endpoint_and_code_and_each_is_timed() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    // Request, endpoint, status, and how long the answer takes.
    let json = r#"{"input":"text"}"#;
    let exchanges = [
        (post("/v1/chat/completions", json), "chat_completions", "200 OK", 40),
        (post("/v1/completions", json), "completions", "200 OK", 5),
        (post("/v1/responses", json), "responses", "200 OK", 10),
        (post("/v1/embeddings", json), "embeddings", "200 OK", 3),
        (post("/v1/rerank", json), "rerank", "200 OK", 20),
        (get("/v1/models"), "models", "200 OK", 0),
        (get("/health"), "health", "503 Service Unavailable", 1),
        (get("/metrics"), "metrics", "200 OK", 2),
        (get("/v1/chat/completions-and-more"), "other", "404 Not Found", 0),
        (get("/v1/models?after=x"), "models", "200 OK", 8),
        (post("/v1/chat/completions", json), "chat_completions", "400 Bad Request", 0),
    ];
    let answers: Vec<_> = exchanges.iter().map(|(.., status, ms)| (*ms, answer(status, r#"{"ok":true}"#))).collect();
    let playing = server.answer_each(answers.clone());

    let mut client = server.connect();
    let asked: Vec<_> =
        exchanges.iter().zip(&answers).map(|((request, ..), (_, answer))| client.ask(request, answer.len())).collect();
    let answered = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 11);
    page.assert_nothing_lost();
    let expected = sums([
        ("chat_completions 200", 1),
        ("chat_completions 400", 1),
        ("completions 200", 1),
        ("responses 200", 1),
        ("embeddings 200", 1),
        ("rerank 200", 1),
        ("models 200", 2),
        ("health 503", 1),
        ("metrics 200", 1),
        ("other 404", 1),
    ]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    assert_eq!(page.counter(REQUESTS).label("model", "model").value(), 11, "all under the configured name");
    for (_, endpoint, ..) in &exchanges {
        let of_endpoint = |(i, _): (usize, &(String, &str, &str, u64))| {
            (exchanges[i].1 == *endpoint).then(|| asked[i].until(answered[i]))
        };
        let truths: Vec<_> = exchanges.iter().enumerate().filter_map(of_endpoint).collect();
        page.histogram(TTFB).label("endpoint", endpoint).assert_holds(&truths);
        page.histogram(DURATION).label("endpoint", endpoint).assert_holds(&truths);
    }
    for (outcome, codes) in [("success", '2'), ("client_error", '4'), ("server_error", '5')] {
        let (of_outcome, all) = (exchanges.iter().enumerate(), page.histogram(DURATION).label("outcome", outcome));
        let of_outcome = of_outcome.filter(|(_, (_, _, status, _))| status.starts_with(codes));
        all.assert_holds(&of_outcome.map(|(i, _)| asked[i].until(answered[i])).collect::<Vec<_>>());
    }
    assert_eq!(page.histogram(TTFT).count(), 0, "nothing was streamed");
    assert_eq!(page.counter(CHUNKS).value(), 0, "nothing was streamed");
    assert_eq!(page.counter(REQUEST_BYTES).value(), client.sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), client.received);
}

#[test]
fn a_hundred_fast_requests_lose_nothing() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()); 100]);

    let mut client = server.connect();
    let asked: Vec<_> = (0..100).map(|_| client.ask(get("/v1/models"), response.len())).collect();
    let truths = spans(&asked, &playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 100);
    page.assert_nothing_lost();
    page.histogram(TTFB).assert_holds(&truths);
    page.histogram(DURATION).assert_holds(&truths);
}

#[test]
fn a_request_is_in_flight_until_its_response_has_ended() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let (go, wait) = std::sync::mpsc::channel();
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        wait.recv().expect("the test says when to begin");
        peer.write(&script[..script.len() - 1]);
        wait.recv().expect("the test says when to end");
        peer.write(&script[script.len() - 1..]);
    });

    let mut client = server.connect();
    assert_eq!(agent.scrape().gauge(IN_FLIGHT).value(), 0);
    client.write(get("/v1/models"));
    assert_eventually!(agent, |page| page.gauge(IN_FLIGHT).value() == 1);
    go.send(()).expect("the server waits");
    client.read(response.len() - 1);
    assert_eq!(agent.scrape().gauge(IN_FLIGHT).value(), 1, "one byte is still missing");
    assert_eq!(agent.scrape().requests(), 0, "one byte is still missing");
    go.send(()).expect("the server waits");
    client.read(1);
    playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
}

#[test]
fn eight_requests_in_one_segment_are_eight_requests() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "[]");
    let playing = server.answer_each(vec![(5, response.clone()); 8]);

    let mut client = server.connect();
    // All came at once, so each waits for those before it.
    let asked = client.ask(get("/v1/models").repeat(8), response.len() * 8);
    let truths: Vec<_> = playing.truth().into_iter().map(|answered| asked.until(answered)).collect();

    let page = assert_eventually!(agent, |page| page.requests() == 8);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 8)]));
    page.histogram(TTFB).assert_holds(&truths);
    page.histogram(DURATION).assert_holds(&truths);
}

#[test]
fn pipelined_requests_keep_their_own_endpoints_and_kinds_of_answer() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let models = answer("200 OK", "[]");
    let stream = format!("{STREAM_HEAD}{}{}{LAST_CHUNK}", event("a"), event("b"));
    let unhealthy = answer("503 Service Unavailable", "");
    // Three answers in one write: the response side has to find its ends in the middle of a packet too.
    let all = format!("{models}{stream}{unhealthy}");
    let length = all.len();
    let playing = server.serve(move |mut peer| {
        for _ in 0..3 {
            peer.read_message();
        }
        pause(5);
        peer.write(all)
    });

    let mut client = server.connect();
    let asked = client.ask(get("/v1/models") + &chat() + &get("/health"), length);
    let span = asked.until(playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    let expected = sums([("models 200", 1), ("chat_completions 200", 1), ("health 503", 1)]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    assert_eq!(page.counter(CHUNKS).by(["endpoint"]), sums([("chat_completions", 2)]));
    page.histogram(TTFB).assert_holds(&[span; 3]);
    page.histogram(TTFT).assert_holds(&[span]);
}

#[test]
fn heads_among_more_requests_than_the_agent_remembers_do_not_end_the_tracking() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    // Every third of forty is HEAD, which counts as another endpoint, and has a response without the body that its header announces.
    let (head, whole) = ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", answer("200 OK", "[]"));
    let is_head = |index: &usize| index.is_multiple_of(3);
    let asked = |index| if is_head(&index) { "HEAD /v1/models HTTP/1.1\r\n\r\n".to_owned() } else { get("/v1/models") };
    let requests: String = (0..40).map(asked).collect();
    let responses: String = (0..40).map(|index| if is_head(&index) { head } else { whole.as_str() }).collect();
    let (length, expected, after) = (requests.len(), responses.len(), whole.len());
    let playing = server.serve(move |mut peer| {
        peer.read(length);
        peer.write(responses);
        for _ in 0..3 {
            peer.read_message();
            peer.write(&whole);
        }
    });
    let mut client = server.connect();
    client.ask(requests, expected);
    for _ in 0..3 {
        client.ask(get("/health"), after);
    }
    playing.truth();

    let page = assert_eventually!(agent, |page| page.counter(REQUESTS).label("endpoint", "health").value() == 3);
    assert_eq!(
        page.counter(REQUESTS).by(["endpoint", "code"]),
        sums([("models 200", 10), ("other 200", 6), ("health 200", 3)])
    );
    assert_eq!(page.counter(LOST).by(["reason"]), sums([("pipeline_full", 24)]));
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0, "{page}");
}

#[test]
fn more_outstanding_requests_than_the_agent_remembers_are_reported_lost_and_not_measured_wrong() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "[]");
    let request = get("/v1/models");
    let (count, length) = (40, request.len());
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        // Reads all before it answers any, so that all are outstanding at once.
        peer.read(length * count);
        pause(20);
        let answer = |_| {
            pause(2);
            peer.write(&script)
        };
        (0..count).map(answer).collect::<Vec<_>>()
    });

    let mut client = server.connect();
    let asked = client.ask(request.repeat(count), response.len() * count);
    let answered = playing.truth();
    client.close();

    let page = assert_eventually!(agent, |page| page.counter(LOST).value() > 0 || page.requests() == 40);
    let counted = page.requests();
    assert!(counted <= 40, "{counted} of 40 requests");
    assert_eq!(page.counter(REQUESTS).by(["code"]).keys().filter(|code| *code != "200").count(), 0, "\n{page}");
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0, "the connection is closed");
    // What was measured is true of that many answers: between the first ones and the last ones of them.
    let ttfb = page.histogram(TTFB);
    assert!((counted..=40).contains(&ttfb.count()), "{} first bytes of {counted} responses", ttfb.count());
    let timed = ttfb.count() as usize;
    let spans = spans(&vec![asked; count], &answered);
    let (first, last) =
        (spans[..timed].iter().copied().sum::<Span>(), spans[count - timed..].iter().copied().sum::<Span>());
    assert_within("sum of the times that were measured", ttfb.sum(), Span { lo: first.lo, hi: last.hi });
    // Another connection is not affected.
    let playing = server.answer_each(vec![(0, response.clone())]);
    server.connect().ask(get("/health"), response.len());
    playing.truth();
    assert_eventually!(agent, |page| page.counter(REQUESTS).label("endpoint", "health").value() == 1);
}

#[test]
fn a_connection_opened_before_the_agent_is_measured_from_its_next_request_on() {
    let server = Server::bind();
    let response = answer("200 OK", "{}");
    let playing = server.answer_each(vec![(0, response.clone()), (20, response.clone()), (5, response.clone())]);
    let mut client = server.connect();
    client.ask(get("/v1/models"), response.len());

    let agent = Agent::measuring(server.port());
    let (sent, received) = (client.sent, client.received);
    let asked = [client.ask(get("/health"), response.len()), client.ask(get("/health"), response.len())];
    let answered = playing.truth();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 2);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("health 200", 2)]));
    page.histogram(TTFB).assert_holds(&[asked[0].until(answered[1]), asked[1].until(answered[2])]);
    assert_eq!(page.counter(REQUEST_BYTES).value(), 2 * get("/health").len() as u64, "{sent} bytes came before");
    assert_eq!(page.counter(RESPONSE_BYTES).value(), 2 * response.len() as u64, "{received} bytes left before");
}

#[test]
fn a_response_that_is_under_way_when_the_agent_starts_is_no_request() {
    let server = Server::bind();
    let response = answer("200 OK", "{}");
    let (go, wait) = std::sync::mpsc::channel();
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        peer.write(STREAM_HEAD.to_owned() + &event("before"));
        wait.recv().expect("the test says when to go on");
        for _ in 0..5 {
            peer.write(event("after"));
        }
        peer.write(LAST_CHUNK);
        peer.read_message();
        pause(10);
        peer.write(script)
    });
    let mut client = server.connect();
    client.ask(chat(), (STREAM_HEAD.to_owned() + &event("before")).len());

    let agent = Agent::measuring(server.port());
    go.send(()).expect("the server waits");
    client.read_through(LAST_CHUNK);
    assert_eventually!(agent, |page| page.counter(RESPONSE_BYTES).value() > 0).assert_no_request_invented();
    let asked = client.ask(get("/v1/models"), response.len());
    let answered = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 1)]));
    assert_eq!(page.counter(CHUNKS).value(), 0);
    page.histogram(TTFB).assert_holds(&[asked.until(answered)]);
    page.histogram(DURATION).assert_holds(&[asked.until(answered)]);
}
