//! A single GET on its own connection, limited in time and size, in plain text or over TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, SERVER, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;

use crate::config::resolved::probing::Access;
use crate::host::files::read_whole_text;
use crate::host::sock_diag::{Listener, read_listeners};

/// Called with the two ends of a connection, ours first, before it is opened; returns a guard for the lifetime of the
/// connection.
pub type Announce = Arc<dyn Fn(SocketAddr, SocketAddr) -> io::Result<Box<dyn Send>> + Send + Sync>;

/// Maximum size of a body.
pub(super) const MAX_BODY: usize = 2 << 20;

/// Maximum size if only the beginning of a body is needed.
const MAX_HEAD: usize = 64 << 10;

/// Size up to which a complete body does not count toward [`MAX_SHARED`].
const OWN: usize = 128 << 10;

/// Maximum size of all bodies in progress, beyond what each has for itself: they can come from a hundred ports at once,
/// on which any user can listen.
pub(super) const MAX_SHARED: usize = 8 << 20;

/// Step by which bodies grow.
const STEP: usize = 64 << 10;

/// Maximum size of a header, and size of a connection's buffer.
const MAX_HEADER: usize = 32 << 10;

/// Maximum size of a key file.
const MAX_KEY: usize = 64 << 10;

/// Which part of a body is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// None; it is read and discarded, so that the server sees its response consumed.
    Nothing,
    /// Its beginning.
    Head,
    /// All of it.
    Whole,
}

/// A response.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) status: u16,
    /// The `Server` header.
    pub(super) server: Option<String>,
    /// The requested part of the body.
    pub(super) bytes: Vec<u8>,
    /// Whether the body exceeded the limit.
    pub(super) truncated: bool,
    /// Whether it did not fit into [`MAX_SHARED`].
    pub(super) no_room: bool,
    /// Its share of [`MAX_SHARED`].
    held: Vec<OwnedSemaphorePermit>,
}

impl Body {
    /// Adds a piece, as far as it is needed.
    fn take(&mut self, piece: &[u8], want: Want, shared: &Arc<Semaphore>) {
        match want {
            Want::Nothing => {}
            Want::Head => {
                let piece = &piece[..piece.len().min(MAX_HEAD - self.bytes.len())];
                self.bytes.extend_from_slice(piece);
            }
            Want::Whole if self.no_room => {}
            Want::Whole => {
                while self.bytes.capacity() < self.bytes.len() + piece.len() {
                    if self.bytes.capacity() + STEP > OWN {
                        let Ok(permit) = Arc::clone(shared).try_acquire_many_owned(STEP as u32) else {
                            *self = Self { status: self.status, no_room: true, ..Self::default() };
                            return;
                        };
                        self.held.push(permit);
                    }
                    self.bytes.reserve_exact(self.bytes.capacity() + STEP - self.bytes.len());
                }
                self.bytes.extend_from_slice(piece);
            }
        }
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no response within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Key(io::Error),
    #[error("not HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
}

impl ClientError {
    /// No process is listening on the port.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// How a TLS server can react to a request in plain text.
    pub(super) fn is_not_http(&self) -> bool {
        matches!(self, Self::Http(_))
    }
}

/// How to access a port.
pub(super) struct Client {
    pub(super) port: u16,
    pub(super) timeout: Duration,
    pub(super) access: Access,
    pub(super) announce: Announce,
    /// Has [`MAX_SHARED`] permits.
    pub(super) shared: Arc<Semaphore>,
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) path: &'a str,
    pub(super) want: Want,
    /// `None`: plain text.
    pub(super) tls: Option<&'a TlsConnector>,
}

