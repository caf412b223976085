//! The end of a connection, and what happens to its outstanding requests.

use super::{Conn, Sink};
use crate::abi::{Phase, Side};
use crate::http::framer::{event, flag, state};
use crate::http::request::{COMPLETE, PIPELINE};

impl Conn {
    /// Closes the connection: by the server's FIN (`orderly`), which also ends a body that extends to the end of the
    /// connection, or in any other way. Outstanding requests are aborted, by the client if it closed first, else by
    /// `otherwise`.
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
            let phase = response.unwrap_or(waiting);
            // The server failed, whichever side closes first.
            let side = if matches!(phase, Phase::Error) { Side::Server } else { side };
            sink.aborted(request.endpoint, side, phase);
            response = None;
            aborted += 1;
            self.head = fresh!(self.head).wrapping_add(1);
        }
        if aborted > 0 {
            sink.ended(aborted);
        }
        // Whatever follows is not a response.
        self.tx.enter(state::OPAQUE);
        self.tx_opaque = 1;
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
