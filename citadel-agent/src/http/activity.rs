//! What a connection is doing, and since when: all that the limits need to know about it.

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
    /// No request under way.
    Idle,
    /// A request has begun to arrive.
    Reading,
    /// A whole request is here, and its response is being made.
    Making,
    /// The response is being sent.
    Sending,
}

/// What a connection is doing at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// What it is doing.
    pub(super) phase: Phase,
    /// Since when, for its time limit. Making and sending a response share one limit.
    pub(super) since: Instant,
    /// When it last got further: opened, a whole request received, a part of the response taken, or all of it. Parts of a
    /// request are no progress: a client could send them one by one.
    pub(super) progress: Instant,
}

impl State {
    /// Whether a whole request has come that is not answered yet.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Making | Phase::Sending)
    }
}

/// Shared by a connection, which changes it, and the accept loop, which judges by it.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { phase: Phase::Idle, since: now, progress: now }))
    }

    pub(super) fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole request is here.
    pub(super) fn requested(&self) {
        self.change(|state, now| *state = State { phase: Phase::Making, since: now, progress: now });
    }

    /// The response is made.
    pub(super) fn responded(&self) {
        self.change(|state, now| *state = State { phase: Phase::Sending, progress: now, ..*state });
    }

    fn received(&self) {
        self.change(|state, now| {
            if state.phase == Phase::Idle {
                *state = State { phase: Phase::Reading, since: now, ..*state };
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

    /// hyper also flushes while a response is being made: then nothing has been sent.
    fn sent_all(&self) {
        self.change(|state, now| {
            if state.phase == Phase::Sending {
                *state = State { phase: Phase::Idle, since: now, progress: now };
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    }
}

/// A connection that notes its own activity.
#[derive(Debug)]
pub(super) struct Watched<A> {
    /// The connection.
    pub(super) stream: TcpStream,
    /// Where it notes.
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

    /// hyper flushes once its own buffer is empty, so this is when a response is out.
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