impl Client {
    /// Sends the request to the server on this host.
    pub(super) async fn get(&self, question: Question<'_>) -> Result<Body, ClientError> {
        let exchange = self.exchange(question);
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(ClientError::Timeout(self.timeout)))
    }

    /// The server name for TLS and `Host`.
    fn server_name(&self) -> &str {
        self.access.server_name.as_deref().unwrap_or("localhost")
    }

    async fn exchange(&self, question: Question<'_>) -> Result<Body, ClientError> {
        let authorization = self.authorization()?;
        // The guard of the announcement outlives the connection.
        let (stream, _announced) = connect(&addresses(self.port), &self.announce).await?;
        let Some(tls) = question.tls else {
            return self.ask(stream, question, authorization).await;
        };
        let name = ServerName::try_from(self.server_name().to_owned()).map_err(io::Error::other);
        let stream = tls.connect(name.map_err(ClientError::Tls)?, stream).await.map_err(ClientError::Tls)?;
        self.ask(stream, question, authorization).await
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        question: Question<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Body, ClientError> {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEADER).handshake(TokioIo::new(stream)).await?;
        let mut request = Request::get(question.path)
            .header(HOST, format!("{}:{}", self.server_name(), self.port))
            .header(USER_AGENT, concat!("citadel-agent/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "text/plain;version=0.0.4, application/json;q=0.9, */*;q=0.1")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        for (name, value) in &self.access.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                request.headers_mut().insert(name, value);
            }
        }
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let ask = async {
            let mut response = sender.send_request(request).await?;
            let server = response.headers().get(SERVER).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (mut body, mut length) = (Body { status: response.status().as_u16(), server, ..Body::default() }, 0);
            while let Some(frame) = response.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                length += data.len();
                if length > MAX_BODY {
                    body.truncated = true;
                    break;
                }
                body.take(&data, question.want, &self.shared);
            }
            Ok(body)
        };
        // The connection progresses only while it is polled, and ends with the response.
        let mut connection = std::pin::pin!(connection);
        let mut ask = std::pin::pin!(ask);
        tokio::select! {
            result = &mut ask => result,
            ended = &mut connection => {
                ended?;
                ask.await
            }
        }
    }

    /// The key, read for each request, so that a new one needs no reload.
    fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Some(file) = &self.access.api_key_file else { return Ok(None) };
        let wrong = |error: &dyn std::fmt::Display| {
            ClientError::Key(io::Error::other(format!("cannot read the API key from {}: {error}", file.display())))
        };
        let key = read_whole_text(file, MAX_KEY).map_err(|error| wrong(&error))?;
        let mut value: HeaderValue = format!("Bearer {}", key.trim())
            .parse()
            .map_err(|_| wrong(&"it contains characters that are not allowed in a header field"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The listening socket of a port's server, if visible.
pub(super) fn listener(port: u16) -> Option<Listener> {
    read_listeners(|listening| listening == port).unwrap_or_default().into_iter().next()
}

/// The address where a port's server listens; loopback if it does not or if unknown. A server on all IPv6 addresses is
/// accessed over IPv4 if the host has no IPv6 (`disable_ipv6`).
fn addresses(port: u16) -> Vec<SocketAddr> {
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    match listener(port) {
        Some(listener) if listener.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![listener.server(), loopback],
        Some(listener) => vec![listener.server()],
        None => vec![loopback],
    }
}

/// Connects to the first reachable address.
async fn connect(servers: &[SocketAddr], announce: &Announce) -> io::Result<(TcpStream, Box<dyn Send>)> {
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    for &server in servers {
        result = connect_to(server, announce).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Connects from a local address that is known in advance.
async fn connect_to(server: SocketAddr, announce: &Announce) -> io::Result<(TcpStream, Box<dyn Send>)> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A connection to an address of this host comes from the same address.
    socket.bind(SocketAddr::new(server.ip(), 0))?;
    let announced = announce(socket.local_addr()?, server)?;
    Ok((socket.connect(server).await?, announced))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn it_comes_from_the_address_that_was_announced() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let server = TcpListener::bind(address).unwrap();
            let to = server.local_addr().unwrap();
            let announced = Arc::new(std::sync::Mutex::new(Vec::new()));
            let noted = Arc::clone(&announced);
            let announce: Announce = Arc::new(move |client, server| {
                noted.lock().unwrap().push((client, server));
                Ok(Box::new(()))
            });
            let (stream, _announced) = connect(&addresses(to.port()), &announce).await.unwrap();
            let (_, from) = server.accept().unwrap();
            assert_eq!((from, from.ip()), (stream.local_addr().unwrap(), to.ip()));
            assert_eq!(*announced.lock().unwrap(), [(from, to)]);
        }
    }

    #[tokio::test]
    async fn what_listens_on_all_addresses_is_reached_without_ipv6() {
        let server = TcpListener::bind("[::]:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut found = addresses(port);
        assert_eq!(found, [SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), ([127, 0, 0, 1], port).into()]);
        // No address of this host, as ::1 is none where disable_ipv6 is 1.
        found[0].set_ip("2001:db8::1".parse().unwrap());
        let announce: Announce = Arc::new(|_, _| Ok(Box::new(())));
        let (stream, _) = connect(&found, &announce).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
    }

    #[test]
    fn only_what_is_wanted_is_kept_and_all_answers_together_within_the_budget() {
        let shared = Arc::new(Semaphore::new(MAX_SHARED));
        let read = |want| {
            let mut body = Body::default();
            (0..MAX_BODY / 1000).for_each(|_| body.take(&[b'x'; 1000], want, &shared));
            body
        };
        assert_eq!(read(Want::Nothing).bytes.capacity(), 0);
        assert_eq!(read(Want::Head).bytes.len(), MAX_HEAD);
        let bodies: Vec<Body> = (0..101).map(|_| read(Want::Whole)).collect();
        let kept: usize = bodies.iter().map(|body| body.bytes.capacity()).sum();
        let whole = bodies.iter().filter(|body| !body.no_room).count();
        assert!(kept <= MAX_SHARED + 101 * OWN && (4..=8).contains(&whole), "{kept} bytes of {whole} answers");
        assert!(bodies.iter().all(|body| body.no_room == body.bytes.is_empty()));
        // Small ones always have room, and what a body had is free once it is gone.
        let mut small = Body::default();
        small.take(&[b'x'; 100_000], Want::Whole, &shared);
        assert!(!small.no_room);
        drop(bodies);
        assert_eq!(shared.available_permits(), MAX_SHARED);
        assert!(!read(Want::Whole).no_room);
    }
}
