//! One GET on a connection of its own, within a time and a size.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

use crate::host::sock_diag::{Listener, read_listeners};

/// Is told of the two ends of a connection, ours first, before it is made, and gives what must live as long as it.
pub type Announce = Arc<dyn Fn(SocketAddr, SocketAddr) -> io::Result<Box<dyn Send>> + Send + Sync>;

/// What is read of a body.
pub(super) const MAX_BODY: usize = 2 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) status: u16,
    pub(super) bytes: Vec<u8>,
    /// Whether there was more.
    pub(super) truncated: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("not HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
}

impl ClientError {
    /// Nobody listens there.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Asks a server on this host for a path.
pub(super) async fn get(port: u16, path: &str, timeout: Duration, announce: &Announce) -> Result<Body, ClientError> {
    tokio::time::timeout(timeout, exchange(port, path, announce)).await.unwrap_or(Err(ClientError::Timeout(timeout)))
}

async fn exchange(port: u16, path: &str, announce: &Announce) -> Result<Body, ClientError> {
    // The guard of the announcement outlives the connection.
    let (stream, _announced) = connect(server(port), announce).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, format!("localhost:{port}"))
        .header(USER_AGENT, concat!("citadel-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "text/plain;version=0.0.4, application/json;q=0.9, */*;q=0.1")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let ask = async {
        let mut response = sender.send_request(request).await?;
        let (status, mut bytes) = (response.status().as_u16(), Vec::new());
        while let Some(frame) = response.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Ok(Body { status, bytes, truncated: true });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Body { status, bytes, truncated: false })
    };
    // The connection moves only while it is polled, and ends with the answer.
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

/// Where a port's server listens; loopback where it does not, or where the kernel does not say.
fn server(port: u16) -> SocketAddr {
    let listeners = read_listeners(|listening| listening == port).unwrap_or_default();
    listeners.first().map_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), Listener::server)
}

/// Connects from an address that is known before.
async fn connect(server: SocketAddr, announce: &Announce) -> io::Result<(TcpStream, Box<dyn Send>)> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A connection to an address of this host comes from the same one.
    socket.bind(SocketAddr::new(server.ip(), 0))?;
    let announced = announce(socket.local_addr()?, server)?;
    Ok((socket.connect(server).await?, announced))
}
