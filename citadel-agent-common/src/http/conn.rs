//! One TCP connection of a model server: both directions, the outstanding requests, and the observations made of them.
//!
//! The ingress program calls [`Conn::receive`], the egress program [`Conn::transmit`], and the program that sees the
//! connection end calls [`Conn::close`]. The two directions run on different CPUs at the same time without a lock, so
//! each field has one writer: `rx` and `tail` belong to ingress, `tx` and `head` to egress. The outstanding requests
//! are a single-producer queue with numbered entries and two consumers: egress (`head`) takes out what has a response, and the
//! program that sees the server read counts what was read (`read`).

mod close;
mod observe;
mod opaque;
mod record;
mod running;
mod skipped;
mod stream;
mod tokens;
mod unread;
mod unseen;
mod writer;

use super::events::Events;
use super::framer::{Framer, event, flag, state};
use super::reorder::{EarlyRanges, after};
pub use super::request::PIPELINE;
use super::request::{GENERATION, Place, Stamp, generation};
use super::usage::Usage;
pub use super::{Payload, Sink};
use crate::abi::Protocol;
pub use running::Running;
pub use unread::Read;
pub use writer::Writer;

/// Whether a call processed the whole segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The whole segment was processed.
    Done,
    /// Out of steps; repeat the call to continue. If it cannot be repeated as often as needed, a response needs
    /// [`Conn::overrun`].
    More,
}

/// The state of a connection. Each group is in cache lines of its own: a line that two CPUs write alternately costs more than
/// everything else about a request. The offsets are checked in `crate::connection`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Conn {
    // Read by both directions, and almost never written.
    /// The client's direction is no longer parsed. Written once, by ingress.
    rx_opaque: u32,
    /// The server's direction is no longer parsed. Written once, by egress.
    tx_opaque: u32,
    /// Whether the connection has ended, by egress: see `conn/close.rs`.
    end: u32,
    /// Once it has: up to which request all have ended.
    settled: u32,
    // From here to `early`: written by ingress.
    /// Whether `rx_next` is known.
    rx_synced: u32,
    /// Requests that are not in the queue, so far.
    skipped: u32,
    /// Sequence number up to which the server's TCP has the client's bytes in order, when ingress last read it.
    in_order: u32,
    /// Whether `in_order` is known.
    asked: u32,
    // For each segment.
    rx: Framer,
    /// When the newest request's first byte arrived, and its sequence number.
    rx_first_ns: u64,
    rx_first_seq: u32,
    rx_next: u32,
    /// Requests pushed into the queue so far.
    tail: u32,
    /// Ingress' cached value of `head`: refreshed only when the queue seems full.
    head_seen: u32,
    /// Number of the last request of which `places` has the arrival.
    noted: u32,
    /// Whether the newest request is not in the queue, and more: see `conn/skipped.rs`.
    skips: u32,
    /// Ingress' cached value of `passed`: refreshed only if it differs from `skipped`.
    passed_seen: u32,
    protocol: u32,
    /// The queue: written by ingress, read by egress and as the server reads.
    places: [Place; PIPELINE],
    /// Sequence numbers of the first bytes of these requests. Only the program that sees the server read uses them.
    seqs: [u32; PIPELINE],
    early: EarlyRanges,
    /// The client sent FIN or RST, which the server's TCP accepts. Written once, by ingress or the callback.
    client_ended: u32,
    /// Which of the newest requests that are not in the queue are HEAD, a bit each.
    heads: [u32; 2],
    _to_a_line: [u32; 3],
    // From here on: written by egress. These only where a request is recorded.
    /// When a request ended that is to be recorded, see `conn/record.rs`.
    due_ns: u64,
    /// When the first byte of its response was sent.
    due_answered_ns: u64,
    /// Its number; 0: there is none.
    due: u32,
    /// How it ended.
    due_how: u32,
    // For each segment.
    tx: Framer,
    tx_first_ns: u64,
    /// Time of the last response byte so far.
    tx_last_ns: u64,
    /// Time of the last event with output of the response under way; 0: none yet.
    output_ns: u64,
    /// Of a streamed response.
    events: Events,
    /// Of the response under way.
    usage: Usage,
    tx_next: u32,
    /// Whether `tx_next` and `acknowledged` are known.
    tx_synced: u32,
    /// Requests taken from the queue so far.
    head: u32,
    /// Responses to requests that are not in the queue, so far.
    passed: u32,
    /// Whether a body byte of the current response was sent.
    body_begun: u32,
    /// Sequence number up to which the server's TCP has acknowledged the client's bytes.
    acknowledged: u32,
    /// Events with output of the response under way, if `output_ns` is not 0.
    outputs: u32,
    // Written as the server reads: mostly on the CPU of egress.
    /// Requests that the server has started to read.
    read: u32,
}

