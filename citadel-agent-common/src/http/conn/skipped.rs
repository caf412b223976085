//! Requests that found no room in the queue: they are lost, and so is each one after them until all responses to them have
//! passed. Then requests are followed again.
//!
//! While there are such requests, none enters the queue. So their responses come when the queue is empty, and are parsed without
//! being observed. Only if one of them was HEAD or CONNECT, which change the framing of the response, the connection is not
//! followed any more.

use super::{Conn, Sink};
use crate::abi::Lost;
use crate::http::framer::flag;

/// The newest request is not in the queue.
const NEWEST: u32 = 1;
/// One of those that are not was HEAD or CONNECT.
const ASKED: u32 = 2;

impl Conn {
    /// Ingress: whether the newest request is not in the queue.
    #[inline(always)]
    pub(super) const fn skips_newest(&self) -> bool {
        self.skips & NEWEST != 0
    }

    /// Ingress: whether the new request must be skipped. Then it is counted as lost.
    #[inline(always)]
    pub(super) fn skip<S: Sink>(&mut self, sink: &mut S) -> bool {
        let skipped = fresh!(self.skipped);
        if skipped != self.passed_seen {
            self.passed_seen = fresh!(self.passed);
        }
        if skipped == self.passed_seen && !self.is_full() {
            self.skips &= !NEWEST;
            return false;
        }
        self.skips |= if self.rx.message.flags & flag::ASKED != 0 { NEWEST | ASKED } else { NEWEST };
        self.skipped = skipped.wrapping_add(1);
        sink.lost(Lost::PipelineFull, 1);
        true
    }

    /// Egress, while the queue is empty: whether the next response is to a request that was skipped.
    #[inline(always)]
    pub(super) fn awaits_skipped(&self) -> bool {
        fresh!(self.skipped) != self.passed && fresh!(self.skips) & ASKED == 0
    }

    /// Egress: such a response has ended.
    #[inline(always)]
    pub(super) fn pass(&mut self) {
        if fresh!(self.skipped) != self.passed {
            self.passed = self.passed.wrapping_add(1);
        }
    }
}
