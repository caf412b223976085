//! Where messages end, in all the ways that HTTP/1.x has for it (RFC 9112, section 6).

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{
    LAST_CHUNK, STREAM_HEAD, answer, answer_head, chat, chunk, event, get, post, post_head,
};
use citadel_agent_tests::names::{ABORTED, CHUNKS, DURATION, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES, TTFB, TTFT};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::sums;
use citadel_agent_tests::truth::{pause, spans};

#[test]
fn responses_without_a_body_end_with_their_head() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    // The lengths are true of what GET would have got (RFC 9110, sections 8.6 and 15.4.5).
    let bodiless = [
        ("HEAD /v1/models HTTP/1.1\r\nHost: m\r\n\r\n".to_owned(), answer_head("200 OK", 1000)),
        (get("/v1/models"), "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        (get("/v1/models"), answer_head("304 Not Modified", 1000)),
        (get("/v1/models"), answer("404 Not Found", "{\"error\":1}")),
        ("HEAD /v1/models HTTP/1.1\r\nHost: m\r\n\r\n".to_owned(), STREAM_HEAD.to_owned()),
        (get("/v1/models"), answer("503 Service Unavailable", "")),
        (get("/health"), answer("200 OK", "{}")),
    ];
    let playing = server.answer_each(bodiless.iter().map(|(_, answer)| (15, answer.clone())).collect());
    let mut client = server.connect();
    let asked: Vec<_> = bodiless.iter().map(|(request, answer)| client.ask(request, answer.len())).collect();
    let truths = spans(&asked, &playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 7);
    page.assert_nothing_lost();
    // HEAD asks for nothing that a model does.
    let expected = sums([
        ("other 200", 2),
        ("models 204", 1),
        ("models 304", 1),
        ("models 404", 1),
        ("models 503", 1),
        ("health 200", 1),
    ]);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), expected);
    page.histogram(TTFB).assert_holds(&truths);
    page.histogram(DURATION).assert_holds(&truths);
    assert_eq!(page.counter(CHUNKS).value(), 0);
    assert_eq!(page.histogram(TTFT).count(), 0);
}

#[test]
fn a_response_without_a_length_ends_with_its_connection() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        let header = peer.write(head);
        pause(20);
        peer.write("one part");
        pause(20);
        let end = peer.write("the other part");
        // The end is the last byte, not the FIN.
        pause(40);
        (header, end)
    });
    let mut client = server.connect();
    let asked = client.write(get("/v1/models"));
    client.read_to_end();
    let (header, end) = playing.truth();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    page.histogram(TTFB).assert_holds(&[asked.until(header)]);
    page.histogram(DURATION).assert_holds(&[asked.until(end)]);
}

#[test]
fn http_1_0_closes_unless_it_says_keep_alive() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let kept = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
    let closed = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"data\":[]}";
    let playing = server.answer_each(vec![(10, kept.to_owned()), (10, kept.to_owned()), (10, closed.to_owned())]);
    let mut client = server.connect();
    let keep = "GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let asked = [
        client.ask(keep, kept.len()),
        client.ask(keep, kept.len()),
        client.ask("GET /health HTTP/1.0\r\n\r\n", closed.len()),
    ];
    let truths = spans(&asked, &playing.truth());
    client.read_to_end();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 2), ("health 200", 1)]));
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
    page.histogram(DURATION).assert_holds(&truths);
}

#[test]
fn an_event_stream_may_end_with_its_connection() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        let header = peer.write(head);
        pause(30);
        let first = peer.write("data: a\n\n");
        pause(10);
        (header, first, peer.write("data: b\n\n"))
    });
    let mut client = server.connect();
    let asked = client.write("GET /v1/chat/completions HTTP/1.0\r\n\r\n");
    client.read_to_end();
    let (header, first, end) = playing.truth();
    client.close();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    page.histogram(TTFB).assert_holds(&[asked.until(header)]);
    page.histogram(TTFT).assert_holds(&[asked.until(first)]);
    page.histogram(DURATION).assert_holds(&[asked.until(end)]);
    assert_eq!(page.counter(ABORTED).by(["side", "phase"]), sums([]));
}

