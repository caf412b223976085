//! Counts connections that the listeners closed early.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Content;

/// Why a connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// There were too many connections.
    ConnectionLimit,
    /// Responses in progress took too much memory.
    MemoryLimit,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The response was not read in time.
    ResponseTimeout,
}

impl Reason {
    pub(super) const ALL: [Self; 4] =
        [Self::ConnectionLimit, Self::MemoryLimit, Self::RequestTimeout, Self::ResponseTimeout];

    /// Value of the label `reason`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ConnectionLimit => "connection_limit",
            Self::MemoryLimit => "memory_limit",
            Self::RequestTimeout => "request_timeout",
            Self::ResponseTimeout => "response_timeout",
        }
    }
}

/// Connections that each listener closed early, by reason.
#[derive(Debug, Default)]
pub struct Dropped {
    metrics: [AtomicU64; Reason::ALL.len()],
    health: [AtomicU64; Reason::ALL.len()],
}

impl Dropped {
    pub(super) fn count(&self, content: Content, reason: Reason) {
        self.of(content)[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Listener, reason and count, including zeros.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [Content::Metrics, Content::Health].into_iter().flat_map(move |content| {
            let counts = self.of(content);
            Reason::ALL.map(|reason| (content.name(), reason.name(), counts[reason as usize].load(Ordering::Relaxed)))
        })
    }

    fn of(&self, content: Content) -> &[AtomicU64; Reason::ALL.len()] {
        match content {
            Content::Metrics => &self.metrics,
            Content::Health => &self.health,
        }
    }
}
