//! Message framing: where messages and their parts start and end (RFC 9112, sections 6 and 7).
//!
//! A [`Framer`] follows one direction of a connection. It receives the bytes in order and reports what they were; it
//! knows neither the time nor the other direction, except for the two properties of the request that determine a
//! response's framing.

mod message;

use super::Payload;
use super::line::{LONGEST, Line};
use super::start_line::{begins_message, can_begin_message};
use message::{Message, begins_framing_field};

/// Maximum number of field lines per step.
const LINES: u32 = 12;

/// Maximum number of pieces of a line per step if the line is split or long: see [`Line::push`].
const PIECES: u32 = 4;

/// The position of the next byte in a message. Plain numbers, because the state is in a kernel map.
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
    /// In a body that extends to the end of the connection.
    pub const UNTIL_CLOSE: u32 = 5;
    /// Not followed: bytes are counted but not parsed.
    pub const OPAQUE: u32 = 6;
    /// Framing lost: bytes are not parsed until a packet starts with what can be a start line.
    pub const RESYNC: u32 = 7;
}

/// Properties of the current message.
pub mod flag {
    /// The request was HEAD: its response has no body (RFC 9112, section 6.3, rule 1).
    pub const HEAD: u32 = 1;
    /// The request was CONNECT: a 2xx response turns the connection into a tunnel (rule 2).
    pub const CONNECT: u32 = 2;
    /// `Transfer-Encoding` with `chunked` last.
    pub const CHUNKED: u32 = 4;
    /// `Transfer-Encoding` without `chunked` last.
    pub const OTHER_CODING: u32 = 8;
    /// Has `Content-Length`.
    pub const LENGTH: u32 = 16;
    /// The content type is one of the streaming ones.
    pub const STREAMED: u32 = 32;
    /// The next data byte is the first of the body or of a chunk.
    pub const DATA_BEGINS: u32 = 64;
    /// This framer has parsed a start line before.
    pub const SPEAKS_HTTP: u32 = 128;
    /// After this response the connection no longer carries HTTP (101, CONNECT).
    pub const SWITCHES: u32 = 512;
    /// The connection was open before the programs were attached.
    pub const JOINED: u32 = 256;
    /// No start line has been parsed since the framing was lost.
    pub const RESYNCING: u32 = 1024;
    /// A part of the chunked body was not parsed: the rest extends to an end that is searched for.
    pub const SEEKING: u32 = 2048;
    /// The last line was `Transfer-Encoding`: a line that starts with a blank continues it (obs-fold, RFC 9112, section 5.2).
    pub const FOLDS: u32 = 4096;
    /// The properties of a request that determine the framing of its response.
    pub const ASKED: u32 = HEAD | CONNECT;
    /// The flags of the connection rather than of one message.
    pub const CONNECTION: u32 = SPEAKS_HTTP | JOINED;
}

/// The result of a step: a set of flags, because the first byte of a body can be its last.
pub mod event {
    /// Nothing relevant.
    pub const NONE: u32 = 0;
    /// A request line, or the status line of a final response, is complete.
    pub const START: u32 = 1;
    /// The first byte of a body or of a chunk.
    pub const DATA: u32 = 2;
    /// The last byte of the message.
    pub const END: u32 = 4;
    /// The first line is the HTTP/2 preface.
    pub const HTTP2: u32 = 8;
    /// The first line is not HTTP/1.x.
    pub const NOT_HTTP: u32 = 16;
    /// The framing was lost; the framer is in [`super::state::RESYNC`].
    pub const LOST: u32 = 32;
    /// A final response's header section is complete.
    pub const HEAD: u32 = 64;
    /// An event of a stream has output.
    pub const OUTPUT: u32 = 128;
    /// An event of a stream ended and had none.
    pub const OTHER: u32 = 256;
    /// An event of a stream ended.
    pub const EVENT_ENDS: u32 = 512;
    /// The stream's events cannot be read.
    pub const UNREAD: u32 = 1024;
    /// The event of a stream that ended was in several chunks, of which one ended within a line.
    pub const CUT: u32 = 2048;
}

