//! Message framing: where messages and their parts begin and end (RFC 9112, sections 6 and 7).
//!
//! A [`Framer`] follows one direction of a connection. It is told of bytes in order and says what they were; it keeps no
//! time and knows nothing of the other direction, except for the two facts about the request that a response's framing
//! depends on.

mod message;

use super::Payload;
use super::line::{LONGEST, Line};
use super::start_line::{begins_message, can_begin_message};
use message::{Message, begins_framing_field};

/// Field lines that one step takes.
const LINES: u32 = 12;

/// Pieces of a line that one step takes where the line is cut or long: see [`Line::push`].
const PIECES: u32 = 4;

/// Where in a message the next byte is. Plain numbers, because the state lives in a kernel map.
pub mod state {
    /// In a request or status line, or before one.
    pub const START: u32 = 0;
    /// In the header section.
    pub const FIELDS: u32 = 1;
    /// In a chunk-size line.
    pub const CHUNK_SIZE: u32 = 2;
    /// In the trailer section.
    pub const TRAILERS: u32 = 3;
    /// In a body of known length, or in a chunk's data and the line end after it.
    pub const DATA: u32 = 4;
    /// In a body that ends with the connection.
    pub const UNTIL_CLOSE: u32 = 5;
    /// Nowhere: bytes are counted but not read.
    pub const OPAQUE: u32 = 6;
    /// Lost: bytes are not read until a packet begins with what can be a start line.
    pub const RESYNC: u32 = 7;
}

/// Facts about the message under way.
pub mod flag {
    /// The request was HEAD: its response has no body (RFC 9112, section 6.3, rule 1).
    pub const HEAD: u32 = 1;
    /// The request was CONNECT: a 2xx response turns the connection into a tunnel (rule 2).
    pub const CONNECT: u32 = 2;
    /// `Transfer-Encoding` with `chunked` last.
    pub const CHUNKED: u32 = 4;
    /// `Transfer-Encoding` without it.
    pub const OTHER_CODING: u32 = 8;
    /// `Content-Length`.
    pub const LENGTH: u32 = 16;
    /// The content type is one of those that are streamed event by event.
    pub const STREAMED: u32 = 32;
    /// The next data byte is the first of the body or of a chunk.
    pub const DATA_BEGINS: u32 = 64;
    /// A start line was read by this framer before.
    pub const SPEAKS_HTTP: u32 = 128;
    /// After this response the connection is no longer HTTP (101, CONNECT).
    pub const SWITCHES: u32 = 512;
    /// The connection was open before anyone looked.
    pub const JOINED: u32 = 256;
    /// No start line was read since the framing was lost.
    pub const RESYNCING: u32 = 1024;
    /// What a request was that a response's framing depends on.
    pub const ASKED: u32 = HEAD | CONNECT;
    /// The flags that belong to the connection rather than to one message.
    pub const CONNECTION: u32 = SPEAKS_HTTP | JOINED;
}

/// What a step found: a set of these, because the first byte of a body can be its last.
pub mod event {
    /// Nothing that matters.
    pub const NONE: u32 = 0;
    /// A request line, or the status line of a final response, is complete.
    pub const START: u32 = 1;
    /// The first byte of a body or of a chunk.
    pub const DATA: u32 = 2;
    /// The last byte of the message.
    pub const END: u32 = 4;
    /// The first line is the HTTP/2 preface.
    pub const HTTP2: u32 = 8;
    /// The first line is no HTTP/1.x.
    pub const NOT_HTTP: u32 = 16;
    /// The framing is broken; the framer is in [`super::state::RESYNC`].
    pub const LOST: u32 = 32;
}

/// The framing of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framer {
    line: Line,
    /// The message under way.
    pub message: Message,
    /// What the last step found, see [`event`].
    event: u32,
    /// How many bytes it took.
    used: u32,
}

impl Framer {
    /// Before the first byte of a connection that is seen from its beginning. All zero, as new kernel memory is.
    pub const NEW: Self = Self { line: Line::EMPTY, message: Message::NONE, event: 0, used: 0 };

    /// Goes into a connection that was open before anyone looked.
    #[inline(always)]
    pub const fn join(&mut self) {
        self.message.enter(state::RESYNC);
        self.message.flags = flag::JOINED | flag::RESYNCING;
    }

    /// See [`super::forget`].
    #[inline(always)]
    pub fn forget(&mut self, value: u32) -> u32 {
        self.line.forget(value)
    }

    /// Where the next byte is: see [`state`].
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> u32 {
        self.message.state()
    }

    /// Moves to another state, at the beginning of a line.
    #[inline(always)]
    pub const fn enter(&mut self, state: u32) {
        self.line.clear();
        self.message.enter(state);
    }

    /// Whether the next byte is the first of a message.
    #[inline(always)]
    #[must_use]
    pub fn at_message_start(&self) -> bool {
        self.state() == state::START && self.line.is_empty()
    }

    /// Whether the next byte is one of a line.
    #[inline(always)]
    #[must_use]
    pub fn reads(&self) -> bool {
        self.message.skippable() == 0
    }

