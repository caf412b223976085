//! Requests that found no room in the queue: they are lost, and so is each one after them until all responses to them have
//! passed. Then requests are followed again.
//!
//! While there are such requests, none enters the queue. So their responses come when the queue is empty, and are parsed without
//! being observed. Only HEAD and CONNECT change the framing of the response: of the newest 64 of these requests, it is known which
//! are HEAD. If one is CONNECT, or more than 64 wait and it cannot be known of all, the connection is not followed any more.

use super::{Conn, Sink};
use crate::abi::Lost;
use crate::http::framer::flag;

/// The newest request is not in the queue.
const NEWEST: u32 = 1;
/// What one of those that are not asked for is not known.
const UNKNOWN: u32 = 2;

/// Of how many of them it is known.
const KNOWN: u32 = 64;

/// Where in `Conn::heads` request `number` of those that are not in the queue has its bit: the word, and the bit in it.
#[inline(always)]
const fn place(number: u32) -> (usize, u32) {
    ((number >> 5 & 1) as usize, 1 << (number & 31))
}

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
        self.skips |= NEWEST;
        self.remember(skipped);
        self.skipped = skipped.wrapping_add(1);
        sink.lost(Lost::PipelineFull, 1);
        true
    }

    /// Ingress: notes what skipped request `number` asks for, before egress can look.
    #[inline(always)]
    fn remember(&mut self, number: u32) {
        let asked = self.rx.message.flags & flag::ASKED;
        let (word, bit) = place(number);
        let old = fresh!(self.heads[word]);
        let new = if asked == flag::HEAD { old | bit } else { old & !bit };
        let taken = number.wrapping_sub(self.passed_seen) >= KNOWN;
        if asked & flag::CONNECT != 0 || taken && new != old {
            self.skips |= UNKNOWN;
        } else {
            // SAFETY: behind a reference. Volatile, so that it precedes what tells egress of the request.
            unsafe { (&raw mut self.heads[word]).write_volatile(new) };
        }
    }

    /// Egress, while the queue is empty: whether the next response is to a request that was skipped.
    #[inline(always)]
    pub(super) fn awaits_skipped(&self) -> bool {
        fresh!(self.skipped) != self.passed && fresh!(self.skips) & UNKNOWN == 0
    }

    /// Egress, if so: what that request asked for, as a flag of the framer.
    #[inline(always)]
    pub(super) fn asked_by_skipped(&self) -> u32 {
        let (word, bit) = place(self.passed);
        if fresh!(self.heads[word]) & bit != 0 { flag::HEAD } else { 0 }
    }

    /// Egress: such a response has ended.
    #[inline(always)]
    pub(super) fn pass(&mut self) {
        if fresh!(self.skipped) != self.passed {
            self.passed = self.passed.wrapping_add(1);
        }
    }
}
