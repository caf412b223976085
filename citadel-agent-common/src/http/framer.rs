//! Message framing: where messages and their parts begin and end (RFC 9112, sections 6 and 7).
//!
//! A [`Framer`] follows one direction of a connection. It is told of bytes in order and says what they were; it keeps no
//! time and knows nothing of the other direction, except for the two facts about the request that a response's framing
//! depends on.

mod meaning;

use super::line::{LONGEST, Line, has_newline, keep, line_length, lower, prefix};
use super::start_line::{begins_message, can_begin_message};
use super::{Payload, Stretch};

/// Words of a line that one step keeps: most lines that matter are shorter than this.
const WORDS: u32 = 4;

/// Field lines that one step passes over.
const PASSED_LINES: u32 = 8;

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
    /// The field line under way says nothing that matters: nothing of it is kept up to its end.
    pub const PASSING: u32 = 2048;
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
    /// Bytes of the body or the chunk that have not come.
    remaining: u64,
    /// `Content-Length`.
    length: u64,
    state: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Request: its [`crate::abi::Endpoint`]. Response: its status code.
    pub subject: u32,
    /// What the last step found, see [`event`].
    event: u32,
    /// How many bytes it took.
    used: u32,
    _reserved: u32,
}

impl Framer {
    /// Before the first byte of a connection that is seen from its beginning. All zero, as new kernel memory is.
    pub const NEW: Self = Self {
        line: Line::EMPTY,
        remaining: 0,
        length: 0,
        state: state::START,
        flags: 0,
        subject: 0,
        event: 0,
        used: 0,
        _reserved: 0,
    };

    /// Goes into a connection that was open before anyone looked.
    #[inline(always)]
    pub const fn join(&mut self) {
        self.state = state::RESYNC;
        self.flags = flag::JOINED | flag::RESYNCING;
    }

    /// See [`Line::forget`].
    #[inline(always)]
    pub fn forget(&mut self, value: u32) -> u32 {
        self.line.forget(value)
    }

    /// Facts about the message under way, read afresh for the verifier's sake.
    #[inline(always)]
    fn flags(&self) -> u32 {
        // SAFETY: as in `state`.
        unsafe { core::ptr::read_volatile(&raw const self.flags) }
    }

    /// Where the next byte is: see [`state`].
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> u32 {
        // SAFETY: a reference is always readable. Volatile for the verifier's sake, see `Line::len`.
        unsafe { core::ptr::read_volatile(&raw const self.state) }
    }

    /// Moves to another state, at the beginning of a line.
    #[inline(always)]
    pub const fn enter(&mut self, state: u32) {
        self.line.clear();
        self.state = state;
    }

    /// Whether the next byte is the first of a message.
    #[inline(always)]
    #[must_use]
    pub fn at_message_start(&self) -> bool {
        self.state() == state::START && self.line.is_empty()
    }

    /// Body bytes that can be skipped without a look at them: `0` where a line is under way.
    #[inline(always)]
    #[must_use]
    pub fn skippable(&self) -> u64 {
        match self.state() {
            // SAFETY: as in `state`.
            state::DATA => unsafe { core::ptr::read_volatile(&raw const self.remaining) },
            state::UNTIL_CLOSE | state::OPAQUE | state::RESYNC => u64::MAX,
            _ => 0,
        }
    }

    /// Takes the body bytes that can be skipped, of `left` that follow the `used` ones of this step.
    #[inline(always)]
    pub fn skip(&mut self, used: u32, left: u32) {
        let skippable = self.skippable();
        if skippable == 0 {
            return;
        }
        let count = if skippable < u64::from(left) { skippable as u32 } else { left };
        let mut event = if self.flags & flag::DATA_BEGINS != 0 { event::DATA } else { event::NONE };
        self.flags &= !flag::DATA_BEGINS;
        if self.state() == state::DATA {
            self.remaining = self.remaining.wrapping_sub(u64::from(count));
            if self.remaining == 0 {
                if self.flags & flag::CHUNKED != 0 {
                    self.enter(state::CHUNK_SIZE);
                } else {
                    event |= event::END;
                }
            }
        }
        self.report(used.wrapping_add(count), event);
    }

    /// Goes before the next message's first byte: what the caller does with [`event::END`], once it is done with the flags.
    #[inline(always)]
    pub const fn begin_next(&mut self) {
        self.enter(if self.flags & flag::SWITCHES != 0 { state::OPAQUE } else { state::START });
        self.flags &= flag::CONNECTION;
    }