impl Conn {
    /// Offsets of the groups: ingress', the queue's, egress'.
    pub(crate) const GROUPS: [usize; 3] =
        [core::mem::offset_of!(Self, rx), core::mem::offset_of!(Self, places), core::mem::offset_of!(Self, tx)];

    /// A connection observed from its start, the handshake. All zero, like new kernel memory.
    pub const NEW: Self = Self {
        rx_opaque: 0,
        tx_opaque: 0,
        end: 0,
        settled: 0,
        rx_synced: 0,
        skipped: 0,
        in_order: 0,
        asked: 0,
        rx: Framer::NEW,
        rx_first_ns: 0,
        rx_first_seq: 0,
        rx_next: 0,
        tail: 0,
        head_seen: 0,
        noted: 0,
        skips: 0,
        passed_seen: 0,
        protocol: Protocol::Unknown as u32,
        places: [Place::EMPTY; PIPELINE],
        seqs: [0; PIPELINE],
        early: EarlyRanges::NONE,
        client_ended: 0,
        heads: [0; 2],
        _to_a_line: [0; 3],
        due_ns: 0,
        due_answered_ns: 0,
        due: 0,
        due_how: 0,
        tx: Framer::NEW,
        tx_first_ns: 0,
        tx_last_ns: 0,
        output_ns: 0,
        events: Events::NONE,
        usage: Usage::NONE,
        tx_next: 0,
        tx_synced: 0,
        head: 0,
        passed: 0,
        body_begun: 0,
        acknowledged: 0,
        read: 0,
        outputs: 0,
    };

    /// Turns [`Self::NEW`] into one that is older than the programs: nothing is parsed until a segment starts like a request.
    #[inline(always)]
    pub const fn join(&mut self) {
        self.rx.join();
        self.tx.join();
    }

    /// Sets the sequence number of the client's first byte, unless bytes have arrived: a first segment may be out of order.
    #[inline(always)]
    pub const fn expect_first(&mut self, seq: u32) {
        if self.rx_synced == 0 {
            self.rx_next = seq;
            self.rx_synced = 1;
        }
    }

    /// Called by ingress: the server's TCP has everything up to `seq`.
    #[inline(always)]
    pub const fn has_in_order(&mut self, seq: u32) {
        self.in_order = seq;
        self.asked = 1;
    }

    /// Sequence number, at least `next`, up to which the server's TCP is known to have the client's bytes: from its
    /// acknowledgements, and from what ingress has read.
    #[inline(always)]
    fn server_has(&self, next: u32) -> u32 {
        let (acknowledged, in_order) = (fresh!(self.acknowledged), self.in_order);
        let mut to = next;
        if fresh!(self.tx_synced) != 0 && after(acknowledged, to) {
            to = acknowledged;
        }
        if self.asked != 0 && after(in_order, to) {
            to = in_order;
        }
        to
    }

    /// Whether `seq` is exactly the client's next sequence number, which a valid RST has (RFC 5961, section 3.2).
    #[inline(always)]
    #[must_use]
    pub fn is_next(&self, seq: u32) -> bool {
        fresh!(self.rx_next) == seq
    }