    /// Takes the body bytes that follow what this step has taken, of `left` in all; none where a line is to come.
    #[inline(always)]
    pub fn skip(&mut self, left: u32) {
        let (used, event) = self.found();
        let (skippable, left) = (self.message.skippable(), left.wrapping_sub(used));
        if skippable != 0 {
            let count = if skippable < u64::from(left) { skippable as u32 } else { left };
            let skipped = self.message.skip(count);
            self.report(used.wrapping_add(count), event | skipped);
        }
    }

    /// Goes before the next message's first byte: what the caller does with [`event::END`], once it is done with the flags.
    #[inline(always)]
    pub const fn begin_next(&mut self) {
        self.enter(if self.message.flags & flag::SWITCHES != 0 { state::OPAQUE } else { state::START });
        self.message.flags &= flag::CONNECTION;
    }

    /// Takes lines, or what there is of one: from `offset` on, at most `left` bytes.
    #[inline(always)]
    pub fn read<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        if self.line.is_empty() {
            self.read_lines::<RESPONSE, P>(payload, offset, left);
        }
        let (used, event) = self.found();
        if used == 0 && event == event::NONE {
            self.read_pieces::<RESPONSE, P>(payload, offset, left);
        }
    }

    /// Takes whole lines where they lie: one, and fields after it, up to the end of the section. None, if the first is
    /// cut or long.
    #[inline(always)]
    fn read_lines<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        if matches!(self.state(), state::START | state::CHUNK_SIZE) {
            let Some(text) = payload.text(offset) else { return self.unreadable() };
            let length = text.line_length();
            if length == 0 || length > left {
                return;
            }
            let event = if self.state() == state::CHUNK_SIZE {
                self.message.chunk_size(text)
            } else if RESPONSE {
                self.message.status_line(text)
            } else if length < 16 {
                // Shorter than the end that it is told by.
                return;
            } else {
                self.message.request_line(text, [text.word(length - 16), text.word(length - 8)])
            };
            self.report(length, event);
        }
        let (mut used, _) = self.found();
        for _ in 0..LINES {
            if used >= left || !matches!(self.state(), state::FIELDS | state::TRAILERS) {
                break;
            }
            let Some(text) = payload.text(offset.wrapping_add(used)) else { return self.unreadable() };
            let length = text.line_length();
            let next = used.wrapping_add(length);
            if length == 0 || next > left {
                break;
            }
            used = next;
            if length <= 2 && text.is_blank_line() {
                let event = self.message.section_end::<RESPONSE>();
                self.event |= event;
                break;
            }
            if begins_framing_field(text) && self.state() == state::FIELDS {
                let event = self.message.field(text);
                self.event |= event;
            }
        }
        self.used = used;
    }

    /// Takes pieces of a line that is cut or long. Not inlined, for the reason in `conn/observe.rs`.
    #[inline(never)]
    fn read_pieces<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        let mut complete = false;
        for _ in 0..PIECES {
            let (used, _) = self.found();
            if used >= left {
                break;
            }
            let Some(text) = payload.text(offset.wrapping_add(used)) else { return self.unreadable() };
            let pushed = self.line.push::<RESPONSE>(text, left - used);
            self.report(used.wrapping_add(pushed & Line::USED), event::NONE);
            if pushed & Line::COMPLETE != 0 {
                complete = true;
                break;
            }
        }
        let event = if complete {
            let event = self.message.line::<RESPONSE>(self.line.text(), self.line.tail(), self.line.is_blank());
            self.line.clear();
            event
        } else if self.line.len() > LONGEST {
            self.line.clear();
            self.message.unintelligible()
        } else {
            event::NONE
        };
        self.event = event;
    }

    /// The payload cannot be read.
    #[inline(always)]
    const fn unreadable(&mut self) {
        self.line.clear();
        self.event |= self.message.lose();
    }

    /// Notes what a step found and how many bytes it took, for [`Self::found`]. By way of memory, so that to the kernel's
    /// verifier all paths through a step end in one and the same state (see [`super::forget`]).
    #[inline(always)]
    pub const fn report(&mut self, used: u32, event: u32) {
        self.used = used;
        self.event = event;
    }

    /// How many bytes the last step took, and what it found: see [`event`].
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> (u32, u32) {
        // SAFETY: as in `Message::state`.
        unsafe { ((&raw const self.used).read_volatile(), (&raw const self.event).read_volatile()) }
    }

    /// Gives up on the message under way: the step took nothing.
    #[inline(always)]
    pub const fn lose(&mut self) {
        self.line.clear();
        let event = self.message.lose();
        self.report(0, event);
    }

    /// A segment begins, with `word`: where the framing was lost, a message may begin with it. A start line that is under
    /// way already goes on, unless this is plainly the beginning of one: then what came before was none.
    #[inline(always)]
    pub fn try_again<const RESPONSE: bool>(&mut self, word: u64) {
        let state = self.state();
        if (state == state::RESYNC && can_begin_message::<RESPONSE>(word as u8))
            || (state == state::START && begins_message::<RESPONSE>(word))
        {
            self.enter(state::START);
        }
    }
}
