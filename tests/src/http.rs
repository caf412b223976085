//! The bytes of HTTP messages, as a server or client would put them together.

/// The empty chunk that ends a chunked body.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// Head of a streamed answer: server-sent events in chunks.
pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A request without a body.
#[must_use]
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: model\r\n\r\n")
}

/// Head of a request whose body has `length` bytes.
#[must_use]
pub fn post_head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

/// A request with a body.
#[must_use]
pub fn post(path: &str, body: &str) -> String {
    post_head(path, body.len()) + body
}

/// What an OpenAI client sends for a streamed chat completion.
#[must_use]
pub fn chat() -> String {
    post("/v1/chat/completions", r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#)
}

/// Head of a JSON answer whose body has `length` bytes.
#[must_use]
pub fn answer_head(status: &str, length: usize) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

/// A JSON answer.
#[must_use]
pub fn answer(status: &str, body: &str) -> String {
    answer_head(status, body.len()) + body
}

/// One chunk of a chunked body.
#[must_use]
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// One chunk that holds one server-sent event, as token servers send them.
#[must_use]
pub fn event(token: &str) -> String {
    chunk(&format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{token}\"}}}}]}}\n\n"))
}
