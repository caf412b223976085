//! Counts connections that the listeners closed early, and requests that they refused.

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

/// Why a request, or a TLS connection, was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Missing or wrong credentials.
    Credentials,
    /// Unknown host name.
    Host,
    /// Above `rate_limit`.
    RateLimit,
    /// The TLS handshake failed: plain text, or no accepted client certificate.
    Tls,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Credentials, Self::Host, Self::RateLimit, Self::Tls];

    /// Value of the label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Host => "host",
            Self::RateLimit => "rate_limit",
            Self::Tls => "tls",
        }
    }
}

/// Connections that each listener closed early, and requests that it refused, by reason.
#[derive(Debug, Default)]
pub struct Dropped {
    metrics: [AtomicU64; Reason::ALL.len()],
    health: [AtomicU64; Reason::ALL.len()],
    refused: [[AtomicU64; Refusal::ALL.len()]; 2],
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

    /// Counts a refusal.
    pub(super) fn refused(&self, content: Content, refusal: Refusal) {
        self.refused[content as usize][refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Listener, reason and number of refused requests, including zeros.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [Content::Metrics, Content::Health].into_iter().flat_map(move |content| {
            let counts = &self.refused[content as usize];
            Refusal::ALL.map(|reason| (content.name(), reason.name(), counts[reason as usize].load(Ordering::Relaxed)))
        })
    }

    fn of(&self, content: Content) -> &[AtomicU64; Reason::ALL.len()] {
        match content {
            Content::Metrics => &self.metrics,
            Content::Health => &self.health,
        }
    }
}
