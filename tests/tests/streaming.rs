//! Streamed answers: the header is not the first token, and a chunk is not a packet.

use citadel_agent_tests::agent::Agent;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{LAST_CHUNK, STREAM_HEAD, answer, chat, chunk, event, get};
use citadel_agent_tests::names::{
    CHUNKS, DURATION, IN_FLIGHT, INTER_TOKEN, LOST, REQUESTS, RESPONSE_BYTES, STREAM_UNSEEN_BYTES, TTFB, TTFT,
};
use citadel_agent_tests::netns::{Namespace, bring_loopback_up};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::{Span, Stamp, gaps, pause};

/// When the parts of one stream were written.
struct Streamed {
    header: Stamp,
    chunks: Vec<Stamp>,
    end: Stamp,
}

impl Streamed {
    /// Plays `writes` after the header, pausing before each; the last one is the end and counts no chunk.
    fn play(peer: &mut citadel_agent_tests::peer::Peer, head: &str, writes: &[(u64, String)]) -> Self {
        peer.read_message();
        let header = peer.write(head);
        let write = |(ms, bytes): &(u64, String)| {
            pause(*ms);
            peer.write(bytes)
        };
        let mut chunks: Vec<_> = writes.iter().map(write).collect();
        let end = chunks.pop().expect("a stream has an end");
        Self { header, chunks, end }
    }

    fn assert_measured(&self, page: &Page, asked: Stamp) {
        page.assert_nothing_lost();
        assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 1)]));
        assert_eq!(page.counter(CHUNKS).value(), self.chunks.len() as u64);
        page.histogram(TTFB).assert_holds(&[asked.until(self.header)]);
        page.histogram(TTFT).assert_holds(&[asked.until(self.chunks[0])]);
        page.histogram(INTER_TOKEN).assert_holds(&gaps(&self.chunks));
        page.histogram(DURATION).assert_holds(&[asked.until(self.end)]);
    }
}

/// Streams one answer and holds the page against it.
fn stream_is_measured(head: &'static str, writes: Vec<(u64, String)>) {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let length = head.len() + writes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let playing = server.serve(move |mut peer| Streamed::play(&mut peer, head, &writes));
    let mut client = server.connect();
    let asked = client.ask(chat(), length);
    let streamed = playing.truth();
    let page = assert_eventually!(agent, |page| page.requests() == 1);
    streamed.assert_measured(&page, asked);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), length as u64);
}

fn end(ms: u64) -> (u64, String) {
    (ms, LAST_CHUNK.to_owned())
}

#[test]
fn the_header_is_the_first_byte_and_the_first_event_the_first_token() {
    let tokens = [80, 10, 20, 5, 40, 1, 0, 15].map(|ms| (ms, event("token")));
    stream_is_measured(STREAM_HEAD, [tokens.to_vec(), vec![end(30)]].concat());
}

#[test]
fn a_long_steady_stream_is_measured_token_by_token() {
    let tokens = vec![(3, event("t")); 150];
    stream_is_measured(STREAM_HEAD, [tokens, vec![end(0)]].concat());
}

#[test]
fn json_lines_are_streamed_too() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-ndjson\r\n\r\n";
    stream_is_measured(head, vec![(30, chunk("{\"a\":1}\n")), (20, chunk("{\"a\":2}\n")), end(10)]);
}

#[test]
fn header_names_and_values_are_known_in_any_case_and_spacing() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type:  Text/Event-Stream ;charset=utf-8\r\nTRANSFER-ENCODING:Chunked\r\n\r\n";
    stream_is_measured(head, vec![(20, event("a")), (10, event("b")), end(5)]);
}

