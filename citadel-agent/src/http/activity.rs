//! What a connection is doing, and since when: the only thing that the limits need to know about it.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection is doing. In the order in which connections are given up when there are too many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// No request under way.
    Idle,
    /// A request has begun to arrive.
    Reading,
    /// The answer is being made or sent.
    Answering,
}

/// Shared by a connection, which changes it, and the accept loop, which judges by it.
#[derive(Debug)]
pub(super) struct Activity(Mutex<(Phase, Instant)>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new((Phase::Idle, Instant::now())))
    }

    /// The phase and when it began.
    pub(super) fn now(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is complete and goes to its handler.
    pub(super) fn answering(&self) {
        self.enter(Phase::Answering);
    }

    fn enter(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    fn received(&self) {
        if self.now().0 == Phase::Idle {
            self.enter(Phase::Reading);
        }
    }

    fn sent_all(&self) {
        if self.now().0 == Phase::Answering {
            self.enter(Phase::Idle);
        }
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// hyper flushes once its own buffer is empty, so this is when an answer is out.
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
