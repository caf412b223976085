//! A message: the meaning of its lines, and what they determine about its body (RFC 9112, sections 3 to 7).

use super::{event, flag, state};
use crate::abi::Endpoint;
use crate::http::line::{Tail, ends_with_version};
use crate::http::start_line::endpoint;
use crate::http::text::{Decimal, Text, keep, lower, prefix, status_code, trails, within};

/// The current message of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Message {
    /// Bytes of the body or the chunk still to come; the last eight bytes sent if [`flag::SEEKING`].
    remaining: u64,
    /// `Content-Length`.
    length: u64,
    /// Position of the next byte, see [`state`].
    state: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Request: its [`crate::abi::Endpoint`]. Response: its status code.
    pub subject: u32,
    _reserved: u32,
}

impl Message {
    /// No message. All zero, like new kernel memory.
    pub const NONE: Self = Self { remaining: 0, length: 0, state: state::START, flags: 0, subject: 0, _reserved: 0 };

    /// Position of the next byte: see [`state`].
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> u32 {
        // SAFETY: a reference is always readable. Volatile because of the verifier, see `Line::len`.
        unsafe { core::ptr::read_volatile(&raw const self.state) }
    }

    /// Moves to another state.
    #[inline(always)]
    pub const fn enter(&mut self, state: u32) {
        self.state = state;
    }

    /// Body bytes that can be skipped without parsing; 0 if a line follows.
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

