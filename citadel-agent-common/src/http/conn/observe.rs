//! The observations made at the start, during and at the end of a message.

use super::Conn;
use crate::abi::{Latency, Lost, Phase, Protocol, Side};
use crate::http::Sink;
use crate::http::framer::{event, flag};
use crate::http::request::{COMPLETE, PIPELINE, Stamp, mark};

// Separate functions that are not inlined: their stack spills are gone when they return. Otherwise the verifier treats
// leftover stack slots as different states, and follows all later code once for each path that led here. (Before 6.19 a
// partially overwritten slot counts as still in use: `check_stack_write_fixed_off` in `kernel/bpf/verifier.c`.)

impl Conn {
    #[inline(never)]
    pub(super) fn request_event<S: Sink>(&mut self, event: u32, now: u64, sink: &mut S) {
        if event == event::NONE {
            return;
        }
        if event & event::START != 0 {
            if self.protocol == Protocol::Unknown as u32 {
                self.protocol = Protocol::Http1 as u32;
            }
            self.push(if event & event::END != 0 { COMPLETE } else { 0 }, now, sink);
        } else if event & event::END != 0 && !self.skips_newest() {
            self.touch_newest(now, COMPLETE);
        }
        if event & event::END != 0 {
            self.rx.begin_next();
        }
        if event & event::HTTP2 != 0 {
            self.protocol = Protocol::Http2 as u32;
        }
        if event & event::NOT_HTTP != 0 {
            self.protocol = Protocol::Other as u32;
        }
        if event & event::LOST != 0 {
            sink.lost(Lost::RequestFraming, 1);
        }
    }

    /// Adds the request to the queue; `complete`: 0 or [`COMPLETE`].
    #[inline(always)]
    fn push<S: Sink>(&mut self, complete: u32, now: u64, sink: &mut S) {
        if self.skip(sink) {
            return;
        }
        let number = fresh!(self.tail).wrapping_add(1);
        if self.noted != number {
            self.note_arrival();
        }
        let mark = mark(number, fresh!(self.rx.message.subject), self.rx.message.flags, complete);
        // After the arrival: the egress program may look as soon as this word is of this request. Not read before it is written:
        // it is in the other CPU's cache.
        let place = &raw mut self.places[number.wrapping_sub(1) as usize & (PIPELINE - 1)].last;
        // SAFETY: the place is behind `self`.
        unsafe { place.write_volatile(Stamp::new(now, mark)) };
        self.tail = number;
    }

    /// A response has ended.
    #[inline(always)]
    fn ends<S: Sink>(&mut self, sink: &mut S) {
        if self.tx.message.flags & flag::SWITCHES != 0 {
            sink.protocol(Protocol::Upgraded as u32);
        }
        self.tx.begin_next();
    }

    #[inline(never)]
    pub(super) fn response_event<S: Sink>(&mut self, event: u32, now: u64, sink: &mut S) {
        if event == event::NONE {
            return;
        }
        if self.awaits_response() {
            let request = self.oldest();
            let endpoint = request.endpoint();
            let streamed = self.tx.message.flags & flag::STREAMED != 0;
            if event & event::HEAD != 0 {
                let which = if streamed { Latency::FirstByteOfStream } else { Latency::FirstByte };
                sink.latency(which, endpoint, request.last.until(self.tx_first_ns));
            }
            if event & event::DATA != 0 {
                if streamed {
                    if self.body_begun == 0 {
                        sink.latency(Latency::FirstChunk, endpoint, request.last.until(now));
                    }
                    if self.tx.message.flags & flag::CHUNKED != 0 {
                        sink.chunk(endpoint);
                    }
                } else {
                    self.usage.piece();
                }
                self.body_begun = 1;
            }
            if streamed {
                self.event_of_stream(event, now, request, sink);
            }
            if event & event::END != 0 {
                let code = fresh!(self.tx.message.subject);
                let failed = streamed && self.events.has_failed();
                if failed {
                    sink.aborted(endpoint, Side::Server, Phase::Error);
                } else {
                    sink.completed(endpoint, code, request.first.until(now));
                }
                self.note_end(request, now, code, failed, sink);
                self.head = fresh!(self.head).wrapping_add(1);
                sink.ended(1);
                self.ends(sink);
            }
            self.note_tokens(event, streamed);
        } else if event & event::END != 0 {
            self.pass();
            self.ends(sink);
        }
        if event & event::LOST != 0 {
            let count = self.give_up();
            self.passed = fresh!(self.skipped);
            if count > 0 {
                sink.ended(count);
                sink.lost(Lost::ResponseFraming, count);
            }
        }
    }
}
