//! HTTP/1.x as the kernel follows it: lines, message framing, connections.
//!
//! All of it is pure: bytes and a time go in, observations come out through [`conn::Sink`]. Host tests, a fuzzer and a
//! reference parser run the very code that the kernel runs.

pub mod conn;
pub mod framer;
pub mod line;
mod reorder;
mod request;
mod start_line;

use crate::abi::{Latency, Lost, Phase, Protocol, Side};
pub(crate) use reorder::after;

/// Consecutive bytes, eight by eight: a little-endian word each.
pub type Stretch = [[u8; 8]; 8];

/// The payload of one segment.
pub trait Payload {
    /// The bytes from `offset` on; those beyond the payload's end are unspecified. `None`: they cannot be read.
    fn stretch(&mut self, offset: u32) -> Option<&Stretch>;

    /// The first eight of them.
    #[inline(always)]
    fn word(&mut self, offset: u32) -> Option<u64> {
        Some(u64::from_le_bytes(self.stretch(offset)?[0]))
    }
}

/// Where observations go: atomic adds on map values in the kernel, a record in tests.
pub trait Sink {
    /// Payload bytes, each counted once.
    fn bytes(&mut self, response: bool, count: u32);
    /// The connection's protocol became known.
    fn protocol(&mut self, protocol: Protocol);
    /// The first byte of a request came, with sequence number `seq`.
    fn arrived(&mut self, seq: u32, now: u64);
    /// Requests began: their request lines are complete.
    fn begun(&mut self, count: u32);
    /// Requests left the queue: ended, aborted or lost.
    fn left(&mut self, count: u32);
    /// A response ended with status `code`.
    fn ended(&mut self, endpoint: u32, code: u32);
    /// A latency in nanoseconds.
    fn latency(&mut self, which: Latency, endpoint: u32, ns: u64);
    /// A body chunk of a streamed response.
    fn chunk(&mut self, endpoint: u32);
    /// A request whose connection ended first.
    fn aborted(&mut self, endpoint: u32, side: Side, phase: Phase);
    /// Something that could not be measured.
    fn lost(&mut self, why: Lost, count: u32);
}
