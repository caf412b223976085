//! The end of a connection, and what happens to its outstanding requests.
//!
//! It can end while a segment of the client is processed on another CPU: the kernel runs the ingress program before it locks the
//! socket. So that each request is counted as begun and as ended, or as neither, the end is marked before the queue is read,
//! and ingress reads the mark after it has written to the queue, both with a barrier between. Ingress that finds no mark knows
//! that its requests will be found; else it counts only those that were. The protocol that it has detected is counted in the same way.

use super::record::Aborted;
use super::{Conn, Sink};
use crate::abi::{Phase, Protocol, Side};
use crate::http::framer::{event, flag, state};
use crate::http::reorder::after;
use crate::http::request::PIPELINE;

/// `Conn::end`: the connection has ended, and `Conn::settled` is not valid yet.
const ENDING: u32 = 1;
/// `Conn::end`: `Conn::settled` is valid. The [`Protocol`] under which the connection was counted is added to this.
const ENDED: u32 = 2;

/// How often ingress checks whether `Conn::settled` is valid, which it is a few instructions after `ENDING`.
const PATIENCE: u32 = 128;

/// Writes a field that ingress reads on another CPU, in the order of the program.
#[inline(always)]
fn set(field: &mut u32, value: u32) {
    // SAFETY: behind a reference.
    unsafe { core::ptr::write_volatile(field, value) };
}

impl Conn {
    /// The client sent FIN or RST.
    #[inline(always)]
    pub const fn client_ends(&mut self) {
        self.client_ended = 1;
    }

    /// Closes the connection at time `now`: by the server's FIN (`orderly`), which also ends a body that extends to the end of the
    /// connection, or in any other way. Outstanding requests are aborted, by the client if it closed first, else by
    /// `otherwise`. With `last`, nothing will be called for this connection after it, but what is running already; it is
    /// counted as [`Protocol::Other`] if its protocol is still unknown.
    #[inline(always)]
    pub fn close<S: Sink>(&mut self, orderly: bool, otherwise: Side, last: bool, now: u64, sink: &mut S) {
        if orderly && self.tx.state() == state::UNTIL_CLOSE && self.awaits_response() {
            self.response_event(event::END, self.tx_last_ns, sink);
        }
        let mut response = self.response_phase();
        // Whatever follows is not a response.
        self.tx.enter(state::OPAQUE);
        self.tx_opaque = 1;
        if last {
            set(&mut self.end, ENDING);
            sink.barrier();
        }
        let (tail, protocol) = (fresh!(self.tail), fresh!(self.protocol));
        // A request can be answered before ingress has counted it.
        let to = if after(fresh!(self.head), tail) { fresh!(self.head) } else { tail };
        if last {
            set(&mut self.settled, to);
            set(&mut self.end, ENDED + protocol);
            if protocol == Protocol::Unknown as u32 {
                sink.protocol(Protocol::Other as u32);
            }
        }
        let side = if self.client_ended != 0 { Side::Client } else { otherwise };
        let mut aborted = 0;
        for _ in 0..PIPELINE {
            if fresh!(self.head) == to {
                break;
            }
            let request = self.oldest();
            let waiting = if request.is_complete() { Phase::Waiting } else { Phase::Request };
            let phase = response.unwrap_or(waiting);
            // The server failed, whichever side closes first.
            let side = if matches!(phase, Phase::Error) { Side::Server } else { side };
            sink.aborted(request.endpoint(), side, phase);
            self.record_aborted(now, Aborted::new(side, phase, response.is_some()), sink);
            response = None;
            aborted += 1;
            self.head = fresh!(self.head).wrapping_add(1);
        }
        if aborted > 0 {
            sink.ended(aborted);
        }
    }

    /// For ingress, after the connection has ended: how many of the `begun` requests after number `before` were found then, and
    /// whether the protocol was, if it was detected in this run (`spoke`). The rest reached a closed socket and is not counted.
    #[inline(never)]
    pub(super) fn before_the_end(&self, before: u32, begun: u32, spoke: bool) -> (u32, bool) {
        let mut end = ENDING;
        for _ in 0..PATIENCE {
            end = fresh!(self.end);
            if end != ENDING {
                break;
            }
        }
        if end == ENDING {
            return (0, false);
        }
        let settled = fresh!(self.settled);
        let seen = if after(before, settled) { 0 } else { settled.wrapping_sub(before) };
        (if seen < begun { seen } else { begun }, spoke && end - ENDED != Protocol::Unknown as u32)
    }

    /// The phase of the current response; `None` before its first byte.
    #[inline(always)]
    pub(super) fn response_phase(&self) -> Option<Phase> {
        match self.tx.state() {
            state::RESYNC | state::OPAQUE => None,
            state::START if self.tx.at_message_start() => None,
            _ if self.body_begun == 0 => Some(Phase::Headers),
            _ if self.tx.message.flags & flag::STREAMED != 0 && self.events.has_failed() => Some(Phase::Error),
            _ if self.tx.message.flags & flag::STREAMED != 0 => Some(Phase::Streaming),
            _ => Some(Phase::Body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that has ended with these requests counted, and none of the others.
    fn ended(settled: u32, protocol: Protocol) -> Conn {
        Conn { end: ENDED + protocol as u32, settled, ..Conn::NEW }
    }

    #[test]
    fn what_came_before_the_end_counts_and_nothing_else() {
        let conn = ended(7, Protocol::Http1);
        assert_eq!(conn.before_the_end(5, 2, true), (2, true), "all of it");
        assert_eq!(conn.before_the_end(5, 4, false), (2, false), "two of four");
        assert_eq!(conn.before_the_end(7, 3, false), (0, false), "nothing");
        assert_eq!(conn.before_the_end(8, 3, false), (0, false), "the end came even before");
        assert_eq!(ended(2, Protocol::Http1).before_the_end(u32::MAX, 4, false), (3, false), "numbers wrap around");
    }

    #[test]
    fn a_protocol_that_was_counted_as_unknown_is_not_counted_again() {
        assert_eq!(ended(0, Protocol::Unknown).before_the_end(0, 1, true), (0, false));
    }

    #[test]
    fn an_end_that_says_no_more_does_not_hold_up_a_packet() {
        let conn = Conn { end: ENDING, ..Conn::NEW };
        assert_eq!(conn.before_the_end(0, 1, true), (0, false));
    }
}
