//! Observations of a connection that does not exist yet.

use super::Sink;
use super::usage::Tokens;
use crate::abi::{Latency, Lost, Phase, Protocol, Side};
use crate::trace::Finished;

/// Observations from before the connection existed: recorded, and reported once it does. Only a client can have sent
/// data by then, so there are none of responses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Pending {
    /// Payload bytes.
    bytes: u32,
    /// Requests started.
    begun: u32,
    /// A [`Protocol`].
    protocol: u32,
    /// [`Lost::RequestFraming`].
    framing: u32,
    /// [`Lost::PipelineFull`].
    pipeline: u32,
    /// [`Lost::StepLimit`].
    steps: u32,
}

impl Pending {
    /// No observations: all zero, like new kernel memory.
    pub const NONE: Self = Self { bytes: 0, begun: 0, protocol: 0, framing: 0, pipeline: 0, steps: 0 };

    /// Reports them to the connection's sink.
    #[inline(always)]
    pub fn tell<S: Sink>(&self, sink: &mut S) {
        sink.bytes(false, self.bytes);
        if self.protocol != Protocol::Unknown as u32 {
            sink.protocol(self.protocol);
        }
        if self.begun != 0 {
            sink.begun(self.begun);
        }
        let lost =
            [(Lost::RequestFraming, self.framing), (Lost::PipelineFull, self.pipeline), (Lost::StepLimit, self.steps)];
        for (why, count) in lost {
            if count != 0 {
                sink.lost(why, count);
            }
        }
    }
}

impl Sink for Pending {
    #[inline(always)]
    fn bytes(&mut self, _response: bool, count: u32) {
        self.bytes = self.bytes.wrapping_add(count);
    }

    #[inline(always)]
    fn protocol(&mut self, protocol: u32) {
        self.protocol = protocol;
    }

    // No other CPU knows this connection.
    #[inline(always)]
    fn barrier(&mut self) {}

    #[inline(always)]
    fn begun(&mut self, count: u32) {
        self.begun = self.begun.wrapping_add(count);
    }

    #[inline(always)]
    fn lost(&mut self, why: Lost, count: u32) {
        let place = match why {
            Lost::RequestFraming => &mut self.framing,
            Lost::PipelineFull => &mut self.pipeline,
            _ => &mut self.steps,
        };
        *place = place.wrapping_add(count);
    }

    #[inline(always)]
    fn ended(&mut self, _count: u32) {}

    #[inline(always)]
    fn completed(&mut self, _endpoint: u32, _code: u32, _ns: u64) {}

    #[inline(always)]
    fn latency(&mut self, _which: Latency, _endpoint: u32, _ns: u64) {}

    #[inline(always)]
    fn chunk(&mut self, _endpoint: u32) {}

    #[inline(always)]
    fn event(&mut self, _endpoint: u32, _output: bool) {}

    #[inline(always)]
    fn unread(&mut self, _endpoint: u32) {}

    #[inline(always)]
    fn unseen(&mut self, _endpoint: u32, _bytes: u32) {}

    #[inline(always)]
    fn tokens(&mut self, _tokens: Tokens, _count: u32) {}

    #[inline(always)]
    fn aborted(&mut self, _endpoint: u32, _side: Side, _phase: Phase) {}

    #[inline(always)]
    fn records(&mut self, _ns: u64, _failed: bool) -> bool {
        false
    }

    #[inline(always)]
    fn record(&mut self, _finished: Finished) {}
}