    /// Processes a segment from the client: `len` > 0 payload bytes from sequence number `seq` on, at time `now`, in at
    /// most `STEPS` parser steps: a step is up to a dozen complete lines, or some 32 to 256 bytes of a split or long one,
    /// and the body or chunk that they announce.
    #[inline(always)]
    pub fn receive<const STEPS: u32, P: Payload, S: Sink>(
        &mut self,
        payload: &mut P,
        seq: u32,
        len: u32,
        now: u64,
        sink: &mut S,
    ) -> Progress {
        let (seq, len) = (self.rx.launder(seq), self.rx.launder(len));
        self.expect_first(seq);
        let (before, begun_before, spoken_before) = (fresh!(self.rx_next), fresh!(self.tail), self.protocol);
        if fresh!(self.tx_opaque) != 0 {
            self.rx.enter(state::OPAQUE);
        } else if before == seq && self.rx.message.flags & flag::RESYNCING != 0 {
            self.rx.try_again::<false>(payload.word(0).unwrap_or(0));
        }
        let mut progress = Progress::More;
        for _ in 0..STEPS {
            let next = fresh!(self.rx_next);
            let offset = next.wrapping_sub(seq);
            let (left, seen) = if offset < len {
                (len - offset, true)
            } else if after(seq, next) {
                // What the server's TCP has acknowledged has arrived, whether it was seen here or not.
                let has = self.server_has(next);
                if has == next {
                    // If there is no room, the server's acknowledgements will tell later.
                    self.early.keep(seq, len, next);
                    progress = Progress::Done;
                    break;
                }
                let to = if after(has, seq) { seq } else { has };
                (to.wrapping_sub(next), false)
            } else {
                let left = self.early.joins(next);
                if left == 0 {
                    progress = Progress::Done;
                    break;
                }
                (left, false)
            };
            self.step::<false, P>(payload, offset, left, seen, now);
            let (used, event) = self.rx.found();
            self.rx_next = next.wrapping_add(used);
            self.request_event(event, now, sink);
        }
        let next = fresh!(self.rx_next);
        if !after(seq.wrapping_add(len), next) && self.early.joins(next) == 0 {
            progress = Progress::Done;
        }
        let taken = next.wrapping_sub(before);
        if taken == 0 {
            return progress;
        }
        // Also the barrier after the stores to the queue: see `conn/close.rs`.
        sink.bytes(false, taken);
        let in_message = !matches!(self.rx.state(), state::START | state::RESYNC | state::OPAQUE);
        if in_message && !self.skips_newest() {
            self.touch_newest(now, 0);
        }
        if self.rx.state() == state::OPAQUE && self.rx_opaque == 0 {
            self.rx_opaque = 1;
        }
        // Not where they start: an atomic add waits for all earlier stores, and those to the queue are slow.
        let (mut begun, mut spoke) = (fresh!(self.tail).wrapping_sub(begun_before), self.protocol != spoken_before);
        if begun != 0 || spoke {
            if fresh!(self.end) != 0 {
                (begun, spoke) = self.before_the_end(begun_before, begun, spoke);
            }
            if begun != 0 {
                sink.begun(begun);
            }
            if spoke {
                sink.protocol(self.protocol);
            }
        }
        progress
    }

    /// Processes a segment from the server: `len` > 0 payload bytes from sequence number `seq` on, at time `now`; `ack`
    /// is its acknowledgement number. In at most `STEPS` parser steps: as in [`Self::receive`], or up to the end of an
    /// event.
    #[inline(always)]
    pub fn transmit<const STEPS: u32, P: Payload, S: Sink>(
        &mut self,
        payload: &mut P,
        seq: u32,
        len: u32,
        ack: u32,
        now: u64,
        sink: &mut S,
    ) -> Progress {
        let (seq, len) = (self.tx.launder(seq), self.tx.launder(len));
        self.acknowledged = ack;
        if self.tx_synced == 0 {
            self.tx_next = seq;
            self.tx_synced = 1;
        }
        let before = fresh!(self.tx_next);
        if after(seq, before) {
            // TCP sends in order, so bytes were sent that no program saw.
            self.miss(seq.wrapping_sub(before), self.tx_last_ns, sink);
            self.tx_next = seq;
        }
        let next = fresh!(self.tx_next);
        if fresh!(self.rx_opaque) != 0 {
            self.tx.enter(state::OPAQUE);
        } else if next == seq && self.tx.message.flags & (flag::RESYNCING | flag::SEEKING) != 0 {
            self.find_start(payload, sink);
        }
        for _ in 0..STEPS {
            let next = fresh!(self.tx_next);
            let offset = next.wrapping_sub(seq);
            if offset >= len {
                break;
            }
            self.step::<true, P>(payload, offset, len - offset, true, now);
            let (used, event) = self.tx.found();
            self.tx_next = next.wrapping_add(used);
            self.response_event(event, now, sink);
        }
        let next = fresh!(self.tx_next);
        let taken = next.wrapping_sub(before);
        if taken != 0 {
            if self.tx.message.flags & flag::SEEKING != 0 {
                self.find_end(payload, len, taken, now, sink);
            }
            self.tx_last_ns = now;
            sink.bytes(true, taken);
            if self.tx.state() == state::OPAQUE && self.tx_opaque == 0 {
                self.tx_opaque = 1;
            }
        }
        if next.wrapping_sub(seq) >= len { Progress::Done } else { Progress::More }
    }

    /// Egress: takes all requests out of the queue, and returns how many there were. `tail` is read once, because ingress can add
    /// one at any time. It can be behind `head`: a request can be answered as soon as its entry has a number, before `tail` has it.
    #[inline(always)]
    fn give_up(&mut self) -> u32 {
        let tail = fresh!(self.tail);
        let count = tail.wrapping_sub(fresh!(self.head));
        if count > PIPELINE as u32 {
            return 0;
        }
        self.head = tail;
        count
    }

    /// Whether a request is in the queue, for the consumer: [`Self::oldest`] is that request.
    #[inline(always)]
    fn awaits_response(&self) -> bool {
        self.holds(fresh!(self.head).wrapping_add(1))
    }