#[test]
fn time_to_first_byte_begins_with_the_last_byte_of_a_body_that_waited_for_100_continue() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{\"id\":1}");
    let length = response.len();
    let playing = server.serve(move |mut peer| {
        peer.read_head();
        pause(20);
        peer.write("HTTP/1.1 100 Continue\r\n\r\n");
        peer.read(11);
        pause(30);
        peer.write(response)
    });
    let mut client = server.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n";
    let begun = client.write(head);
    client.read_head();
    pause(25);
    let asked = client.write("{\"prompt\":1");
    client.read(length);
    let answered = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("completions 200", 1)]));
    page.histogram(TTFB).assert_holds(&[asked.until(answered)]);
    page.histogram(DURATION).assert_holds(&[begun.until(answered)]);
}

#[test]
fn early_hints_are_not_the_answer() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        pause(5);
        peer.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
        pause(5);
        peer.write("HTTP/1.1 102 Processing\r\n\r\n");
        pause(30);
        // Another one together with the answer, in one packet.
        peer.write("HTTP/1.1 103 Early Hints\r\n\r\n".to_owned() + &response)
    });
    let mut client = server.connect();
    let asked = client.write(get("/v1/models"));
    client.read_through("{}");
    let answered = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 1)]));
    page.histogram(TTFB).assert_holds(&[asked.until(answered)]);
    page.histogram(DURATION).assert_holds(&[asked.until(answered)]);
}

#[test]
fn a_megabyte_in_bursts_is_one_body_each_way() {
    const BURST: usize = 128 * 1024;
    const BODY: usize = 8 * BURST;
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let head = answer_head("200 OK", BODY);
    let length = head.len() + BODY;
    let playing = server.serve(move |mut peer| {
        let read = peer.read_message();
        pause(20);
        let header = peer.write(head);
        let bursts: Vec<_> = (0..8)
            .map(|_| {
                pause(5);
                peer.write(vec![b'y'; BURST])
            })
            .collect();
        // Until the client has read all, for the FIN not to be the end.
        peer.read_to_end();
        (read, header, bursts[7])
    });
    let mut client = server.connect();
    let begun = client.write(post_head("/v1/embeddings", BODY));
    let mut last = begun;
    for _ in 0..8 {
        pause(5);
        last = client.write(vec![b'x'; BURST]);
    }
    let got = client.read(length);
    let (sent, received) = (client.sent, client.received);
    client.close();
    let (read, header, end) = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("embeddings 200", 1)]));
    assert_eq!(page.counter(REQUEST_BYTES).value(), sent);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), received);
    page.histogram(TTFB).assert_holds(&[last.stretched_to(read.at).until(header)]);
    page.histogram(DURATION).assert_holds(&[begun.until(end.stretched_to(got.at))]);
}

#[test]
fn a_chunked_request_body_ends_with_its_last_chunk() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let length = response.len();
    let playing = server.serve(move |mut peer| {
        let mut answered = Vec::new();
        for _ in 0..2 {
            peer.read_through(LAST_CHUNK);
            pause(15);
            answered.push(peer.write(&response));
        }
        answered
    });
    let mut client = server.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n";
    let begun = client.write(head);
    for data in ["GET /evil HTTP/1.1\r\n\r\n", "{\"prompt\":", "\"Hi\"}"] {
        pause(5);
        client.write(chunk(data));
    }
    pause(5);
    client.write("0\r\n");
    pause(15);
    let asked = client.ask("\r\n", length);
    // A second one in a single segment.
    let again = client.ask(head.to_owned() + &chunk("{}") + LAST_CHUNK, length);
    let answered = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 2);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("completions 200", 2)]));
    page.histogram(TTFB).assert_holds(&[asked.until(answered[0]), again.until(answered[1])]);
    page.histogram(DURATION).assert_holds(&[begun.until(answered[0]), again.until(answered[1])]);
    assert_eq!(page.counter(CHUNKS).value(), 0, "chunks of requests are not counted");
}