    /// Passes over field lines that do not matter: from `offset` on, at most `left` bytes, up to the first line that may,
    /// which is left to [`Self::read`]. What it took is in [`Self::found`].
    #[inline(always)]
    fn pass<P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        for _ in 0..PASSED_LINES {
            let (at, _) = self.found();
            let left = self.line.forget(left);
            if at >= left {
                return;
            }
            let Some(stretch) = payload.stretch(offset + at) else { return };
            if self.flags() & flag::PASSING == 0 {
                let word = u64::from_le_bytes(stretch[0]);
                // A line that the segment cuts in its first word is kept, and decided when it is complete.
                if !self.line.is_empty() || at + 8 > left || has_newline(word) {
                    return;
                }
                if begins_framing_field(word) && !(at + 32 <= left && is_plain_content_type(stretch)) {
                    return;
                }
                self.flags |= flag::PASSING;
            }
            let length = line_length(stretch);
            let mut end = at + if length > 0 { length } else { size_of::<Stretch>() as u32 };
            if end > left {
                end = left;
            } else if length > 0 {
                self.flags &= !flag::PASSING;
            }
            self.report(end, event::NONE);
        }
    }

    /// Takes lines that do not matter, then one that may, or what there is of it: from `offset` on, at most `left` bytes.
    #[inline(always)]
    pub fn read<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        if matches!(self.state(), state::FIELDS | state::TRAILERS) {
            self.pass(payload, offset, left);
        }
        let (used, _) = self.found();
        if used >= left || self.flags() & flag::PASSING != 0 {
            return;
        }
        let Some(stretch) = payload.stretch(offset + used) else {
            let event = self.lose();
            self.report(used, event);
            return;
        };
        if self.line.is_empty() {
            let start = self.state() == state::START;
            let taken = self.line.take::<RESPONSE>(stretch, left - used, start);
            self.report(used + taken, taken);
        }
        if self.found().1 == 0 {
            self.read_words::<RESPONSE, P>(payload, offset, left);
        }
        // Read back, so that it is one path from here on, whichever way the line was taken.
        let (used, complete) = self.found();
        let event = if complete != 0 {
            let event = self.line_complete::<RESPONSE>();
            self.line.clear();
            event
        } else if self.line.len() > LONGEST {
            self.unintelligible()
        } else {
            event::NONE
        };
        self.report(used, event);
    }

    /// Takes part of a line that is cut or long, word by word. Not inlined, for the reason in `conn/observe.rs`.
    #[inline(never)]
    fn read_words<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        for _ in 0..WORDS {
            let (used, _) = self.found();
            if used >= left {
                break;
            }
            let Some(word) = payload.word(offset + used) else { break };
            let valid = left - used;
            let pushed = self.line.push::<RESPONSE>(word, if valid < 8 { valid } else { 8 });
            self.report(used + (pushed & Line::USED), pushed & Line::COMPLETE);
            if pushed & Line::COMPLETE != 0 {
                break;
            }
        }
    }

    /// Notes what a step found and how many bytes it took, for [`Self::found`]. By way of memory, so that to the kernel's
    /// verifier all paths through a step end in one and the same state (see [`Line::forget`]).
    #[inline(always)]
    pub const fn report(&mut self, used: u32, event: u32) {
        self.used = used;
        self.event = event;
    }

    /// How many bytes the last step took, and what it found: see [`event`].
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> (u32, u32) {
        // SAFETY: as in `state`.
        unsafe { ((&raw const self.used).read_volatile(), (&raw const self.event).read_volatile()) }
    }

    /// What cannot be followed: not HTTP if the connection's first bytes show it, else lost.
    #[inline(always)]
    pub const fn unintelligible(&mut self) -> u32 {
        if self.flags & flag::RESYNCING != 0 {
            self.enter(state::RESYNC);
            return event::NONE;
        }
        if self.flags & flag::CONNECTION == 0 {
            self.enter(state::OPAQUE);
            return event::NOT_HTTP;
        }
        self.lose()
    }

    /// Gives up on the message under way. In a connection that was open before anyone looked, what was never known to be
    /// HTTP is no loss.
    #[inline(always)]
    pub const fn lose(&mut self) -> u32 {
        self.enter(state::RESYNC);
        self.flags = (self.flags & flag::CONNECTION) | flag::RESYNCING;
        if self.flags & flag::CONNECTION == flag::JOINED { event::NONE } else { event::LOST }
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

/// Whether a field line that begins like this can frame the message or say that it is streamed.
#[inline(always)]
const fn begins_framing_field(word: u64) -> bool {
    let name = lower(word);
    name == prefix(b"content-") || name == prefix(b"transfer")
}

/// Whether a field line is the usual `Content-Type: application/...` of what is not streamed: there is one in most
/// messages, and so it costs no step of its own.
#[inline(always)]
fn is_plain_content_type(stretch: &Stretch) -> bool {
    let lower_word = |i: usize| lower(u64::from_le_bytes(stretch[i]));
    lower_word(0) == prefix(b"content-")
        && lower_word(1) == prefix(b"type: ap")
        && lower_word(2) == prefix(b"plicatio")
        && lower_word(3) & keep(6) != prefix(b"n/x-nd")
}