/// The framing of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Framer {
    line: Line,
    /// The current message.
    pub message: Message,
    /// Result of the last step, see [`event`].
    event: u32,
    /// Number of bytes that it consumed.
    used: u32,
}

impl Framer {
    /// The state before the first byte of a connection observed from its start. All zero, like new kernel memory.
    pub const NEW: Self = Self { line: Line::EMPTY, message: Message::NONE, event: 0, used: 0 };

    /// Starts in the middle of a connection that was open before the programs were attached.
    #[inline(always)]
    pub const fn join(&mut self) {
        self.message.enter(state::RESYNC);
        self.message.flags = flag::JOINED | flag::RESYNCING;
    }

    /// See [`super::launder`].
    #[inline(always)]
    pub fn launder(&mut self, value: u32) -> u32 {
        self.line.launder(value)
    }

    /// The position of the next byte: see [`state`].
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> u32 {
        self.message.state()
    }

    /// Moves to another state, at the start of a line.
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

    /// Whether the next byte is part of a line.
    #[inline(always)]
    #[must_use]
    pub fn reads(&self) -> bool {
        self.message.skippable() == 0
    }

    /// Consumes the body bytes after those that this step has consumed, of `left` in total; none if a line follows.
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

    /// How many of the `left` bytes are data of the body, and whether the chunk ends with them.
    #[inline(always)]
    #[must_use]
    pub fn data(&self, left: u32) -> (u32, bool) {
        if !matches!(self.state(), state::DATA | state::UNTIL_CLOSE) {
            return (0, false);
        }
        let mut data = self.message.skippable();
        if fresh!(self.message.flags) & flag::CHUNKED != 0 {
            // Without the line end after them.
            data = data.saturating_sub(2);
        }
        if data <= u64::from(left) { (data as u32, true) } else { (left, false) }
    }

    /// Notes what else the step has found.
    #[inline(always)]
    pub fn add(&mut self, event: u32) {
        self.event = fresh!(self.event) | event;
    }

    /// Moves to the start of the next message: called on [`event::END`], once the flags are no longer needed.
    #[inline(always)]
    pub const fn begin_next(&mut self) {
        self.enter(if self.message.flags & flag::SWITCHES != 0 { state::OPAQUE } else { state::START });
        self.message.flags &= flag::CONNECTION;
    }

    /// Parses lines, or the available part of one: at most `left` bytes from `offset` on.
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

    /// Parses complete lines in place: one, and the fields after it up to the end of the section. None, if the first is
    /// split or long.
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
                // Too short for a request line to be recognised by its end.
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
            if (begins_framing_field(text) || fresh!(self.message.flags) & flag::FOLDS != 0)
                && self.state() == state::FIELDS
            {
                let event = self.message.field(text);
                self.event |= event;
            }
        }
        self.used = used;
    }

    /// Parses pieces of a line that is split or long. Not inlined, for the reason given in `conn/observe.rs`.
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

    /// Handles payload that cannot be read.
    #[inline(always)]
    const fn unreadable(&mut self) {
        self.line.clear();
        self.event |= self.message.lose();
    }

    /// Records the result of a step and the number of bytes consumed, for [`Self::found`]. Stored in memory, so that
    /// for the verifier all paths through a step end in the same state (see [`super::launder`]).
    #[inline(always)]
    pub const fn report(&mut self, used: u32, event: u32) {
        self.used = used;
        self.event = event;
    }

    /// Number of bytes that the last step consumed, and its result: see [`event`].
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> (u32, u32) {
        // SAFETY: as in `Message::state`.
        unsafe { ((&raw const self.used).read_volatile(), (&raw const self.event).read_volatile()) }
    }

    /// Gives up on the current message: the step consumed nothing.
    #[inline(always)]
    pub const fn lose(&mut self) {
        self.line.clear();
        let event = self.message.lose();
        self.report(0, event);
    }

    /// `count` bytes are not parsed. The result is in [`Self::found`].
    #[inline(always)]
    pub fn miss(&mut self, count: u32) {
        self.line.clear();
        let event = self.message.miss(count);
        self.report(count, event);
    }

    /// A segment starts, with `word`: if the framing was lost, a message may start here. A start line in progress
    /// continues, unless this clearly is the start of one: then the earlier bytes were not.
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
