//! HTTP/1.x as the kernel follows it: lines, message framing, connections.
//!
//! All of it is pure: bytes and a time go in, observations come out through [`conn::Sink`]. Host tests, a fuzzer and a
//! reference parser run the very code that the kernel runs.

pub mod conn;
pub mod framer;
pub mod line;
mod pending;
mod reorder;
mod request;
mod start_line;
pub mod text;

use crate::abi::{Latency, Lost, Phase, Protocol, Side};
pub use pending::Pending;
pub(crate) use reorder::after;
pub use text::Text;

/// Returns `value`, by way of memory. The kernel's verifier follows each path through a program and takes two for one only
/// where their registers agree, those at least that a bound is concluded from. It keeps no account of what lies in maps, so
/// after this call all paths agree on the value: "any number". Called where many paths join, it makes their number a sum,
/// not a product.
#[inline(always)]
pub fn forget(place: &mut u32, value: u32) -> u32 {
    let place = &raw mut *place;
    // SAFETY: the place is behind a reference.
    unsafe {
        place.write_volatile(value);
        place.read_volatile()
    }
}

/// The payload of one segment.
pub trait Payload {
    /// The bytes from `offset` on; those beyond the payload's end are unspecified. `None`: they cannot be read.
    fn text(&mut self, offset: u32) -> Option<&Text>;

    /// The first eight of them.
    #[inline(always)]
    fn word(&mut self, offset: u32) -> Option<u64> {
        Some(self.text(offset)?.at::<0>())
    }
}

/// Where observations go: atomic adds on map values in the kernel, a record in tests.
pub trait Sink {
    /// Payload bytes, each counted once.
    fn bytes(&mut self, response: bool, count: u32);
    /// The connection's protocol became known.
    fn protocol(&mut self, protocol: Protocol);
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