#[test]
fn heads_may_come_byte_by_byte() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let length = response.len() + event("a").len() + LAST_CHUNK.len();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        pause(20);
        let (first, _) = peer.dribble(response, 1);
        pause(20);
        let (token, token_end) = peer.dribble(event("a"), 1);
        let (_, end) = peer.dribble(LAST_CHUNK, 1);
        (first, token, token_end, end)
    });
    let mut client = server.connect();
    let (begun, asked) = client.dribble(post("/v1/chat/completions", "{}"), 1);
    client.read(length);
    let (first, token, token_end, end) = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 1)]));
    assert_eq!(page.counter(CHUNKS).value(), 1);
    page.histogram(TTFB).assert_holds(&[asked.until(first)]);
    page.histogram(DURATION).assert_holds(&[begun.until(end)]);
    // Whether an event carries output is known somewhere between its first byte and its last.
    let token = token.before..=token_end.after;
    let measured = page.histogram(TTFT).sum() * 1e9;
    assert!(measured >= (token.start() - asked.after) as f64 - 2e5 && measured <= (token.end() - asked.before) as f64);
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", "{}");
    let script = response.clone();
    let playing = server.serve(move |mut peer| {
        let mut answered = Vec::new();
        for _ in 0..3 {
            peer.read_through("Host: model\r\n\r\n");
            pause(10);
            answered.push(peer.write(&script));
        }
        answered
    });
    // RFC 9112, section 2.2: at least one CRLF before the request line; some clients send it after a body.
    let mut client = server.connect();
    let mut asked = vec![client.ask("\r\n".to_owned() + &get("/v1/models"), response.len())];
    client.write("\r\n");
    pause(15);
    asked.push(client.ask(get("/v1/models"), response.len()));
    asked.push(client.ask("\r\n\r\n".to_owned() + &get("/v1/models"), response.len()));
    let truths = spans(&asked, &playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("models 200", 3)]));
    page.histogram(TTFB).assert_holds(&truths);
}

#[test]
fn a_long_head_over_several_segments_is_one_head() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = format!(
        "HTTP/1.1 200 OK\r\nX-Padding: {}\r\nContent-Length: 5\r\nX-More: {}\r\n\r\nhello",
        "p".repeat(6000),
        "q".repeat(6000)
    );
    let length = response.len();
    let request =
        get("/v1/models").replace("\r\n\r\n", &format!("\r\nAuthorization: Bearer {}\r\n\r\n", "k".repeat(9000)));
    let playing = server.serve(move |mut peer| {
        let mut answered = Vec::new();
        for _ in 0..2 {
            peer.read_message();
            pause(10);
            let (one, two) = response.split_at(7000);
            answered.push(peer.write(one));
            pause(5);
            peer.write(two);
        }
        answered
    });
    let mut client = server.connect();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let (one, two) = request.split_at(4000);
        client.write(one);
        pause(5);
        asked.push(client.ask(two, length));
    }
    let truths = spans(&asked, &playing.truth());

    let page = assert_eventually!(agent, |page| page.requests() == 2);
    page.assert_nothing_lost();
    page.histogram(TTFB).assert_holds(&truths);
}

#[test]
fn a_body_that_holds_requests_and_answers_is_a_body() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let response = answer("200 OK", &answer("500 Internal Server Error", "x"));
    let playing = server.answer_each(vec![(5, response.clone()); 3]);
    let mut client = server.connect();
    let request = post("/v1/completions", &(get("/v1/models") + &chat()));
    for _ in 0..3 {
        client.ask(&request, response.len());
    }
    playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() >= 3);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("completions 200", 3)]));
}
