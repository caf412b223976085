//! The observations made at the start, during and at the end of a message.

use super::Conn;
use crate::abi::{Latency, Lost, Phase, Protocol, Side};
use crate::http::Sink;
use crate::http::framer::{event, flag};
use crate::http::request::COMPLETE;

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
            let request = self.newest();
            request.last_ns = now;
            request.flags |= COMPLETE;
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

    /// Adds the request to the queue, with these flags.
    #[inline(always)]
    fn push<S: Sink>(&mut self, flags: u32, now: u64, sink: &mut S) {
        if self.skip(sink) {
            return;
        }
        let (number, endpoint) = (fresh!(self.tail).wrapping_add(1), fresh!(self.rx.message.subject));
        let place = self.next_place();
        // Volatile and in this order: the egress program may look as soon as the entry has its number. Not read before
        // it is written: it is in the other CPU's cache. SAFETY: the place is behind `self`.
        unsafe {
            (&raw mut (*place).first_ns).write_volatile(self.rx_first_ns);
            (&raw mut (*place).last_ns).write_volatile(now);
            (&raw mut (*place).endpoint).write_volatile(endpoint);
            (&raw mut (*place).flags).write_volatile(self.rx.message.flags & flag::ASKED | flags);
            (&raw mut (*place).number).write_volatile(number);
        }
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
            let request = *self.oldest();
            let streamed = self.tx.message.flags & flag::STREAMED != 0;
            if event & event::HEAD != 0 {
                let which = if streamed { Latency::FirstByteOfStream } else { Latency::FirstByte };
                sink.latency(which, request.endpoint, self.tx_first_ns.saturating_sub(request.last_ns));
            }
            if event & event::DATA != 0 {
                if streamed {
                    if self.body_begun == 0 {
                        sink.latency(Latency::FirstChunk, request.endpoint, now.saturating_sub(request.last_ns));
                    }
                    if self.tx.message.flags & flag::CHUNKED != 0 {
                        sink.chunk(request.endpoint);
                    }
                }
                self.body_begun = 1;
            }
            if streamed {
                self.event_of_stream(event, now, &request, sink);
            }
            if event & event::END != 0 {
                if streamed && self.events.has_failed() {
                    sink.aborted(request.endpoint, Side::Server, Phase::Error);
                } else {
                    let duration = now.saturating_sub(request.first_ns);
                    sink.completed(request.endpoint, fresh!(self.tx.message.subject), duration);
                }
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
