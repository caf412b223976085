//! Generates whole conversations: the bytes of both directions, and where messages lie in them.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::pieces::{self, PIECES};

/// Where one exchange lies in the bytes of both directions.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Range<usize>,
    pub(crate) request_head_end: usize,
    pub(crate) response: Range<usize>,
    /// Up to where the server answers the request's head alone (`Expect: 100-continue`).
    interim_end: usize,
}

/// The bytes that two ends have for each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
    pub(crate) exchanges: Vec<Exchange>,
}

impl Conversation {
    /// How far the server gets when it has read so many bytes.
    pub(crate) fn server_may_send(&self, client_sent: usize) -> usize {
        let unanswered = self.exchanges.iter().find(|exchange| exchange.request.end > client_sent);
        match unanswered {
            None => self.server.len(),
            Some(exchange) if client_sent >= exchange.request_head_end => exchange.interim_end,
            Some(exchange) => exchange.response.start,
        }
    }

    /// How far a client gets that waits for each response before it sends the next request.
    pub(crate) fn client_may_send(&self, server_sent: usize) -> usize {
        let waits = self.exchanges.iter().find(|exchange| exchange.response.end > server_sent);
        waits.map_or(self.client.len(), |exchange| exchange.request.end)
    }

    fn push(&mut self, request: &Request, response: &Response, last: bool) {
        let (start, response_start) = (self.client.len(), self.server.len());
        self.client.extend_from_slice(request.blank.as_bytes());
        let (head, body) = request.bytes();
        self.client.extend(head);
        let request_head_end = self.client.len();
        self.client.extend(body);
        let mut interim_end = response_start;
        for interim in &response.interims {
            self.server.extend_from_slice(interim.as_bytes());
            if request.expects {
                interim_end = self.server.len();
            }
        }
        self.server.extend(response.bytes(request.method == "HEAD", last));
        self.exchanges.push(Exchange {
            request: start..self.client.len(),
            request_head_end,
            response: response_start..self.server.len(),
            interim_end,
        });
    }
}

/// What bodies are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// Anything, and often what looks like HTTP.
    Any,
    /// What does not begin like a request, wherever it is cut.
    Bland,
}

/// Conversations of up to `most` exchanges.
pub(crate) fn conversations(most: usize, bodies: Bodies) -> impl Strategy<Value = Conversation> {
    vec((request(bodies), response(bodies)), 1..=most).prop_map(|exchanges| {
        let mut conversation = Conversation::default();
        for (index, (request, response)) in exchanges.iter().enumerate() {
            conversation.push(request, response, index + 1 == exchanges.len());
        }
        conversation
    })
}

/// Conversations whose requests have bodies of known length, of `size` bytes.
pub(crate) fn uploads(most: usize, size: Range<usize>) -> impl Strategy<Value = Conversation> {
    let request = (request(Bodies::Bland), size).prop_map(|(mut request, size)| {
        request.framing = Framing::Length(vec![b'x'; size]);
        request.expects = false;
        request
    });
    vec((request, response(Bodies::Any)), 1..=most).prop_map(|exchanges| {
        let mut conversation = Conversation::default();
        for (request, response) in &exchanges {
            conversation.push(request, response, false);
        }
        conversation
    })
}

#[derive(Clone, Debug)]
struct Chunk {
    /// The size's leading zeros and the case of its digits.
    zeros: usize,
    upper: bool,
    extension: &'static str,
    data: Vec<u8>,
    eol: &'static str,
}

#[derive(Clone, Debug)]
enum Framing {
    /// No framing field: no body, or a response until the connection closes.
    None,
    Length(Vec<u8>),
    Chunked {
        coding: &'static str,
        chunks: Vec<Chunk>,
        last: &'static str,
        trailers: Vec<String>,
    },
    /// A response until the connection closes, although it has a field.
    OtherCoding(Vec<u8>),
}