#[test]
fn chunked_json_is_not_a_stream_of_tokens() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        let header = peer.write(head);
        pause(20);
        peer.write(chunk("{\"a\":"));
        pause(20);
        peer.write(chunk("1}"));
        (header, peer.write(LAST_CHUNK))
    });
    let mut client = server.connect();
    let asked = client.write(chat());
    client.read_through(LAST_CHUNK);
    let (header, end) = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 1);
    page.assert_nothing_lost();
    page.histogram(TTFB).assert_holds(&[asked.until(header)]);
    page.histogram(DURATION).assert_holds(&[asked.until(end)]);
    assert_eq!(page.histogram(TTFT).count(), 0);
    assert_eq!(page.histogram(INTER_TOKEN).count(), 0);
    assert_eq!(page.counter(CHUNKS).value(), 0);
}

/// Plays the pieces of a stream's body after its header, each written at once, and gives the page, when the client
/// asked, and when each piece was written. A second request follows on the same connection and must be exact.
fn pieces(pieces: Vec<(u64, String)>) -> (Page, Stamp, Vec<Stamp>) {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let next = answer("200 OK", "{}");
    let length = STREAM_HEAD.len() + pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let after = next.clone();
    let playing = server.serve(move |mut peer| {
        peer.read_message();
        peer.write(STREAM_HEAD);
        let write = |(ms, bytes): (u64, String)| {
            pause(ms);
            peer.write(bytes)
        };
        let stamps: Vec<_> = pieces.into_iter().map(write).collect();
        peer.read_message();
        peer.write(after);
        stamps
    });
    let mut client = server.connect();
    let asked = client.ask(chat(), length);
    client.ask(get("/health"), next.len());
    let stamps = playing.truth();
    let page = assert_eventually!(agent, |page| page.requests() == 2);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 1), ("health 200", 1)]));
    (page, asked, stamps)
}

/// Two chunks in one packet have no time between them.
const AT_ONCE: Span = Span { lo: 0, hi: 0 };

#[test]
fn two_chunks_in_one_packet_are_two_chunks() {
    let (page, asked, at) =
        pieces(vec![(20, event("a") + &event("b")), (30, event("c") + &event("d") + &event("e")), end(5)]);
    assert_eq!(page.counter(CHUNKS).value(), 5);
    page.histogram(TTFT).assert_holds(&[asked.until(at[0])]);
    page.histogram(INTER_TOKEN).assert_holds(&[AT_ONCE, at[0].until(at[1]), AT_ONCE, AT_ONCE]);
    page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&[asked.until(at[2])]);
}

#[test]
fn one_chunk_in_two_packets_is_one_chunk() {
    // Cut in its data, in its size line, and between its data and the line end after it.
    let (whole, size_line) = (event("token"), event("token").find('\n').expect("a size line"));
    for cut in [whole.len() / 2, 1, size_line, size_line + 1, whole.len() - 2, whole.len() - 1] {
        let (one, two) = whole.split_at(cut);
        let (page, asked, at) =
            pieces(vec![(20, event("first")), (30, one.to_owned()), (4, two.to_owned()), (25, event("last")), end(0)]);
        assert_eq!(page.counter(CHUNKS).value(), 3, "cut at {cut}");
        page.histogram(TTFT).assert_holds(&[asked.until(at[0])]);
        // Whether the cut chunk came with its first or its last packet is the agent's to choose.
        let second = at[1].stretched_to(at[2]);
        page.histogram(INTER_TOKEN).assert_holds(&[at[0].until(second), second.until(at[3])]);
    }
}

#[test]
fn the_response_ends_with_the_last_line_of_the_last_chunk() {
    // Cut everywhere in `0\r\n\r\n`, as uvicorn and llama.cpp do in the middle.
    for cut in 1..LAST_CHUNK.len() {
        let (one, two) = LAST_CHUNK.split_at(cut);
        let (page, asked, at) = pieces(vec![(10, event("a")), (5, one.to_owned()), (40, two.to_owned())]);
        assert_eq!(page.counter(CHUNKS).value(), 1, "the last chunk is none, cut at {cut}");
        page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&[asked.until(at[2])]);
    }
}

