//! Accepts connections and ends those that take too much.
//!
//! Everything a client can do to hold something is bounded by [`Limits`]: how many connections there are, and how long
//! each may take for what it is doing. A newcomer always gets in: when there are too many, the one that has been idle
//! for longest makes room (then the one that has been sending its request for longest, then the slowest reader). So
//! neither a thousand idle connections nor a thousand slow ones keep a scraper out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::activity::{Activity, Phase, Watched};
use super::routes::Site;

/// What the clients of one listener may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open connections. Each may hold an answer, so this also bounds memory.
    pub connections: usize,
    /// How long a connection may do nothing. More than any usual scrape interval, so that scrapers keep theirs.
    pub idle: Duration,
    /// How long a request may take to arrive, from its first byte.
    pub request: Duration,
    /// How long an answer may take to be sent.
    pub answer: Duration,
    /// How long open requests may take to end once the agent shuts down.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            idle: Duration::from_secs(300),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// How long a connection may stay in `phase`.
    const fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Idle => self.idle,
            Phase::Reading => self.request,
            Phase::Answering => self.answer,
        }
    }
}

/// Largest request header. A scraper's has some 500 bytes; longer ones are answered with 431.
const MAX_HEADER: usize = 16 * 1024;

/// What the kernel may hold of an answer. By itself it would grow to megabytes a connection, and take a whole page from a
/// reader that is too slow to ever get it.
const SEND_BUFFER: usize = 128 * 1024;

/// How often connections are held against their time limits.
const SWEEP: Duration = Duration::from_millis(250);

/// Wait after a failed accept, which fails again at once where file descriptors have run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves `site` on `listener` until `shutdown` is done, then lets open requests end within the grace time.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    site: Site,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = Connections::new(site, limits);
    let mut sweep = time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.admit(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    if is_exhaustion(&error) {
                        connections.make_room();
                    }
                    time::sleep(ACCEPT_BACKOFF).await;
                }
            },
            Some(ended) = connections.tasks.join_next_with_id() => {
                connections.open.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            _ = sweep.tick(), if !connections.open.is_empty() => connections.sweep(),
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

/// The open connections of a listener.
struct Connections {
    site: Arc<Site>,
    limits: Limits,
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<Activity>, AbortHandle)>,
    /// Set once the listener is closed: each connection then ends after the answer under way.
    closing: watch::Sender<bool>,
}

impl Connections {
    fn new(site: Site, limits: Limits) -> Self {
        let (tasks, open, closing) = (JoinSet::new(), HashMap::new(), watch::Sender::new(false));
        Self { site: Arc::new(site), limits, tasks, open, closing }
    }

    fn admit(&mut self, stream: TcpStream) {
        if self.open.len() >= self.limits.connections {
            self.make_room();
        }
        let activity = Arc::new(Activity::new());
        let connection = connection(stream, Arc::clone(&activity), Arc::clone(&self.site), self.closing.subscribe());
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), (activity, task));
    }

    /// Ends the connection that can best be missed.
    fn make_room(&mut self) {
        let victim = self.open.iter().min_by_key(|(_, (activity, _))| activity.now()).map(|(id, _)| *id);
        if let Some((_, task)) = victim.and_then(|id| self.open.remove(&id)) {
            task.abort();
        }
    }

    /// Ends the connections whose time is up.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.open.retain(|_, (activity, task)| {
            let (phase, since) = activity.now();
            let keep = now - since <= self.limits.of(phase);
            if !keep {
                tracing::debug!(?phase, "a connection took too long and was closed");
                task.abort();
            }
            keep
        });
    }

    /// Waits for the answers under way, but not for longer than the grace time.
    async fn drain(mut self) {
        self.closing.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(self.limits.grace, all).await.is_err() {
            tracing::info!("closed connections whose answer was not taken within the grace time");
        }
    }
}

/// Serves one connection. Dropping this closes it.
async fn connection(stream: TcpStream, activity: Arc<Activity>, site: Arc<Site>, mut closing: watch::Receiver<bool>) {
    // Answers go out whole, so that waiting for more to send only delays them.
    let options = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER));
    if let Err(error) = options {
        tracing::debug!(%error, "cannot set the options of a connection");
    }
    let service = service_fn(|request| {
        activity.answering();
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.respond(&request).await) }
    });
    let watched = Watched { stream, activity: Arc::clone(&activity) };
    let serving = http1::Builder::new()
        // Who has said all and shut its sending side still gets the answer.
        .half_close(true)
        .max_header_size(MAX_HEADER)
        // The sweep does this, and tells an idle connection from a slow header, which hyper does not.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(watched), service);
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
