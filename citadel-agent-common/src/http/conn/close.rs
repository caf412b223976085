//! How a connection ends, and what becomes of the requests that are still under way.

use super::{Conn, Sink};
use crate::abi::{Phase, Side};
use crate::http::framer::{event, flag, state};
use crate::http::request::{COMPLETE, PIPELINE};

impl Conn {
    /// The connection ends: by the server's FIN (`orderly`), which is the end of a body that lasts until then, or in any
    /// other way. Whatever is still under way is aborted, by the client if it ended first, else by `otherwise`.
    #[inline(always)]
    pub fn close<S: Sink>(&mut self, orderly: bool, otherwise: Side, sink: &mut S) {
        if orderly && self.tx.state() == state::UNTIL_CLOSE && self.awaits_response() {
            self.response_event(event::END, self.tx_last_ns, sink);
        }
        let side = if self.client_ended != 0 { Side::Client } else { otherwise };
        let mut response = self.response_phase();
        let mut aborted = 0;
        for _ in 0..PIPELINE {
            if !self.awaits_response() {
                break;
            }
            let request = *self.oldest();
            let waiting = if request.flags & COMPLETE != 0 { Phase::Waiting } else { Phase::Request };
            sink.aborted(request.endpoint, side, response.unwrap_or(waiting));
            response = None;
            aborted += 1;
            self.head = fresh!(self.head).wrapping_add(1);
        }
        if aborted > 0 {
            sink.left(aborted);
        }
        // Whatever still comes is no answer.
        self.tx.enter(state::OPAQUE);
        self.tx_opaque = 1;
    }

    /// How far the response under way has come; `None` before its first byte.
    #[inline(always)]
    fn response_phase(&self) -> Option<Phase> {
        match self.tx.state() {
            state::RESYNC | state::OPAQUE => None,
            state::START if self.tx.at_message_start() => None,
            _ if self.body_begun == 0 => Some(Phase::Headers),
            _ if self.tx.message.flags & flag::STREAMED != 0 => Some(Phase::Streaming),
            _ => Some(Phase::Body),
        }
    }
}