#[test]
fn chunk_extensions_and_trailers_are_part_of_the_framing() {
    // The data of an event, without its framing.
    let data = |token: &str| {
        let chunk = event(token);
        let (_, data) = chunk.split_once("\r\n").expect("a size");
        data.strip_suffix("\r\n").expect("an end").to_owned()
    };
    let (one, other) = (data("hello"), data("0123456789"));
    let extended = format!("{:x};name=\"a;b\"\r\n{one}\r\n", one.len());
    let in_capitals = |data: &String| format!("{:X}", data.len()).contains(|c: char| c.is_ascii_uppercase());
    let long = (1..16).map(|length| data(&"x".repeat(length))).find(in_capitals).expect("a size with a letter");
    let capital = format!("{:X}\r\n{long}\r\n", long.len());
    let padded = format!("{:05x}\r\n{other}\r\n", other.len());
    let (page, asked, at) = pieces(vec![
        (10, extended),
        (10, capital),
        (10, padded),
        (10, "0\r\nX-Checksum: 1\r\n".to_owned()),
        (20, "Server-Timing: x\r\n\r\n".to_owned()),
    ]);
    assert_eq!(page.counter(CHUNKS).value(), 3);
    page.histogram(INTER_TOKEN).assert_holds(&gaps(&at[..3]));
    page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&[asked.until(at[4])]);
}

#[test]
fn chunks_that_look_like_http_are_data() {
    let (page, ..) = pieces(vec![
        (5, chunk("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")),
        (5, chunk("0\r\n\r\n")),
        (5, chunk("GET / HTTP/1.1\r\n\r\n")),
        end(0),
    ]);
    assert_eq!(page.counter(CHUNKS).value(), 3);
}

#[test]
fn hundreds_of_chunks_in_one_super_packet_are_counted_exactly() {
    // Loopback's segments carry up to 64 KiB, as those do that a network card cuts up (GSO).
    let token = event("t");
    let chunks = 60_000 / token.len();
    assert!(chunks > 900, "many hundreds: {chunks}");
    let burst = token.repeat(chunks);
    let chunks = chunks as u64;
    let (page, asked, at) = pieces(vec![(20, event("first")), (20, burst), (20, event("last")), end(0)]);
    assert_eq!(page.counter(CHUNKS).value(), chunks + 2);
    page.histogram(TTFT).assert_holds(&[asked.until(at[0])]);
    assert_eq!(page.histogram(INTER_TOKEN).count(), chunks + 1);
    page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&[asked.until(at[3])]);
}

#[test]
fn the_smallest_chunks_in_one_super_packet_are_counted_exactly() {
    let (page, asked, at) = pieces(vec![(0, chunk("x").repeat(10_000)), end(0)]);
    assert_eq!(page.counter(CHUNKS).value(), 10_000);
    page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&[asked.until(at[1])]);
}

/// Chunks pile up in the server's socket, and leave in packets that hold hundreds of them.
#[test]
fn a_reader_that_pauses_loses_nothing() {
    const EACH: usize = 20_000;
    let tokens = [20, 120, 220].map(|length| event(&"t".repeat(length)));
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let lengths = tokens.each_ref().map(|token| STREAM_HEAD.len() + token.len() * EACH + LAST_CHUNK.len());
    let playing = server.serve(move |mut peer| {
        tokens.map(|token| {
            peer.read_message();
            peer.write(STREAM_HEAD);
            for _ in 0..EACH {
                peer.write(&token);
            }
            peer.write(LAST_CHUNK)
        })
    });
    let mut client = server.connect();
    let read = lengths.map(|length| {
        let asked = client.write(chat());
        assert!(client.has_more());
        // By now more than the client's buffer takes is on its way.
        pause(100);
        (asked, client.read(length).at)
    });
    let written = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 3);
    page.assert_nothing_lost();
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 3)]));
    assert_eq!(page.gauge(IN_FLIGHT).number(), 0.0);
    assert_eq!(page.counter(CHUNKS).value(), 3 * EACH as u64);
    assert_eq!(page.histogram(TTFT).count(), 3);
    assert_eq!(page.histogram(INTER_TOKEN).count(), 3 * (EACH as u64 - 1));
    assert_eq!(page.counter(RESPONSE_BYTES).value(), lengths.iter().sum::<usize>() as u64);
    // The last byte leaves between its write and its read.
    let durations = read.iter().zip(written).map(|((asked, read), written)| asked.until(written.stretched_to(*read)));
    page.histogram(DURATION).assert_holds(&durations.collect::<Vec<_>>());
}

