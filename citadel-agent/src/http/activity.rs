//! The state of a connection and since when: the input of the limits.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// No request in progress.
    Idle,
    /// A request is arriving.
    Reading,
    /// The request is complete, and its response is being created.
    Making,
    /// The response is being sent.
    Sending,
}

/// The state of a connection at a point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionState {
    /// Current phase.
    pub(super) phase: Phase,
    /// Start of the phase, for its time limit. Creating and sending a response share one limit.
    pub(super) since: Instant,
    /// Last progress: the connection opened, a complete request received, a part of the response or all of it read.
    /// Parts of a request do not count, because a client could send them one by one.
    pub(super) progress: Instant,
}

impl ConnectionState {
    /// Whether a complete request has not been answered yet.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Making | Phase::Sending)
    }
}

/// Shared by a connection, which updates it, and the accept loop, which evaluates it.
#[derive(Debug)]
pub(super) struct Activity(Mutex<ConnectionState>);

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(ConnectionState { phase: Phase::Idle, since: now, progress: now }))
    }

    pub(super) fn state(&self) -> ConnectionState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is complete.
    pub(super) fn requested(&self) {
        self.change(|state, now| *state = ConnectionState { phase: Phase::Making, since: now, progress: now });
    }

    /// The response is created.
    pub(super) fn responded(&self) {
        self.change(|state, now| *state = ConnectionState { phase: Phase::Sending, progress: now, ..*state });
    }

    /// TLS has been agreed upon: what came so far was no request.
    pub(super) fn secured(&self) {
        self.change(|state, now| *state = ConnectionState { phase: Phase::Idle, since: now, ..*state });
    }

    fn received(&self) {
        self.change(|state, now| {
            if state.phase == Phase::Idle {
                *state = ConnectionState { phase: Phase::Reading, since: now, ..*state };
            }
        });
    }

    fn sent(&self) {
        self.change(|state, now| {
            if state.phase == Phase::Sending {
                state.progress = now;
            }
        });
    }

    /// hyper also flushes while a response is being created, when nothing has been sent.
    fn sent_all(&self) {
        self.change(|state, now| {
            if state.phase == Phase::Sending {
                *state = ConnectionState { phase: Phase::Idle, since: now, progress: now };
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut ConnectionState, Instant)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    }
}

/// A stream that records its own activity.
#[derive(Debug)]
pub(super) struct Watched<A> {
    /// The connection.
    pub(super) stream: TcpStream,
    /// Where it is recorded.
    pub(super) activity: A,
}

impl<A: AsRef<Activity> + Unpin> Watched<A> {
    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.as_ref().sent();
        }
        written
    }
}

impl<A: AsRef<Activity> + Unpin> AsyncRead for Watched<A> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.as_ref().received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<A: AsRef<Activity> + Unpin> AsyncWrite for Watched<A> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_sent(written)
    }

    /// hyper flushes once its own buffer is empty, so the response has then been sent.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.as_ref().sent_all();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
