//! What the bytes of a conversation mean, read from whole byte strings: heads by `httparse`, bodies as RFC 9112,
//! section 6.3, says. Slow, plain, and written without a look at the tracker.

use citadel_agent_common::abi::{Endpoint, Latency, Phase, Protocol, Side};

use crate::recorder::Observation;
use crate::stream::{Seen, Stream};

const FIELDS: usize = 128;

/// A request; positions are those of the client's bytes.
#[derive(Debug)]
pub(crate) struct Request {
    /// First byte of the request line.
    pub(crate) start: usize,
    /// One past the request line.
    pub(crate) line_end: usize,
    /// One past the last byte.
    pub(crate) end: usize,
    pub(crate) endpoint: u32,
    head: bool,
}

/// A final response, and the interim ones before it; positions are those of the server's bytes.
#[derive(Debug)]
pub(crate) struct Response {
    /// Where the interim responses and the final one begin.
    pub(crate) starts: Vec<usize>,
    /// One past the header section.
    pub(crate) head_end: usize,
    /// First byte of each chunk of the body, or of the body.
    pub(crate) data: Vec<usize>,
    /// Each byte of the body.
    pub(crate) body: Vec<usize>,
    /// One past the last byte.
    pub(crate) end: usize,
    pub(crate) code: u32,
    pub(crate) streamed: bool,
    pub(crate) chunked: bool,
    pub(crate) until_close: bool,
}

/// What frames a body.
struct Framing {
    chunked: bool,
    other_coding: bool,
    length: Option<usize>,
}

fn framing(fields: &[httparse::Header<'_>]) -> Framing {
    let values = |name: &str| {
        let name = name.to_owned();
        let ours = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(&name));
        ours.map(|field| std::str::from_utf8(field.value).expect("ASCII").trim().to_ascii_lowercase())
    };
    let codings = values("transfer-encoding").collect::<Vec<_>>().join(",");
    let last_coding = codings.rsplit(',').next().expect("one at least").trim();
    Framing {
        chunked: last_coding == "chunked",
        other_coding: !codings.is_empty() && last_coding != "chunked",
        length: values("content-length").next().map(|value| value.parse().expect("a number")),
    }
}

/// The line that begins at `at`, without its end, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let end = at + bytes[at..].iter().position(|&byte| byte == b'\n').expect("a line end");
    (bytes[at..end].strip_suffix(b"\r").unwrap_or(&bytes[at..end]), end + 1)
}

/// Where the chunks' data begin, where each byte of them lies, and where the body ends.
fn chunks(bytes: &[u8], mut at: usize) -> (Vec<usize>, Vec<usize>, usize) {
    let (mut data, mut body) = (vec![], vec![]);
    loop {
        let (size, next) = line(bytes, at);
        let size = std::str::from_utf8(size).expect("ASCII").split(';').next().expect("one at least").trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        at = next;
        if size == 0 {
            break;
        }
        data.push(at);
        body.extend(at..at + size);
        let (rest, next) = line(bytes, at + size);
        assert!(rest.is_empty(), "a line end after a chunk");
        at = next;
    }
    loop {
        let (trailer, next) = line(bytes, at);
        at = next;
        if trailer.is_empty() {
            return (data, body, at);
        }
    }
}

fn endpoint(target: &str) -> Endpoint {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let target = absolute.map_or(target, |rest| rest.find('/').map_or("", |at| &rest[at..]));
    let path = target.split('?').next().expect("one at least");
    let ollama = path.strip_prefix("/api/");
    let path =
        path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).or(ollama).or_else(|| path.strip_prefix('/'));
    let parts: Vec<_> = path.unwrap_or("").split('/').collect();
    match parts[..] {
        ["chat", "completions", ..] => Endpoint::ChatCompletions,
        ["chat", ..] if ollama.is_some() => Endpoint::ChatCompletions,
        ["completions" | "completion", ..] => Endpoint::Completions,
        ["responses", ..] => Endpoint::Responses,
        ["embeddings" | "embedding" | "embed", ..] => Endpoint::Embeddings,
        ["rerank" | "reranking", ..] => Endpoint::Rerank,
        ["models", ..] => Endpoint::Models,
        ["health" | "healthz", ..] => Endpoint::Health,
        ["metrics", ..] => Endpoint::Metrics,
        ["messages", "count_tokens", ..] | ["tokenize" | "detokenize", ..] => Endpoint::Tokenize,
        ["messages", ..] => Endpoint::Messages,
        ["audio", ..] => Endpoint::Audio,
        ["images", ..] => Endpoint::Images,
        ["generate" | "generate_stream", ..] => Endpoint::Generate,
        _ => Endpoint::Other,
    }
}

/// The requests of a client's bytes.
pub(crate) fn requests(bytes: &[u8]) -> Vec<Request> {
    let mut requests = vec![];
    let mut at = 0;
    while at < bytes.len() {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        let parsed = head.parse(&bytes[at..]).expect("a request");
        let head_end = at + parsed.unwrap();
        let start = at + bytes[at..].iter().position(|byte| !b"\r\n".contains(byte)).expect("a request line");
        let framing = framing(head.headers);
        let end = match framing.length {
            _ if framing.chunked => chunks(bytes, head_end).2,
            length => head_end + length.unwrap_or(0),
        };
        requests.push(Request {
            start,
            line_end: line(bytes, start).1,
            end,
            endpoint: match head.method {
                Some("HEAD" | "OPTIONS") => Endpoint::Other,
                _ => endpoint(head.path.expect("a target")),
            } as u32,
            head: head.method == Some("HEAD"),
        });
        at = end;
    }
    requests
}