    /// Skips `count` of them; returns the event.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) -> u32 {
        let mut event = if self.flags & flag::DATA_BEGINS != 0 { event::DATA } else { event::NONE };
        self.flags &= !flag::DATA_BEGINS;
        if self.state() == state::DATA {
            self.remaining = self.remaining.wrapping_sub(u64::from(count));
            if self.remaining == 0 {
                if self.flags & flag::CHUNKED != 0 {
                    self.state = state::CHUNK_SIZE;
                } else {
                    event |= event::END;
                }
            }
        }
        event
    }

    /// `count` bytes are not parsed; returns the event.
    #[inline(always)]
    pub fn miss(&mut self, count: u32) -> u32 {
        let chunked = self.flags & flag::CHUNKED != 0;
        match self.state() {
            state::OPAQUE | state::RESYNC => event::NONE,
            state::UNTIL_CLOSE => {
                self.flags &= !flag::DATA_BEGINS;
                event::NONE
            }
            state::CHUNK_SIZE | state::TRAILERS | state::DATA if chunked => {
                self.flags = self.flags & !flag::DATA_BEGINS | flag::SEEKING;
                self.remaining = 0;
                self.state = state::UNTIL_CLOSE;
                event::NONE
            }
            state::DATA if u64::from(count) <= self.remaining => {
                self.flags &= !flag::DATA_BEGINS;
                self.skip(count)
            }
            _ => self.lose(),
        }
    }

    /// Appends the `count` (1..=8) bytes of `word` to those that were sent; returns the last eight.
    #[inline(always)]
    pub fn push_tail(&mut self, word: u64, count: u32) -> u64 {
        let bits = count * 8;
        // In two shifts, since none is by 64 bits.
        self.remaining = (self.remaining >> (bits - 1) >> 1) | word << (64 - bits);
        self.remaining
    }

    /// Something that cannot be followed: not HTTP if these are the connection's first bytes, else lost.
    #[inline(always)]
    pub const fn unintelligible(&mut self) -> u32 {
        if self.flags & flag::RESYNCING != 0 {
            self.state = state::RESYNC;
            return event::NONE;
        }
        if self.flags & flag::CONNECTION == 0 {
            self.state = state::OPAQUE;
            return event::NOT_HTTP;
        }
        self.lose()
    }

    /// Gives up on the message. On a connection that was open before the programs were attached, this is not a loss if
    /// it was never known to be HTTP.
    #[inline(always)]
    pub const fn lose(&mut self) -> u32 {
        self.state = state::RESYNC;
        // The kind of request is still needed, if it started in the same step.
        self.flags = (self.flags & (flag::CONNECTION | flag::ASKED)) | flag::RESYNCING;
        if self.flags & flag::CONNECTION == flag::JOINED { event::NONE } else { event::LOST }
    }

    /// Handles a complete line: its first bytes and, of a client's line, its last bytes.
    #[inline(always)]
    pub fn line<const RESPONSE: bool>(&mut self, text: &Text, tail: Tail, is_blank: bool) -> u32 {
        match self.state() {
            state::START if RESPONSE => self.status_line(text),
            // A server should ignore an empty line before a request (section 2.2).
            state::START if is_blank => event::NONE,
            state::START => self.request_line(text, tail),
            state::CHUNK_SIZE => self.chunk_size(text),
            _ if is_blank => self.section_end::<RESPONSE>(),
            state::FIELDS if begins_framing_field(text) || self.flags & flag::FOLDS != 0 => self.field(text),
            _ => event::NONE,
        }
    }

    /// `request-line = method SP request-target SP HTTP-version` (RFC 9112, section 3).
    #[inline(always)]
    pub fn request_line(&mut self, text: &Text, tail: Tail) -> u32 {
        let word = text.at::<0>();
        if !ends_with_version(tail) {
            let h2 = word == prefix(b"PRI * HT") && text.at::<8>() == prefix(b"TP/2.0\r\n");
            let event = self.unintelligible();
            return if h2 && event == event::NOT_HTTP { event::HTTP2 } else { event };
        }
        let target = text.after_method();
        if target == 0 {
            return self.unintelligible();
        }
        let mut flags = (self.flags & flag::CONNECTION) | flag::SPEAKS_HTTP;
        if word & keep(5) == prefix(b"HEAD ") {
            flags |= flag::HEAD;
        } else if word == prefix(b"CONNECT ") {
            flags |= flag::CONNECT;
        }
        let options = word == prefix(b"OPTIONS ");
        self.flags = flags;
        // What asks for no output, a browser's CORS preflight for one, is none of an endpoint's requests.
        let no_output = flags & flag::HEAD != 0 || options;
        self.subject = if no_output { Endpoint::Other } else { endpoint(text, target) } as u32;
        self.state = state::FIELDS;
        event::START
    }

    /// `status-line = HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112, section 4).
    #[inline(always)]
    pub fn status_line(&mut self, text: &Text) -> u32 {
        if text.at::<0>() & keep(7) != prefix(b"HTTP/1.") {
            return self.lose();
        }
        let Some(code) = status_code(text.at::<8>()) else { return self.lose() };
        self.flags = (self.flags & !flag::RESYNCING) | flag::SPEAKS_HTTP;
        self.subject = code;
        self.state = state::FIELDS;
        // Interim responses are reported only at their end; 101 is final for HTTP/1.1 (RFC 9110, section 15.2.2).
        if is_interim(self.subject) { event::NONE } else { event::START }
    }

    /// Handles a field line for which [`begins_framing_field`] is true, or which may continue one. Not inlined, for the reason given in
    /// `conn/observe.rs`.
    #[inline(never)]
    pub fn field(&mut self, text: &Text) -> u32 {
        let folds = self.flags & flag::FOLDS != 0;
        self.flags &= !flag::FOLDS;
        if matches!(text.at::<0>() as u8, b' ' | b'\t') {
            return if folds { self.coding::<8>(text) } else { event::NONE };
        }
        let rest = lower(text.at::<8>());
        if lower(text.at::<0>()) == prefix(b"content-") {
            if rest & keep(7) == prefix(b"length:") {
                return self.content_length(text);
            }
            if rest & keep(5) == prefix(b"type:") && is_event_by_event(text) {
                self.flags |= flag::STREAMED;
            }
        } else if rest == prefix(b"-encodin") && lower(text.at::<16>()) & keep(2) == prefix(b"g:") {
            // The name, and the word itself.
            return self.coding::<25>(text);
        }
        event::NONE
    }

    #[inline(always)]
    fn content_length(&mut self, text: &Text) -> u32 {
        let at = text.skip_blanks(15);
        let Decimal { value, digits } = text.decimal(at);
        let ends = matches!(text.word(at + digits) as u8, b'\r' | b'\n' | b' ' | b'\t');
        // With different lengths, or one that is not a number, the end of the message is unknown (RFC 9112, section
        // 6.3, rule 5).
        let repeated = self.flags & flag::LENGTH != 0 && self.length != value;
        if digits == 0 || digits > 16 || !ends || repeated {
            return self.lose();
        }
        self.length = value;
        self.flags |= flag::LENGTH;
        event::NONE
    }

    /// `Transfer-Encoding` counts as chunked when `chunked` is the last coding (RFC 9112, section 6.1). A line of it whose
    /// value is `chunked` has at least `LEAST` bytes.
    #[inline(always)]
    fn coding<const LEAST: u32>(&mut self, text: &Text) -> u32 {
        let length = text.line_length();
        if length == 0 {
            return self.lose();
        }
        self.flags |= flag::FOLDS;
        if LEAST == 8 && matches!(text.word(text.skip_blanks(0)) as u8, b'\r' | b'\n') {
            // Nothing but blanks.
            return event::NONE;
        }
        // The value ends before CR LF and whitespace.
        let mut end = within(length - 1);
        for _ in 0..4 {
            end = within(end.wrapping_sub(trails(text.word(end.wrapping_sub(1)))));
        }
        let coding = text.lower_word(end.wrapping_sub(7)) & keep(7);
        let before = text.word(end.wrapping_sub(8)) as u8;
        let chunked = end >= LEAST && coding == prefix(b"chunked") && matches!(before, b':' | b' ' | b'\t' | b',');
        self.flags &= !(flag::CHUNKED | flag::OTHER_CODING);
        self.flags |= if chunked { flag::CHUNKED } else { flag::OTHER_CODING };
        event::NONE
    }

    /// Handles the empty line after the fields or the trailers.
    #[inline(always)]
    pub fn section_end<const RESPONSE: bool>(&mut self) -> u32 {
        if self.state() == state::FIELDS { self.fields_end::<RESPONSE>() } else { event::END }
    }

    /// Handles the empty line after the fields: what follows is defined by RFC 9112, section 6.3.
    #[inline(always)]
    fn fields_end<const RESPONSE: bool>(&mut self) -> u32 {
        let head = if RESPONSE { event::HEAD } else { event::NONE };
        if RESPONSE {
            let code = self.subject;
            if is_interim(code) {
                // The final response to the same request follows.
                self.state = state::START;
                self.flags &= flag::CONNECTION;
                return event::NONE;
            }
            if code == 101 || (self.flags & flag::CONNECT != 0 && code / 100 == 2) {
                self.flags |= flag::SWITCHES;
                return head | event::END;
            }
            if self.flags & flag::HEAD != 0 || code == 204 || code == 304 {
                return head | event::END;
            }
        }
        if self.flags & flag::CHUNKED != 0 {
            self.state = state::CHUNK_SIZE;
            return head;
        }
        if self.flags & flag::OTHER_CODING == 0 {
            if self.flags & flag::LENGTH != 0 && self.length > 0 {
                self.remaining = self.length;
                self.flags |= flag::DATA_BEGINS;
                self.state = state::DATA;
                return head;
            }
            if !RESPONSE || self.flags & flag::LENGTH != 0 {
                return head | event::END;
            }
        } else if !RESPONSE {
            // A server answers 400 and closes: the end of such a request is unknown (rule 4).
            return self.lose();
        }
        self.flags |= flag::DATA_BEGINS;
        self.state = state::UNTIL_CLOSE;
        head
    }

    #[inline(always)]
    pub fn chunk_size(&mut self, text: &Text) -> u32 {
        match text.hexadecimal() {
            None => self.lose(),
            Some(0) => {
                self.state = state::TRAILERS;
                event::NONE
            }
            Some(size) => {
                // The CR LF after the data is included: chunk-data is not a line, so a bare LF is not allowed (section
                // 7.1). If it is missing, the next chunk size is not a number.
                self.remaining = size + 2;
                self.flags |= flag::DATA_BEGINS;
                self.state = state::DATA;
                event::NONE
            }
        }
    }
}

/// Whether a field line can affect the framing or mark the message as streamed.
#[inline(always)]
pub(super) fn begins_framing_field(text: &Text) -> bool {
    let name = lower(text.at::<0>());
    name == prefix(b"content-") || name == prefix(b"transfer")
}

/// Whether a `Content-Type` is one of the streaming ones.
#[inline(always)]
fn is_event_by_event(text: &Text) -> bool {
    let at = text.skip_blanks(13);
    let (first, second, third) = (text.lower_word(at), text.lower_word(at + 8), text.lower_word(at + 16));
    let event_stream = first == prefix(b"text/eve")
        && second == prefix(b"nt-strea")
        && third as u8 == b'm'
        && ends_media_type((text.word(at + 17)) as u8);
    let ndjson = first == prefix(b"applicat")
        && second == prefix(b"ion/x-nd")
        && third & keep(4) == prefix(b"json")
        && ends_media_type((text.word(at + 20)) as u8);
    event_stream || ndjson
}

/// 1xx, except 101.
const fn is_interim(code: u32) -> bool {
    code / 100 == 1 && code != 101
}

/// Whether a byte ends a media type without changing it.
const fn ends_media_type(byte: u8) -> bool {
    matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n')
}
