//! Loads that wrk cannot generate: a steady rate, and one stream with many chunks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::nginx;

/// A keep-alive connection to nginx.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends one request and reads the whole response.
    fn ask(&mut self) -> io::Result<()> {
        write!(self.0.get_mut(), "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", nginx::PATH)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.strip_prefix("Content-Length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
        }
        io::copy(&mut (&mut self.0).take(length), &mut io::sink()).map(drop)
    }
}

/// Sends one request to `port`.
pub(super) fn ask_once(port: u16) -> Result<()> {
    Client::connect(port).and_then(|mut client| client.ask()).with_context(|| format!("asking port {port}"))
}

/// Sends `rate` requests per second in total, evenly spaced over `ports`, for `time`; returns how many were answered.
pub(super) fn steady(ports: &[u16], rate: f64, time: Duration) -> Result<u64> {
    let gap = Duration::from_secs_f64(ports.len() as f64 / rate);
    let client = |port: u16| -> io::Result<u64> {
        let mut client = Client::connect(port)?;
        let begin = Instant::now();
        let mut count = 0;
        while begin.elapsed() < time && !crate::group::stopping() {
            client.ask()?;
            count += 1;
            // Scheduled by the plan, not by the last response: a late one does not lower the rate.
            thread::sleep((gap * count).saturating_sub(begin.elapsed()));
        }
        Ok(u64::from(count))
    };
    thread::scope(|scope| {
        let clients: Vec<_> = ports.iter().map(|&port| scope.spawn(move || client(port))).collect();
        clients.into_iter().try_fold(0, |sum, client| {
            let count = client.join().map_err(|_| anyhow!("a client panicked"))?;
            Ok(sum + count.context("the steady load failed")?)
        })
    })
}

/// Time between two chunks: long enough for each to be a segment of its own (at 10 us the socket coalesces them to 64
/// KiB); busy-waiting keeps the CPU awake.
const CHUNK_GAP: Duration = Duration::from_micros(50);

/// An event as OpenAI-compatible servers send it for each token.
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
                     \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n";

/// A stream by what it takes to read its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    /// Events that begin alike up to their output, as most engines send them.
    Alike,
    /// The same, in a stream that began with what is no event: so they are chunks and nothing else.
    Unread,
    /// Lines with a time before their output, so that each begins differently (Ollama).
    Different,
    /// Events of which each states token counts beside its output (SGLang).
    Counts,
}

impl Stream {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Alike, Self::Unread, Self::Different, Self::Counts];

    fn path(self) -> &'static str {
        match self {
            Self::Alike | Self::Unread => "/v1/chat/completions",
            Self::Different => "/api/chat",
            Self::Counts => "/generate",
        }
    }

    fn content_type(self) -> &'static str {
        if self == Self::Different { "application/x-ndjson" } else { "text/event-stream" }
    }

    /// The event in this chunk.
    fn event(self, number: u64) -> String {
        match self {
            Self::Unread if number == 0 => format!("{}\n\n", "?".repeat(EVENT.len())),
            Self::Alike | Self::Unread => EVENT.to_owned(),
            Self::Different => format!(
                "{{\"model\":\"m\",\"created_at\":\"2026-11-30T12:00:00.{number:09}Z\",\"message\":{{\"role\":\"assistant\",\
                 \"content\":\" word\"}},\"done\":false}}\n"
            ),
            Self::Counts => format!(
                "data: {{\"text\": \" word\", \"output_ids\": [2], \"meta_info\": {{\"id\": \"5f3a\", \"finish_reason\": null, \
                 \"prompt_tokens\": 25, \"completion_tokens\": {number}, \"cached_tokens\": 0}}}}\n\n"
            ),
        }
    }
}

/// Streams one response of `chunks` chunks on `port`, each in its own write, to a client that reads it to the end.
pub(super) fn stream(port: u16, kind: Stream, chunks: u64) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!("port {port}, needed for a stream, is in use; stop the process that listens on it (`ss -ltnp`)")
    })?;
    // Before the server waits for it, so that a failure here leaves no thread behind.
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to the stream")?;
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, kind, chunks));
        let read = read_stream(client, kind);
        let served = server.join().map_err(|_| anyhow!("the stream's server panicked"))?;
        served.context("serving the stream")?;
        read.context("reading the stream")
    })
}

fn serve(listener: &TcpListener, kind: Stream, chunks: u64) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if request.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let kind_of_content = kind.content_type();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind_of_content}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let begin = Instant::now();
    for number in 0..chunks {
        let event = kind.event(number);
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while begin.elapsed() < CHUNK_GAP * u32::try_from(number).unwrap_or(u32::MAX) {
            std::hint::spin_loop();
        }
        stream.write_all(chunk.as_bytes())?;
    }
    stream.write_all(b"0\r\n\r\n")
}

fn read_stream(mut client: TcpStream, kind: Stream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(client, "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", kind.path())?;
    // The server closes the connection after the last chunk.
    io::copy(&mut client, &mut io::sink()).map(drop)
}