/// The responses of a server's bytes to these requests.
pub(crate) fn responses(bytes: &[u8], requests: &[Request]) -> Vec<Response> {
    let mut responses = vec![];
    let mut at = 0;
    for request in requests {
        let mut starts = vec![];
        loop {
            starts.push(at);
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut head = httparse::Response::new(&mut fields);
            let parsed = head.parse(&bytes[at..]).expect("a response");
            let head_end = at + parsed.unwrap();
            let code = head.code.expect("a status code");
            if (100..200).contains(&code) {
                at = head_end;
                continue;
            }
            let is_type = |field: &httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-type");
            let media_type = head.headers.iter().find(|field| is_type(field)).map_or(&b""[..], |field| field.value);
            let media_type = media_type.split(|&byte| byte == b';').next().expect("one at least").trim_ascii();
            let streamed = [&b"text/event-stream"[..], b"application/x-ndjson"];
            let framing = framing(head.headers);
            let bodiless = request.head || code == 204 || code == 304;
            let whole =
                |end: usize| (Vec::from_iter((end > head_end).then_some(head_end)), (head_end..end).collect(), end);
            let ((data, body, end), until_close) = match framing.length {
                _ if bodiless => ((vec![], vec![], head_end), false),
                _ if framing.chunked => (chunks(bytes, head_end), false),
                Some(length) if !framing.other_coding => (whole(head_end + length), false),
                _ => (whole(bytes.len()), true),
            };
            at = end;
            responses.push(Response {
                starts,
                head_end,
                data,
                body,
                end,
                code: u32::from(code),
                streamed: streamed.iter().any(|name| media_type.eq_ignore_ascii_case(name)),
                chunked: framing.chunked,
                until_close,
            });
            break;
        }
    }
    assert_eq!(at, bytes.len(), "bytes after the last response");
    responses
}

impl Response {
    /// The bytes of the body.
    pub(crate) fn content(&self, bytes: &[u8]) -> Vec<u8> {
        self.body.iter().map(|&at| bytes[at]).collect()
    }
}

/// What the tracker must observe of a conversation that ends with the server's FIN at `close`, by direction and with the
/// time of the segment that shows it. `time` says when a byte came, from the client or not.
pub(crate) fn truth(
    time: impl Fn(bool, usize) -> u64,
    server: &[u8],
    requests: &[Request],
    responses: &[Response],
    close: u64,
) -> [Vec<(u64, Observation)>; 2] {
    let mut of_requests = vec![];
    for request in requests {
        let now = time(true, request.line_end - 1);
        if of_requests.is_empty() {
            of_requests.push((now, Observation::Protocol(Protocol::Http1)));
        }
        of_requests.push((now, Observation::Begun));
    }
    let mut of_responses = vec![];
    for (request, response) in requests.iter().zip(responses) {
        let endpoint = request.endpoint;
        let latency = |which, ns| Observation::Latency { which, endpoint, ns };
        let first = time(true, request.start);
        let asked = time(true, request.end - 1);
        let answers = time(false, *response.starts.last().expect("the final one"));
        let first_byte = if response.streamed { Latency::FirstByteOfStream } else { Latency::FirstByte };
        of_responses.push((time(false, response.head_end - 1), latency(first_byte, answers - asked)));
        let ended = time(false, response.end - 1);
        let seen = if response.until_close { close } else { ended };
        let mut failed = false;
        if response.streamed {
            let stream = Stream::read(&response.content(server));
            failed = stream.failed;
            // Chunks and events, by the byte that shows them.
            let chunks = response.data.iter().map(|&at| (at, None));
            let events = stream.seen.into_iter().map(|(at, seen)| (response.body[at], Some(seen)));
            let mut all: Vec<_> = chunks.chain(events).collect();
            all.sort_by_key(|&(at, seen)| (at, seen.is_some()));
            let (mut before, mut unread) = (None, false);
            for (at, seen) in all {
                let now = time(false, at);
                if seen.is_none() && Some(&at) == response.data.first() {
                    of_responses.push((now, latency(Latency::FirstChunk, now - asked)));
                }
                if seen.is_none() && response.chunked {
                    of_responses.push((now, Observation::Chunk { endpoint }));
                }
                if matches!(seen, Some(Seen::Output | Seen::Unread)) || (seen.is_none() && unread) {
                    let (which, since) = before.map_or((Latency::FirstToken, asked), |at| (Latency::InterToken, at));
                    of_responses.push((now, latency(which, now - since)));
                    before = Some(now);
                }
                match seen {
                    None => {}
                    Some(Seen::Unread) => {
                        of_responses.push((now, Observation::Unread { endpoint }));
                        unread = true;
                    }
                    Some(seen) => {
                        of_responses.push((now, Observation::Event { endpoint, output: seen == Seen::Output }));
                    }
                }
            }
        }
        if failed {
            of_responses.push((seen, Observation::Aborted { endpoint, side: Side::Server, phase: Phase::Error }));
        } else {
            of_responses.push((seen, latency(Latency::Duration, ended - first)));
            of_responses.push((seen, Observation::Completed { endpoint, code: response.code }));
        }
        of_responses.push((seen, Observation::Ended(1)));
    }
    [of_requests, of_responses]
}