/// A namespace whose loopback lets packets of 500 kB through, which hold more of the smallest chunks than there are steps for.
#[test]
fn a_packet_with_too_many_chunks_keeps_its_request() {
    const CHUNKS_WRITTEN: u64 = 150_000;
    let namespace = Namespace::new();
    let server = namespace.enter(|| {
        bring_loopback_up(500_000);
        Server::bind()
    });
    let agent = Agent::measuring(server.port());
    let body = chunk("x").repeat(CHUNKS_WRITTEN as usize) + LAST_CHUNK;
    let length = STREAM_HEAD.len() + body.len();
    let playing = server.serve(move |mut peer| {
        let mut ask = || {
            peer.read_message();
            peer.write(STREAM_HEAD);
            peer.write(&body)
        };
        [ask(), ask()]
    });
    let mut client = namespace.enter(|| server.connect());
    let read = [0, 1].map(|_| {
        let asked = client.write(chat());
        assert!(client.has_more());
        pause(50);
        (asked, client.read(length).at)
    });
    let written = playing.truth();

    let page = assert_eventually!(agent, |page| page.requests() == 2);
    assert_eq!(page.counter(REQUESTS).by(["endpoint", "code"]), sums([("chat_completions 200", 2)]));
    assert_eq!(page.gauge(IN_FLIGHT).number(), 0.0);
    assert_eq!(page.counter(RESPONSE_BYTES).value(), 2 * length as u64);
    let durations = read.iter().zip(written).map(|((asked, read), written)| asked.until(written.stretched_to(*read)));
    page.histogram(DURATION).assert_holds(&durations.collect::<Vec<_>>());
    let (seen, unseen) = (page.counter(CHUNKS).value(), page.counter(STREAM_UNSEEN_BYTES).value());
    assert_eq!(page.counter(LOST).by(["reason"]).get("step_limit").copied().unwrap_or(0) > 0, unseen > 0);
    let each = chunk("x").len() as u64;
    assert!(seen * each + unseen >= 2 * CHUNKS_WRITTEN * each, "{seen} chunks and {unseen} bytes");
    assert!(unseen > 0, "no packet was as large: {seen} chunks");
}

#[test]
fn several_streams_at_once_do_not_mix() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    // Every client is connected before the next one's script accepts, so script and client belong together.
    let mut streams = Vec::new();
    for pace in [3, 7, 11, 13] {
        let playing = server.serve(move |mut peer| {
            let writes = [vec![(pace, event("t")); 20], vec![end(pace)]].concat();
            Streamed::play(&mut peer, STREAM_HEAD, &writes)
        });
        streams.push((server.connect(), playing));
        pause(20);
    }
    let asked: Vec<_> = streams.iter_mut().map(|(client, _)| client.write(chat())).collect();
    let mut truths = Vec::new();
    for (mut client, playing) in streams {
        client.read_through(LAST_CHUNK);
        truths.push(playing.truth());
    }

    let page = assert_eventually!(agent, |page| page.requests() == 4);
    page.assert_nothing_lost();
    assert_eq!(page.counter(CHUNKS).value(), 80);
    let of_each = |event: fn(&Streamed) -> Stamp| -> Vec<Span> {
        asked.iter().zip(&truths).map(|(asked, streamed)| asked.until(event(streamed))).collect()
    };
    page.histogram(TTFB).assert_holds(&of_each(|streamed| streamed.header));
    page.histogram(TTFT).assert_holds(&of_each(|streamed| streamed.chunks[0]));
    page.histogram(DURATION).assert_holds(&of_each(|streamed| streamed.end));
    page.histogram(INTER_TOKEN).assert_holds(&truths.iter().flat_map(|t| gaps(&t.chunks)).collect::<Vec<_>>());
}