impl Framing {
    fn body(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::None => {}
            Self::Length(data) | Self::OtherCoding(data) => bytes.extend_from_slice(data),
            Self::Chunked { chunks, last, trailers, .. } => {
                for Chunk { zeros, upper, extension, data, eol } in chunks {
                    let size = data.len();
                    let size = if *upper { format!("{size:X}") } else { format!("{size:x}") };
                    bytes.extend_from_slice(format!("{}{size}{extension}{eol}", "0".repeat(*zeros)).as_bytes());
                    bytes.extend_from_slice(data);
                    // The line end after the data is part of the chunk and no line: always CR LF (section 7.1).
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(last.as_bytes());
                bytes.extend(trailers.concat().into_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }
}

/// The parts of a head that requests and responses share.
#[derive(Clone, Debug)]
struct Fields {
    extra: Vec<String>,
    style: Style,
    at: Index,
}

impl Fields {
    fn with(&self, framing: &[(&str, String)], end: &str) -> String {
        let mut lines = self.extra.clone();
        for (name, value) in framing {
            lines.insert(self.at.index(lines.len() + 1), self.style.field(name, value));
        }
        lines.concat() + end
    }
}

/// How a field is written.
#[derive(Clone, Debug)]
struct Style {
    case: u8,
    before: &'static str,
    after: &'static str,
    eol: &'static str,
}

impl Style {
    fn field(&self, name: &str, value: &str) -> String {
        let name = match self.case {
            0 => name.to_owned(),
            1 => name.to_lowercase(),
            _ => name.to_uppercase(),
        };
        format!("{name}:{}{value}{}{}", self.before, self.after, self.eol)
    }
}

#[derive(Clone, Debug)]
struct Request {
    blank: &'static str,
    method: &'static str,
    target: String,
    version: &'static str,
    eol: &'static str,
    fields: Fields,
    framing: Framing,
    expects: bool,
}

impl Request {
    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        // HTTP/1.0 has no chunks (RFC 9112, section 6.1).
        let version = if matches!(self.framing, Framing::Chunked { .. }) { "1.1" } else { self.version };
        let framing = match &self.framing {
            Framing::None | Framing::OtherCoding(_) => vec![],
            Framing::Length(data) => vec![("Content-Length", data.len().to_string())],
            Framing::Chunked { coding, .. } => vec![("Transfer-Encoding", (*coding).to_owned())],
        };
        let fields = self.fields.with(&framing, self.eol);
        let head = format!("{} {} HTTP/{version}{}{fields}", self.method, self.target, self.eol);
        let body = if matches!(self.framing, Framing::OtherCoding(_)) { vec![] } else { self.framing.body() };
        (head.into_bytes(), body)
    }
}

#[derive(Clone, Debug)]
struct Response {
    interims: Vec<String>,
    version: &'static str,
    code: u16,
    reason: &'static str,
    eol: &'static str,
    content_type: Option<&'static str>,
    /// A `Content-Length` beside `Transfer-Encoding`: the latter counts (RFC 9112, section 6.3, rule 3).
    length_too: bool,
    fields: Fields,
    framing: Framing,
}

impl Response {
    fn bytes(&self, to_head: bool, last: bool) -> Vec<u8> {
        let mut framing = vec![];
        if let Some(content_type) = self.content_type {
            framing.push(("Content-Type", content_type.to_owned()));
        }
        let without_body = to_head || [204, 304].contains(&self.code);
        match &self.framing {
            Framing::Length(data) => framing.push(("Content-Length", data.len().to_string())),
            Framing::Chunked { coding, .. } => framing.push(("Transfer-Encoding", (*coding).to_owned())),
            Framing::OtherCoding(_) if last => framing.push(("Transfer-Encoding", "gzip".to_owned())),
            // Only the last response can lie in the connection's end.
            Framing::None | Framing::OtherCoding(_) if !last && !without_body => {
                framing.push(("Content-Length", "0".to_owned()));
            }
            Framing::None | Framing::OtherCoding(_) => {}
        }
        if self.length_too && matches!(self.framing, Framing::Chunked { .. }) {
            framing.push(("Content-Length", "7".to_owned()));
        }
        let fields = self.fields.with(&framing, self.eol);
        let head = format!("HTTP/{} {}{}{}{fields}", self.version, self.code, self.reason, self.eol);
        let mut bytes = head.into_bytes();
        if !without_body && (last || !matches!(self.framing, Framing::OtherCoding(_))) {
            bytes.extend(self.framing.body());
        }
        bytes
    }
}

/// A stream of events.
fn stream() -> impl Strategy<Value = Framing> {
    pieces::chunks().prop_map(|parts| {
        let chunk = |data| Chunk { zeros: 0, upper: false, extension: "", data, eol: "\r\n" };
        let chunks = parts.into_iter().map(chunk).collect();
        Framing::Chunked { coding: "chunked", chunks, last: "0\r\n", trailers: vec![] }
    })
}

/// A bare LF is a line end too (RFC 9112, section 2.2).
fn eol() -> impl Strategy<Value = &'static str> {
    prop_oneof![7 => Just("\r\n"), 1 => Just("\n")]
}

fn style() -> impl Strategy<Value = Style> {
    let blanks = || select(vec!["", " ", " ", "\t", "  ", " \t "]);
    (0u8..3, blanks(), blanks(), eol()).prop_map(|(case, before, after, eol)| Style { case, before, after, eol })
}

fn extra_field() -> impl Strategy<Value = String> {
    let alike = [
        ("Content-Lengths", "3"),
        ("X-Content-Length", "9"),
        ("Content-Len", "4"),
        ("Content", "length: 5"),
        ("Transfer-Encodings", "chunked"),
        ("X-Transfer-Encoding", "chunked"),
        ("Transfer", "chunked"),
        ("Content-Typed", "text/event-stream"),
        ("Content-Encoding", "gzip"),
        ("Accept", "text/event-stream"),
        ("Host", "127.0.0.1:11400"),
        ("Connection", "keep-alive"),
    ];
    let alike = select(alike.to_vec()).prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let any = ("X-[A-Za-z0-9-]{0,20}", "([!-~][ -~]{0,20}[!-~])?");
    let long = ("X-[a-z]{1,80}", "[!-~]{50,200}");
    (prop_oneof![2 => alike, 2 => any, 1 => long], style())
        .prop_map(|((name, value), style)| style.field(&name, &value))
}

fn fields() -> impl Strategy<Value = Fields> {
    let extra = prop_oneof![9 => vec(extra_field(), 0..4), 1 => vec(extra_field(), 20..40)];
    (extra, style(), any::<Index>()).prop_map(|(extra, style, at)| Fields { extra, style, at })
}

fn data(bodies: Bodies, most: usize) -> BoxedStrategy<Vec<u8>> {
    if bodies == Bodies::Bland {
        return vec(select(b"abcxyz {}[]\",:.0123456789".to_vec()), 1..most).boxed();
    }
    let http: [&[u8]; 8] = [
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"\r\n\r\nPOST /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"data: [DONE]\n\n",
    ];
    prop_oneof![
        vec(select(PIECES.to_vec()), 1..6).prop_map(|pieces| pieces.concat().into_bytes()),
        vec(any::<u8>(), 1..most),
        vec(select(http.to_vec()), 1..3).prop_map(|parts| parts.concat()),
        "[a-z{}\":, ]{1,40}".prop_map(String::into_bytes),
    ]
    .boxed()
}

fn framing(bodies: Bodies) -> impl Strategy<Value = Framing> {
    let coding = select(vec!["chunked", "chunked", "Chunked", "gzip, chunked", "gzip,CHUNKED", "deflate ,\tchunked"]);
    let extension = select(vec![
        "",
        "",
        ";a=b",
        " ; name=\"0\r\"",
        ";a;bb=\"c d\"",
        ";quite-a-long-extension=that-fills-several-words",
    ]);
    let chunk = (0usize..4, any::<bool>(), extension, data(bodies, 60), eol())
        .prop_map(|(zeros, upper, extension, data, eol)| Chunk { zeros, upper, extension, data, eol });
    let last = select(vec!["0\r\n", "0\r\n", "000\r\n", "0;end=1\r\n", "0\n"]);
    let trailers = prop_oneof![2 => Just(vec![]), 1 => vec(extra_field(), 1..3)];
    prop_oneof![
        1 => Just(Framing::None),
        3 => data(bodies, 200).prop_map(Framing::Length),
        1 => Just(Framing::Length(vec![])),
        4 => (coding, vec(chunk, 0..6), last, trailers)
            .prop_map(|(coding, chunks, last, trailers)| Framing::Chunked { coding, chunks, last, trailers }),
        1 => data(bodies, 200).prop_map(Framing::OtherCoding),
        if bodies == Bodies::Any { 3 } else { 0 } => stream(),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let path = select(vec![
        "/v1/chat/completions",
        "/v1/completions",
        "/completion",
        "/v1/responses",
        "/v1/embeddings",
        "/embedding",
        "/v1/rerank",
        "/reranking",
        "/v1/models",
        "/health",
        "/healthz",
        "/metrics",
        "/v2/models",
        "/chat/completions",
        "/",
        "/v1",
        "/v1/",
        "/v3/models",
        "/healthy",
        "/metric",
        "/v1/chat/completion",
        "/V1/models",
        "/v1/tokenize",
        "/detokenize",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/message",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/generate",
        "/generate_stream",
        "/api/generate",
        "/api/chat",
        "/chat",
        "/api/embed",
        "*",
        "http://h/v1/models",
        "https://127.0.0.1:11400/v1/chat/completions",
        "http://h",
        "http:/v1/models",
    ]);
    let rest = prop_oneof![3 => Just(String::new()), 1 => "\\?[a-z0-9=&/?]{0,20}", 1 => "/[a-z0-9/]{0,12}", 1 => "[?/x][a-z0-9=]{80,150}"];
    (path, rest).prop_map(|(path, rest)| format!("{path}{rest}"))
}

fn request(bodies: Bodies) -> impl Strategy<Value = Request> {
    let method = select(vec!["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "M-SEARCH"]);
    (
        select(vec!["", "", "", "\r\n", "\n", "\r\n\r\n"]),
        method,
        target(),
        select(vec!["1.1", "1.1", "1.0"]),
        eol(),
        fields(),
        framing(bodies),
        any::<bool>(),
    )
        .prop_map(|(blank, method, target, version, eol, fields, framing, expects)| Request {
            blank,
            method,
            target,
            version,
            eol,
            fields,
            framing,
            expects,
        })
}

fn response(bodies: Bodies) -> impl Strategy<Value = Response> {
    let interim = (select(vec!["100 Continue", "102", "103 Early Hints"]), fields())
        .prop_map(|(status, fields)| format!("HTTP/1.1 {status}\r\n{}", fields.with(&[], "\r\n")));
    let content_type = select(vec![
        None,
        Some("application/json"),
        Some("text/event-stream"),
        Some("text/event-stream"),
        Some("text/event-stream; charset=utf-8"),
        Some("Text/Event-Stream ;x"),
        Some("application/x-ndjson"),
        Some("text/event-streams"),
        Some("application/x-ndjsonp"),
        Some("text/event"),
    ]);
    let code = prop_oneof![3 => Just(200u16), 1 => select(vec![204u16, 304]), 3 => 200u16..600];
    let reason = select(vec![
        " OK",
        "",
        " ",
        " Not Found",
        " a reason of more than sixty-four bytes: nobody reads it, but somebody sent it",
    ]);
    (
        prop_oneof![3 => Just(vec![]), 1 => vec(interim, 1..3)],
        select(vec!["1.1", "1.1", "1.0"]),
        code,
        reason,
        eol(),
        content_type,
        any::<bool>(),
        fields(),
        framing(bodies),
    )
        .prop_map(|(interims, version, code, reason, eol, content_type, length_too, fields, framing)| Response {
            interims,
            version,
            code,
            reason,
            eol,
            content_type,
            length_too,
            fields,
            framing,
        })
}
