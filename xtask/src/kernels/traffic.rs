//! Traffic with known properties: a server that answers with JSON and event streams, and its clients.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The server's port, the first of the models'.
pub(super) const PORT: u16 = 11400;
/// The delay of the server before the first event with output, and between such events.
pub(super) const FIRST: Duration = Duration::from_millis(100);
pub(super) const GAP: Duration = Duration::from_millis(50);
/// Events of a stream that have output.
pub(super) const TOKENS: u32 = 8;
/// Those that have none: a role before all, usage and the end after them. Each event is a chunk.
pub(super) const OTHERS: u32 = 3;

const LIMIT: Duration = Duration::from_secs(20);

/// Accepts connections on [`PORT`], IPv4 and IPv6, for as long as the process lives.
pub(super) fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("binding the model's port")?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Err(error) = answer(stream) {
                    eprintln!("server: {error:#}");
                }
            });
        }
    });
    Ok(())
}

/// Answers requests until the client closes the connection.
fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        let mut body = vec![0; length(&head)?];
        reader.read_exact(&mut body)?;
        if head.starts_with("POST ") {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            // In one piece: the client looks at the clock when it has the size, the agent when the output after it left.
            let mut write =
                |event: &str| out.write_all(format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8).as_bytes());
            write(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#)?;
            for number in 0..TOKENS {
                thread::sleep(if number == 0 { FIRST } else { GAP });
                write(&format!(r#"{{"choices":[{{"delta":{{"content":"{number}"}}}}]}}"#))?;
            }
            write(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":8}}"#)?;
            write("[DONE]")?;
            out.write_all(b"0\r\n\r\n")?;
        } else {
            let body = r#"{"object":"list","data":[{"id":"guest"}]}"#;
            let length = body.len();
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")?;
        }
    }
    Ok(())
}

/// A message head with the empty line; `None` at the end of the stream.
fn read_head(reader: &mut impl std::io::BufRead) -> Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { bail!("the stream ended inside a message head") };
        }
    }
    Ok(Some(head))
}

fn length(head: &str) -> Result<usize> {
    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(Ok(0), |value| Ok(value.parse()?))
}

/// One client's connection.
pub(super) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects to the server at a loopback address.
    pub(super) fn connect(address: impl Into<IpAddr>) -> Result<Self> {
        let stream = TcpStream::connect((address.into(), PORT)).context("connecting to the model's port")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// Requests the list of models.
    pub(super) fn list(&mut self) -> Result<()> {
        self.stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: guest\r\n\r\n")?;
        let head = read_head(&mut self.reader)?.context("no answer")?;
        let mut body = vec![0; length(&head)?];
        Ok(self.reader.read_exact(&mut body)?)
    }

    /// Requests a stream; returns the time to its first token, which is in the second chunk.
    pub(super) fn chat(&mut self) -> Result<Duration> {
        let body = r#"{"model":"guest","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
        let (begun, length) = (Instant::now(), body.len());
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: guest\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        // Head and body in two segments, as many clients send them.
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body.as_bytes())?;
        read_head(&mut self.reader)?.context("no answer")?;
        let mut seen = Vec::new();
        loop {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            seen.push(begun.elapsed());
            let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk)?;
            if size == 0 {
                return seen.get(1).copied().context("no token");
            }
        }
    }
}
