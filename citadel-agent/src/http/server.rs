//! Accepts connections and ends those that take too much.
//!
//! Everything a client can do to hold something is bounded by [`Limits`]: how many connections there are, how long each may
//! take for what it is doing, and how much memory responses take. A newcomer always gets in: when there are too many, the
//! connection goes that can best be missed, see [`connections`](super::connections). So neither a thousand idle connections
//! nor a thousand slow ones keep a scraper out.

use std::io;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task;
use tokio::time::{self, MissedTickBehavior};

use super::activity::{Activity, Phase, Watched};
use super::budget::Budget;
use super::connections::{Client, Connections};
use super::guard::Tls;
use super::router::Site;

/// What the clients of one listener may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Memory of the responses under way.
    pub response_bytes: usize,
    /// How long a connection may do nothing. More than any usual scrape interval, so that scrapers keep theirs.
    pub idle: Duration,
    /// How long a request may take to arrive, from its first byte.
    pub request: Duration,
    /// How long a response may take, from the end of the request until all of it is sent.
    pub answer: Duration,
    /// How long open requests may take to end once the agent shuts down.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            // Some uncompressed pages of 101 models, or a hundred compressed ones; any number of clients that share a buffer.
            response_bytes: 32 << 20,
            idle: Duration::from_secs(300),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// How long a connection may stay in `phase`.
    pub(super) const fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Idle => self.idle,
            Phase::Reading => self.request,
            Phase::Making | Phase::Sending => self.answer,
        }
    }
}

/// Largest request header. A scraper's has some 500 bytes; longer ones are answered with 431.
const MAX_HEADER: usize = 16 * 1024;

/// What is read ahead of a connection: a header, and what its client has sent after it.
const MAX_BUFFER: usize = 2 * MAX_HEADER;

/// What the kernel may hold of an answer. By itself it would grow to megabytes a connection, and take a whole page from a
/// reader that is too slow to ever get it.
const SEND_BUFFER: usize = 128 * 1024;

/// How often connections are held against their time limits.
const SWEEP: Duration = Duration::from_millis(250);

/// Wait after a failed accept, which fails again at once where file descriptors have run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Maximum time for the header of a plain-text request on a TLS port.
const PLAIN_TEXT: Duration = Duration::from_secs(1);

/// Serves `site` on `listener` until `shutdown` is done, then lets open requests end within the grace time.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    mut connections: Connections,
    budget: &Budget,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut sweep = time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.admit(stream, client.ip());
                    // A request that is here already is read before the next newcomer may take this one's place.
                    task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    if is_exhaustion(&error) {
                        connections.make_room();
                    }
                    time::sleep(ACCEPT_BACKOFF).await;
                }
            },
            () = budget.exceeded() => connections.free_memory().await,
            () = connections.next_ended() => {}
            _ = sweep.tick(), if !connections.is_empty() => connections.sweep(),
        }
    }
    drop(listener);
    connections.drain().await;
    Ok(())
}

/// Whether a connection less would help: out of file descriptors or memory. Else the newcomer itself had failed.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Serves one connection of `network`. Dropping this closes it.
pub(super) async fn connection(
    stream: TcpStream,
    network: IpAddr,
    activity: Arc<Activity>,
    site: Arc<Site>,
    closing: watch::Receiver<bool>,
) {
    // Answers go out whole, so that waiting for more to send only delays them.
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
        // The same answer as from Go's servers.
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

/// Whether a client sends plain text: a TLS handshake begins with byte 22 (RFC 8446, section 5.1).
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
        // Who has said all and shut its sending side still gets the answer.
        .half_close(true)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        // The sweep does this, and tells an idle connection from a slow header, which hyper does not.
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
