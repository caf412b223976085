//! The smallest HTTP client that reads a page.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// An answer of the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// Asks this host's `port` for `path`; HTTP/1.0, so that the end of the connection ends the body.
///
/// # Errors
/// Those of the socket, and `InvalidData` for something that is not an HTTP answer in UTF-8.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    get_as(port, path, "*/*")
}

/// Likewise, in a format that `accept` names.
///
/// # Errors
/// Those of [`get`].
pub fn get_as(port: u16, path: &str, accept: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {text:?}")))
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Response { code, body: body.to_owned() })
}
