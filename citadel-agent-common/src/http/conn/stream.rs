//! The events of a streamed response.

use super::Conn;
use crate::abi::Latency;
use crate::http::events::Events;
use crate::http::framer::{event, flag};
use crate::http::request::Place;
use crate::http::{Payload, Sink};

impl Conn {
    /// The stream under way.
    #[inline(always)]
    pub const fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// Looks at the body of a streamed response that follows what this step has taken, of `left` bytes in all. How many the
    /// step is to take is returned.
    #[inline(always)]
    pub(super) fn read_events<P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) -> u32 {
        if fresh!(self.tx.message.flags) & flag::STREAMED == 0 {
            return left;
        }
        let (used, _) = self.tx.found();
        let (data, ends) = self.tx.data(left.wrapping_sub(used));
        if data == 0 {
            return left;
        }
        self.events.read(payload, offset.wrapping_add(used), data, ends);
        let (read, found) = self.events.found();
        self.tx.add(found);
        // With all of its data, a chunk's end.
        self.tx.launder(if read < data { used.wrapping_add(read) } else { left })
    }

    /// What a step has found in a stream. Of an unread one, each chunk counts as an event with output.
    #[inline(always)]
    pub(super) fn event_of_stream<S: Sink>(&mut self, event: u32, now: u64, request: Place, sink: &mut S) {
        let chunk = event & event::DATA != 0 && self.events.is_unread();
        if event & (event::OUTPUT | event::UNREAD) != 0 || chunk {
            let before = fresh!(self.output_ns);
            let (which, ns, outputs) = if before == 0 {
                (Latency::FirstToken, request.last.until(now), 0)
            } else {
                (Latency::InterToken, now.saturating_sub(before), fresh!(self.outputs))
            };
            self.outputs = outputs.wrapping_add(1);
            sink.latency(which, request.endpoint(), ns);
            self.output_ns = now;
        }
        if event & event::OUTPUT != 0 {
            sink.event(request.endpoint(), true);
        }
        if event & event::OTHER != 0 {
            sink.event(request.endpoint(), false);
        }
        if event & event::UNREAD != 0 {
            sink.unread(request.endpoint());
        }
    }
}
