//! One connection: TLS if the listener uses it, then HTTP/1.x.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time;

use super::activity::{Activity, Watched};
use super::client::Client;
use super::guard::Tls;
use super::router::Site;

/// Maximum size of a request header. A scraper sends about 500 bytes; larger ones are answered with 431.
const MAX_HEADER: usize = 16 * 1024;

/// Read buffer of a connection: a header, and what follows it.
const MAX_BUFFER: usize = 2 * MAX_HEADER;

/// Kernel send buffer. By default it would grow to megabytes per connection, and accept a whole page for a reader that
/// is too slow to ever get it.
const SEND_BUFFER: usize = 128 * 1024;

/// Maximum time for the header of a plain-text request on a TLS port.
const PLAIN_TEXT: Duration = Duration::from_secs(1);

/// Serves one connection of `network`. Dropping this closes it.
pub(super) async fn serve(
    stream: TcpStream,
    network: IpAddr,
    activity: Arc<Activity>,
    site: Arc<Site>,
    closing: watch::Receiver<bool>,
) {
    // Responses are written as a whole, so waiting for more data only delays them.
    let options = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER));
    if let Err(error) = options {
        tracing::debug!(%error, "cannot set socket options of a connection");
    }
    let demands = site.gate().guard.demands();
    let encrypted = demands.tls.is_some();
    let client = Client { network, encrypted };
    let Some(Tls(acceptor)) = &demands.tls else {
        return talk(Watched { stream, activity: Arc::clone(&activity) }, client, &activity, &site, closing).await;
    };
    if speaks_in_the_clear(&stream).await {
        site.gate().refused_handshake();
        let mut stream = stream;
        // Closing a socket with unread data would reset the connection before the answer arrives.
        _ = time::timeout(PLAIN_TEXT, read_head(&mut stream)).await;
        // The same response as from Go's servers.
        let answer = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        _ = stream.write_all(answer).await;
        return;
    }
    match acceptor.accept(Watched { stream, activity: Arc::clone(&activity) }).await {
        Ok(stream) => {
            activity.secured();
            talk(stream, client, &activity, &site, closing).await;
        }
        Err(error) => {
            site.gate().refused_handshake();
            tracing::debug!(%error, "a TLS handshake failed");
        }
    }
}

/// Whether a client uses plain text: a TLS handshake starts with byte 22 (RFC 8446, section 5.1).
async fn speaks_in_the_clear(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_alphabetic()
}

/// Reads up to the empty line that ends the header of a request, or up to a size that usual ones stay below.
async fn read_head(stream: &mut TcpStream) {
    let mut head = [0; 4096];
    let mut length = 0;
    while length < head.len() && !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await {
            Ok(read @ 1..) => length += read,
            _ => return,
        }
    }
}

/// HTTP/1.x on a connection.
async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Client,
    activity: &Arc<Activity>,
    site: &Site,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        activity.requested();
        request.extensions_mut().insert(client);
        let response = TowerToHyperService::new(site.router()).call(request);
        let activity = Arc::clone(activity);
        async move {
            let response = response.await;
            activity.responded();
            response
        }
    });
    let serving = http1::Builder::new()
        // A client that has shut down its sending side still gets the response.
        .half_close(true)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        // The sweep does this, and distinguishes an idle connection from a slow header, which hyper does not.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _ = closing.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
