//! HTTP/1.x as seen by the kernel: lines, message framing, connections.
//!
//! All of it is pure: bytes and a time go in, observations come out through [`conn::Sink`]. Host tests, a fuzzer and a
//! reference parser run the same code as the kernel.

/// Reads a place afresh: another CPU may have written it, and the kernel's verifier is to forget what it knew of the
/// value on this path, so that all paths through a step of the parser end in the same state.
macro_rules! fresh {
    ($place:expr) => {
        // SAFETY: the place is behind a reference, so it is readable and aligned.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}

pub mod conn;
pub mod events;
pub mod framer;
pub mod line;
mod pending;
mod reorder;
mod request;
mod request_id;
mod start_line;
pub mod text;
pub mod usage;

use crate::abi::{Latency, Lost, Phase, Side};
use crate::trace::Finished;
pub use pending::Pending;
pub(crate) use reorder::after;
pub use text::Text;

/// Returns `value` after storing it in memory. The verifier follows each path through a program separately and merges
/// two paths only if the registers that affect bounds agree. It does not track the content of maps, so after this call
/// all paths agree that the value is "any number". Calling it where many paths join makes the number of paths a sum
/// instead of a product.
#[inline(always)]
pub fn launder(place: &mut u32, value: u32) -> u32 {
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

    /// The first eight bytes of it.
    #[inline(always)]
    fn word(&mut self, offset: u32) -> Option<u64> {
        Some(self.text(offset)?.at::<0>())
    }

    /// Calls [`events::Events::look`].
    #[inline(always)]
    fn look(&mut self, events: &mut events::Events)
    where
        Self: Sized,
    {
        events.look(self);
    }

    /// Calls [`usage::Usage::search_block`].
    #[inline(always)]
    fn search(&mut self, usage: &mut usage::Usage, from: u32, left: u32) -> u32
    where
        Self: Sized,
    {
        usage.search_block(self, from, left)
    }
}

/// Receives observations: atomic adds to map values in the kernel, a recorder in tests.
pub trait Sink {
    /// Payload bytes, each counted once.
    fn bytes(&mut self, response: bool, count: u32);
    /// The connection's protocol was detected: a [`crate::abi::Protocol`].
    fn protocol(&mut self, protocol: u32);
    /// All stores so far come before all loads after it, as other CPUs see them.
    fn barrier(&mut self);
    /// Requests started: their request lines are complete.
    fn begun(&mut self, count: u32);
    /// Requests have ended and left the queue: completed, aborted or lost.
    fn ended(&mut self, count: u32);
    /// A response with status `code` is complete, so many nanoseconds after the request's first byte.
    fn completed(&mut self, endpoint: u32, code: u32, ns: u64);
    /// A latency in nanoseconds.
    fn latency(&mut self, which: Latency, endpoint: u32, ns: u64);
    /// A body chunk of a streamed response.
    fn chunk(&mut self, endpoint: u32);
    /// An event of a streamed response, and whether it carries output.
    fn event(&mut self, endpoint: u32, output: bool);
    /// A streamed response whose events cannot be read.
    fn unread(&mut self, endpoint: u32);
    /// Bytes of a streamed response in which neither chunks nor events were looked for.
    fn unseen(&mut self, endpoint: u32, bytes: u32);
    /// What `count` complete responses said about their tokens: nothing, if none of them is known.
    fn tokens(&mut self, tokens: usage::Tokens, count: u32);
    /// A request whose connection ended before its response was complete.
    fn aborted(&mut self, endpoint: u32, side: Side, phase: Phase);
    /// Whether a request that took `ns` nanoseconds, or `failed`, is to be recorded: then [`Self::record`] is called.
    fn records(&mut self, ns: u64, failed: bool) -> bool;
    /// A request has ended.
    fn record(&mut self, finished: Finished);
    /// Something that could not be measured.
    fn lost(&mut self, why: Lost, count: u32);
}
