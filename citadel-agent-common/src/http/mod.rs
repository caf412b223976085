//! HTTP/1.x as the kernel follows it: lines, message framing, connections.
//!
//! All of it is pure: bytes and a time go in, observations come out through [`conn::Sink`]. Host tests, a fuzzer and a
//! reference parser run the very code that the kernel runs.

pub mod conn;
pub mod framer;
pub mod line;

/// The payload of one segment.
pub trait Payload {
    /// Eight bytes from `offset` on; those beyond the payload's end are unspecified. `None`: they cannot be read.
    fn word(&mut self, offset: u32) -> Option<u64>;
}