    /// Whether the request of this number is in its place, which the one before it has left.
    #[inline(always)]
    fn holds(&self, number: u32) -> bool {
        let index = number.wrapping_sub(1) as usize & (PIPELINE - 1);
        (fresh!(self.places[index].last).mark() ^ generation(number)) & GENERATION == 0
    }

    /// Whether the queue is full, for the producer.
    #[inline(always)]
    fn is_full(&mut self) -> bool {
        let tail = fresh!(self.tail);
        if tail.wrapping_sub(self.head_seen) < PIPELINE as u32 {
            return false;
        }
        self.head_seen = fresh!(self.head);
        tail.wrapping_sub(self.head_seen) >= PIPELINE as u32
    }

    #[inline(always)]
    fn oldest(&self) -> Place {
        let index = fresh!(self.head) as usize & (PIPELINE - 1);
        fresh!(self.places[index])
    }

    /// Ingress: bytes of the newest request in the queue have arrived.
    #[inline(always)]
    fn touch_newest(&mut self, now: u64, complete: u32) {
        let index = fresh!(self.tail).wrapping_sub(1) as usize & (PIPELINE - 1);
        let last = &mut self.places[index].last;
        *last = Stamp::new(now, last.mark() | complete);
    }

    /// One step: lines, or a part of one, and the part of the body after them. Of the `left` bytes at `offset`, only
    /// `seen` can be read; the others arrived out of order.
    #[inline(always)]
    fn step<const RESPONSE: bool, P: Payload>(
        &mut self,
        payload: &mut P,
        offset: u32,
        left: u32,
        seen: bool,
        now: u64,
    ) {
        let framer = if RESPONSE { &mut self.tx } else { &mut self.rx };
        let left = framer.launder(left);
        framer.report(0, event::NONE);
        if framer.reads() {
            if !seen {
                framer.lose();
                return;
            }
            if framer.at_message_start() && !self.begin::<RESPONSE, P>(payload, offset, left, now) {
                return;
            }
            let framer = if RESPONSE { &mut self.tx } else { &mut self.rx };
            framer.read::<RESPONSE, P>(payload, offset, left);
        }
        // The body or chunk that a line announced belongs to its step.
        let framer = if RESPONSE { &mut self.tx } else { &mut self.rx };
        let (used, event) = framer.found();
        if used < left && event & !(event::START | event::HEAD) == 0 {
            let left = if RESPONSE { self.read_events(payload, offset, left) } else { left };
            let framer = if RESPONSE { &mut self.tx } else { &mut self.rx };
            framer.skip(left);
        }
    }

    /// Handles the first byte of a message. Returns false if nothing is to be parsed; the result is then reported.
    #[inline(always)]
    fn begin<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32, now: u64) -> bool {
        // Read before the request's entry is written, which is in the other CPU's cache: stores retire in order, and
        // profiling showed that the copied payload can be read only after them.
        let Some(word) = payload.word(offset) else { return true };
        if RESPONSE {
            if !self.awaits_response() && !self.awaits_skipped() {
                // A server may send responses that nobody requested, such as 408 on an idle connection.
                self.tx.report(left, event::NONE);
                return false;
            }
            self.tx_first_ns = now;
            self.body_begun = 0;
            self.output_ns = 0;
            self.events.begin();
            let queued = self.awaits_response();
            let request = if queued { self.oldest() } else { Place::EMPTY };
            let asked = if queued { request.asked() } else { self.asked_by_skipped() };
            let endpoint = request.endpoint();
            self.begin_tokens(endpoint);
            self.tx.message.flags = (self.tx.message.flags & !flag::ASKED) | asked;
            return true;
        }
        let byte = (word & 0xff) as u8;
        let blank = matches!(byte, b'\r' | b'\n');
        // The very first byte identifies what is not HTTP, without waiting for a line end that may never come.
        if byte.is_ascii_uppercase() || blank || self.protocol != Protocol::Unknown as u32 {
            // An empty line may precede a request, and is not one. Fetches the entry that the request will use, too: it is in
            // this CPU's cache when the request line has been read.
            if !blank {
                self.arrive(fresh!(self.rx_next), now);
            }
            return true;
        }
        // TLS content types (RFC 8446, section 5.1): no HTTP message starts with such a byte.
        if matches!(byte, 20..=23) {
            self.rx.enter(state::OPAQUE);
            self.protocol = Protocol::Tls as u32;
            self.rx.report(left, event::NONE);
        } else {
            let event = self.rx.message.unintelligible();
            self.rx.report(left, event);
        }
        false
    }
}
