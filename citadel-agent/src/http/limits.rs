//! Limits on everything that a client can occupy.

use std::time::Duration;

use super::activity::Phase;

/// Limits on the clients of one listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Memory of responses in progress.
    pub response_bytes: usize,
    /// Maximum idle time of a connection. Longer than usual scrape intervals, so that scrapers keep their connections.
    pub idle: Duration,
    /// Maximum time of a request, from its first byte.
    pub request: Duration,
    /// Maximum time of a response, from the end of the request until all of it is sent.
    pub answer: Duration,
    /// Maximum time of open requests when the agent shuts down.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            // Some uncompressed pages of 101 models, or a hundred compressed ones; any number of clients that share a
            // buffer.
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
