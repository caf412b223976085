//! Bytes of a response that no program has parsed: a packet with more chunks than the programs have steps for, or one that
//! they have not seen. The request is kept. In a body of known length its end is known; in a chunked one it is searched for,
//! and what its chunks and events are is no longer known.

use super::Conn;
use crate::http::framer::{event, flag, state};
use crate::http::start_line::begins_message;
use crate::http::text::{keep, prefix};
use crate::http::{Payload, Sink};

/// The end of the last chunk's data, and the last chunk without trailers (RFC 9112, section 7.1).
const END: &[u8; 7] = b"\r\n0\r\n\r\n";

impl Conn {
    /// The rest of a segment (see [`Self::transmit`]) will not be parsed: there are not enough steps.
    #[inline(always)]
    pub fn overrun<P: Payload, S: Sink>(&mut self, payload: &mut P, seq: u32, len: u32, now: u64, sink: &mut S) {
        let (seq, len) = (self.tx.launder(seq), self.tx.launder(len));
        let offset = fresh!(self.tx_next).wrapping_sub(seq);
        if offset >= len {
            return;
        }
        let missed = len - offset;
        self.miss(missed, now, sink);
        self.tx_next = seq.wrapping_add(len);
        if self.tx.message.flags & flag::SEEKING != 0 {
            self.read_tail(payload, len, missed, now, sink);
        }
        self.tx_last_ns = now;
        sink.bytes(true, missed);
    }

    /// The server has sent `count` > 0 more bytes, which are not parsed.
    #[inline(never)]
    pub(super) fn miss<S: Sink>(&mut self, count: u32, now: u64, sink: &mut S) {
        self.tx.miss(count);
        let (_, event) = self.tx.found();
        if event & (event::LOST | event::END) == 0
            && matches!(self.tx.state(), state::DATA | state::UNTIL_CLOSE)
            && self.awaits_response()
        {
            // When the first byte of the body was sent is unknown, and no later one is the first.
            self.body_begun = 1;
            self.usage.cut();
            if self.tx.message.flags & flag::STREAMED != 0 {
                sink.unseen(self.oldest().endpoint(), count);
                if !self.events.is_unread() {
                    self.events.miss();
                    sink.unread(self.oldest().endpoint());
                }
            }
        }
        self.response_event(event, now, sink);
    }

    /// A segment starts. The end of a body that is searched for has passed if the response to the next request starts
    /// with it; if the framing was lost, a message may start here.
    #[inline(always)]
    pub(super) fn find_start<P: Payload, S: Sink>(&mut self, payload: &mut P, sink: &mut S) {
        if !self.awaits_response() {
            return;
        }
        let word = payload.word(0).unwrap_or(0);
        if self.tx.message.flags & flag::SEEKING == 0 {
            self.tx.try_again::<true>(word);
        } else if begins_message::<true>(word) && self.awaits_another() {
            self.response_event(event::END, self.tx_last_ns, sink);
        }
    }

    /// Whether a request is in the queue behind the oldest one.
    #[inline(always)]
    fn awaits_another(&self) -> bool {
        self.holds(fresh!(self.head).wrapping_add(2))
    }

    /// A segment of `len` bytes has ended, and with it `taken` bytes since the one before: looks for the body's end.
    #[inline(always)]
    pub(super) fn find_end<P: Payload, S: Sink>(
        &mut self,
        payload: &mut P,
        len: u32,
        taken: u32,
        now: u64,
        sink: &mut S,
    ) {
        let new = if taken < len { taken } else { len };
        if self.tx.message.flags & flag::STREAMED != 0 && self.awaits_response() {
            sink.unseen(self.oldest().endpoint(), new);
        }
        self.read_tail(payload, len, new, now, sink);
    }

    #[inline(always)]
    fn read_tail<P: Payload, S: Sink>(&mut self, payload: &mut P, len: u32, new: u32, now: u64, sink: &mut S) {
        let count = self.tx.launder(if new < 8 { new } else { 8 });
        let Some(word) = payload.word(len.wrapping_sub(count)) else { return };
        let tail = self.tx.message.push_tail(word & keep(count), count);
        // With a `3` before it, it may be a chunk of three bytes: `3 CR LF 0 CR LF CR LF`.
        if tail >> 8 == prefix(END) && tail as u8 != b'3' {
            self.response_event(event::END, now, sink);
        }
    }
}
