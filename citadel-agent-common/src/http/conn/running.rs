//! The request that a connection is working on, for a reader that looks at a copy of the connection.

use super::Conn;
use crate::abi::Phase;
use crate::http::request::Stamp;

/// The oldest request of a connection without a complete response. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Running {
    /// When its first byte arrived.
    pub first_ns: u64,
    /// Since when the client has been waiting for the next byte of the response: when the last byte was sent, or the request was
    /// complete. `None` while the request still arrives.
    pub waits_since_ns: Option<u64>,
    /// An [`crate::abi::Endpoint`].
    pub endpoint: u32,
    /// How far it is.
    pub phase: Phase,
    /// Events with output that were sent so far, of a streamed response.
    pub outputs: u32,
}

impl Conn {
    /// Whether requests are outstanding, as the kernel can tell at fixed offsets.
    #[inline(always)]
    #[must_use]
    pub const fn is_working(&self) -> bool {
        self.tail != self.head
    }

    /// The request that the server works on, at time `now`. The programs may have been writing while the copy was made: a place
    /// that does not hold the request yet is no request.
    #[must_use]
    pub fn running(&self, now: u64) -> Option<Running> {
        let request = self.awaits_response().then(|| self.oldest())?;
        let at = |stamp: Stamp| now.saturating_sub(stamp.until(now));
        let answering = self.response_phase();
        let answered = if answering.is_some() { self.tx_last_ns } else { 0 };
        let complete = request.is_complete();
        Some(Running {
            first_ns: at(request.first),
            waits_since_ns: complete.then(|| answered.max(at(request.last))),
            endpoint: request.endpoint(),
            phase: answering.unwrap_or(if complete { Phase::Waiting } else { Phase::Request }),
            // Of an earlier response until this one has begun.
            outputs: if answering.is_some() && self.output_ns != 0 { self.outputs } else { 0 },
        })
    }
}
