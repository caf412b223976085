//! One GET on a connection of its own, within a time and a size.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

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

/// Asks a server on this host for a path.
pub(super) async fn get(port: u16, path: &str, timeout: Duration, announce: &Announce) -> Result<Body, ClientError> {
    tokio::time::timeout(timeout, exchange(port, path, announce)).await.unwrap_or(Err(ClientError::Timeout(timeout)))
}

async fn exchange(port: u16, path: &str, announce: &Announce) -> Result<Body, ClientError> {
    // The guard of the announcement outlives the connection.
    let (stream, _announced) = match connect(Ipv4Addr::LOCALHOST.into(), port, announce).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // A server may listen on one of the two only; what the first said is what counts for a person.
            connect(Ipv6Addr::LOCALHOST.into(), port, announce).await.map_err(|_| error)?
        }
        result => result?,
    };
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

/// Connects from an address that is known before.
async fn connect(address: IpAddr, port: u16, announce: &Announce) -> io::Result<(TcpStream, Box<dyn Send>)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A connection to an address of this host comes from the same one.
    socket.bind(SocketAddr::new(address, 0))?;
    let server = SocketAddr::new(address, port);
    let announced = announce(socket.local_addr()?, server)?;
    Ok((socket.connect(server).await?, announced))
}
