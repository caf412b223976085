//! Message framing: where messages and their parts begin and end (RFC 9112, sections 6 and 7).
//!
//! A [`Framer`] follows one direction of a connection. It is told of bytes in order and says what they were; it keeps no
//! time and knows nothing of the other direction, except for the two facts about the request that a response's framing
//! depends on.

use super::Payload;
use super::line::{Decimal, KEPT, LONGEST, Line, decimal, hexadecimal, keep, prefix};
use super::start_line::{after_method, begins_message, can_begin_message, endpoint};

/// Words of a line that one step takes: most lines are shorter than this.
const WORDS: u32 = 4;

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

    /// Takes `count` bytes, at most [`Self::skippable`].
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
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
        self.report(count, event);
    }

    /// Goes before the next message's first byte: what the caller does with [`event::END`], once it is done with the flags.
    #[inline(always)]
    pub const fn begin_next(&mut self) {
        self.enter(if self.flags & flag::SWITCHES != 0 { state::OPAQUE } else { state::START });
        self.flags &= flag::CONNECTION;
    }

    /// Takes part of a line: from `offset` on, at most `left` bytes, at most four words, at most to the line's end.
    #[inline(always)]
    pub fn read<const RESPONSE: bool, P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) {
        self.report(0, event::NONE);
        for _ in 0..WORDS {
            let (used, _) = self.found();
            if used >= left {
                break;
            }
            let Some(word) = payload.word(offset + used) else {
                let event = self.lose();
                self.report(used, event);
                return;
            };
            let valid = left - used;
            let pushed = self.line.push::<RESPONSE>(word, if valid < 8 { valid } else { 8 });
            self.report(used + (pushed & Line::USED), pushed & Line::COMPLETE);
            if pushed & Line::COMPLETE != 0 {
                break;
            }
        }
        // Read back, so that it is one path from here on, after whichever word the loop ended.
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

    #[inline(always)]
    fn line_complete<const RESPONSE: bool>(&mut self) -> u32 {
        match self.state() {
            state::START if RESPONSE => self.status_line(),
            state::START => self.request_line(),
            state::FIELDS => {
                if self.line.is_blank() {
                    self.fields_end::<RESPONSE>()
                } else {
                    self.field()
                }
            }
            state::CHUNK_SIZE => self.chunk_size(),
            _ => {
                // The trailer section.
                if self.line.is_blank() { event::END } else { event::NONE }
            }
        }
    }

    /// `request-line = method SP request-target SP HTTP-version` (RFC 9112, section 3).
    #[inline(always)]
    fn request_line(&mut self) -> u32 {
        if self.line.is_blank() {
            // A server should ignore an empty line before a request (section 2.2).
            return event::NONE;
        }
        if !self.line.ends_with_version() {
            let h2 = self.line.word(0) == prefix(b"PRI * HT") && self.line.word(8) == prefix(b"TP/2.0\r\n");
            let event = self.unintelligible();
            return if h2 && event == event::NOT_HTTP { event::HTTP2 } else { event };
        }
        let target = after_method(&self.line);
        let target = self.line.forget(target);
        if target == 0 {
            return self.unintelligible();
        }
        let word = self.line.word(0);
        let mut flags = (self.flags & flag::CONNECTION) | flag::SPEAKS_HTTP;
        if word & keep(5) == prefix(b"HEAD ") {
            flags |= flag::HEAD;
        } else if word == prefix(b"CONNECT ") {
            flags |= flag::CONNECT;
        }
        self.flags = flags;
        self.subject = endpoint(&self.line, target) as u32;
        self.state = state::FIELDS;
        event::START
    }

    /// `status-line = HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112, section 4).
    #[inline(always)]
    fn status_line(&mut self) -> u32 {
        let word = self.line.word(0);
        if word & keep(7) != prefix(b"HTTP/1.") {
            return self.lose();
        }
        let code = decimal(&mut self.line, 9);
        if self.line.word(8) as u8 != b' ' || code.digits != 3 {
            return self.lose();
        }
        self.flags = (self.flags & !flag::RESYNCING) | flag::SPEAKS_HTTP;
        self.subject = code.value as u32;
        self.state = state::FIELDS;
        // Interim responses announce themselves only by their end; 101 is final for HTTP/1.1 (RFC 9110, section 15.2.2).
        if is_interim(self.subject) { event::NONE } else { event::START }
    }

    /// One field line: only what frames the message or says that it is streamed matters.
    #[inline(always)]
    fn field(&mut self) -> u32 {
        let name = self.line.lower_word(0);
        if name == prefix(b"content-") {
            let rest = self.line.lower_word(8);
            if rest & keep(7) == prefix(b"length:") {
                return self.content_length();
            }
            if rest & keep(5) == prefix(b"type:") {
                self.content_type();
            }
        } else if name == prefix(b"transfer")
            && self.line.lower_word(8) == prefix(b"-encodin")
            && self.line.lower_word(16) & keep(2) == prefix(b"g:")
        {
            return self.transfer_encoding();
        }
        event::NONE
    }

    #[inline(always)]
    fn content_length(&mut self) -> u32 {
        let at = self.line.skip_blanks(15);
        let Decimal { value, digits } = decimal(&mut self.line, at);
        let after = self.line.word(at + digits) & 0xff;
        let ends = matches!(after as u8, b'\r' | b'\n' | b' ' | b'\t');
        // Differing lengths, or one that is no number, make the message's end unknowable (RFC 9112, section 6.3, rule 5).
        let repeated = self.flags & flag::LENGTH != 0 && self.length != value;
        if digits == 0 || digits > 16 || !ends || repeated {
            return self.lose();
        }
        self.length = value;
        self.flags |= flag::LENGTH;
        event::NONE
    }

    #[inline(always)]
    fn content_type(&mut self) {
        let at = self.line.skip_blanks(13);
        let (first, second, third) =
            (self.line.lower_word(at), self.line.lower_word(at + 8), self.line.lower_word(at + 16));
        let event_stream = first == prefix(b"text/eve")
            && second == prefix(b"nt-strea")
            && third as u8 == b'm'
            && ends_media_type((self.line.word(at + 17)) as u8);
        let ndjson = first == prefix(b"applicat")
            && second == prefix(b"ion/x-nd")
            && third & keep(4) == prefix(b"json")
            && ends_media_type((self.line.word(at + 20)) as u8);
        if event_stream || ndjson {
            self.flags |= flag::STREAMED;
        }
    }

    /// `Transfer-Encoding` counts as chunked when `chunked` is the last coding (RFC 9112, section 6.1).
    #[inline(always)]
    fn transfer_encoding(&mut self) -> u32 {
        let len = self.line.len();
        if len > KEPT {
            return self.lose();
        }
        // The value ends before CR LF and blanks.
        let mut end = len - 1;
        for _ in 0..4 {
            if end > 18 && matches!((self.line.word(end - 1)) as u8, b'\r' | b' ' | b'\t') {
                end -= 1;
            }
            end = self.line.forget(end);
        }
        if end < 25 {
            self.flags = (self.flags & !flag::CHUNKED) | flag::OTHER_CODING;
            return event::NONE;
        }
        let before = (self.line.word(end - 8)) as u8;
        let coding = self.line.lower_word(end - 7) & keep(7);
        let chunked = coding == prefix(b"chunked") && matches!(before, b':' | b' ' | b'\t' | b',');
        self.flags &= !(flag::CHUNKED | flag::OTHER_CODING);
        self.flags |= if chunked { flag::CHUNKED } else { flag::OTHER_CODING };
        event::NONE
    }

    /// The empty line after the fields: what follows is decided by RFC 9112, section 6.3.
    #[inline(always)]
    fn fields_end<const RESPONSE: bool>(&mut self) -> u32 {
        if RESPONSE {
            let code = self.subject;
            if is_interim(code) {
                // The final response to the same request follows.
                self.enter(state::START);
                self.flags &= flag::CONNECTION | flag::HEAD | flag::CONNECT;
                return event::NONE;
            }
            if code == 101 || (self.flags & flag::CONNECT != 0 && code / 100 == 2) {
                self.flags |= flag::SWITCHES;
                return event::END;
            }
            if self.flags & flag::HEAD != 0 || code == 204 || code == 304 {
                return event::END;
            }
        }
        if self.flags & flag::CHUNKED != 0 {
            self.state = state::CHUNK_SIZE;
            return event::NONE;
        }
        if self.flags & flag::OTHER_CODING == 0 {
            if self.flags & flag::LENGTH != 0 && self.length > 0 {
                self.remaining = self.length;
                self.flags |= flag::DATA_BEGINS;
                self.state = state::DATA;
                return event::NONE;
            }
            if !RESPONSE || self.flags & flag::LENGTH != 0 {
                return event::END;
            }
        } else if !RESPONSE {
            // A server answers 400 and closes: the end of such a request cannot be known (rule 4).
            return self.lose();
        }
        self.flags |= flag::DATA_BEGINS;
        self.state = state::UNTIL_CLOSE;
        event::NONE
    }

    #[inline(always)]
    fn chunk_size(&mut self) -> u32 {
        match hexadecimal(&self.line) {
            None => self.lose(),
            Some(0) => {
                self.state = state::TRAILERS;
                event::NONE
            }
            Some(size) => {
                // The CR LF after the data goes with it: chunk-data is not a line, so no bare LF will do (section 7.1). If
                // it is not there, the next chunk size is no number.
                self.remaining = size + 2;
                self.flags |= flag::DATA_BEGINS;
                self.state = state::DATA;
                event::NONE
            }
        }
    }
}

/// 1xx, without 101.
const fn is_interim(code: u32) -> bool {
    code / 100 == 1 && code != 101
}

/// What may follow a media type without parameters changing it.
const fn ends_media_type(byte: u8) -> bool {
    matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n')
}
