//! Events of a streamed response: which of them carry output.
//!
//! Server-sent events (HTML, section 9.2) with JSON as their data, in the forms of OpenAI's chat, completions and responses,
//! Anthropic's messages, llama.cpp, TGI, SGLang and Triton; and lines of JSON, as Ollama writes them. An event carries output
//! if one of the keys in `key::of` has a value that is not empty, within [`LOOK`] bytes of the event's start. The bytes before
//! that are mostly the same in all events of a stream, so they are remembered, as a hash: the next event is compared with that
//! alone (`Events::glance`); any other is read key by key ([`Events::look`]).
//!
//! A stream of unknown form (compressed, for example) is *unread*: nothing in it is parsed any more.

mod glance;
mod key;

use super::framer::event;
use super::text::{Text, all_equal, bytes_before_lowest, keep, prefix};
use super::{Payload, launder};

/// How many bytes of an event are read at most.
pub const LOOK: u32 = 512;

/// Rounds of one [`Events::look`]: a key, eight bytes without one, or 64 bytes that do not matter. What is left is looked at
/// in the next one. Wide, as the kernel programs keep it: verifiers before 5.16 follow narrow numbers on the stack no further.
const ROUNDS: u64 = 64;

/// What the next byte is. Plain numbers, because the state lives in a kernel map.
mod mode {
    /// The first of a line, or in the field's name.
    pub(super) const FIELD: u32 = 0;
    /// In an event's name.
    pub(super) const NAME: u32 = 1;
    /// In JSON, up to the end of a key.
    pub(super) const KEYS: u32 = 2;
    /// After a key that matters.
    pub(super) const VALUE: u32 = 3;
    /// After the quote or the brace with which its value begins.
    pub(super) const OUTPUT: u32 = 4;
    /// In the rest of a line, which does not matter.
    pub(super) const REST: u32 = 5;
}

/// What is known of the event and the stream.
mod mark {
    /// There is an event: it has data.
    pub(super) const EVENT: u32 = 1;
    /// Its form is known.
    pub(super) const KNOWN: u32 = 2;
    /// It carries output.
    pub(super) const OUTPUT: u32 = 4;
    /// It is a line of JSON by itself.
    pub(super) const LINE: u32 = 8;
    /// The event describes a whole part of the answer (OpenAI's responses): only a `delta` is output.
    pub(super) const PART: u32 = 16;
    /// The value that comes is an object.
    pub(super) const OBJECT: u32 = 32;
    /// The stream has carried output.
    pub(super) const FLOWS: u32 = 64;
    /// The stream is not looked at any more.
    pub(super) const UNREAD: u32 = 128;
    /// The stream said that it failed.
    pub(super) const FAILED: u32 = 256;
    /// The stream's output is in lines of JSON.
    pub(super) const LINES: u32 = 512;
    /// A chunk ended within a line of the event.
    pub(super) const CUT: u32 = 1024;
    /// What is known of the stream.
    pub(super) const STREAM: u32 = FLOWS | UNREAD | FAILED | LINES;
}

/// Whether a word's highest bytes are these.
#[inline(always)]
const fn ends<const N: usize>(word: u64, with: &[u8; N]) -> bool {
    const { assert!(N <= 8) };
    word >> (64 - N * 8) == prefix(with)
}

/// The stream under way. All zero before it begins.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Events {
    /// The last eight bytes of the line, the newest in the highest byte.
    recent: u64,
    /// What an event of this stream has before its output: a hash of it.
    form: u64,
    /// How many bytes these are; 0: not known.
    place: u32,
    /// See [`mode`].
    mode: u32,
    /// See [`mark`].
    marks: u32,
    /// The key that [`mode::VALUE`] is about, see [`key`].
    key: u32,
    /// Bytes of the event so far.
    len: u32,
    /// Bytes of the line so far, as long as its field's name is read.
    line: u32,
    /// What is to be looked at: from here in the payload on.
    offset: u32,
    /// How many bytes.
    left: u32,
    /// How many of them were.
    used: u32,
    /// What was found in them, see [`event`].
    found: u32,
    /// See [`super::launder`].
    scratch: u32,
    /// The chunk ends with what is to be looked at.
    ends: u32,
}

impl Events {
    /// Before a stream.
    pub const NONE: Self = Self {
        recent: 0,
        form: 0,
        place: 0,
        mode: mode::FIELD,
        marks: 0,
        key: 0,
        len: 0,
        line: 0,
        offset: 0,
        left: 0,
        used: 0,
        found: 0,
        scratch: 0,
        ends: 0,
    };

    /// A response begins.
    #[inline(always)]
    pub const fn begin(&mut self) {
        self.place = 0;
        self.mode = mode::FIELD;
        self.marks = 0;
        self.len = 0;
        self.line = 0;
        self.recent = 0;
    }

    /// The stream is not looked at any more.
    #[inline(always)]
    #[must_use]
    pub fn is_unread(&self) -> bool {
        fresh!(self.marks) & mark::UNREAD != 0
    }

    /// A part of the stream was not seen: the rest is not looked at.
    #[inline(always)]
    pub fn miss(&mut self) {
        self.mark(mark::UNREAD);
    }

    /// The stream said that it failed.
    #[inline(always)]
    #[must_use]
    pub fn has_failed(&self) -> bool {
        fresh!(self.marks) & mark::FAILED != 0
    }

    /// Whether the next byte is within an event: `other`, one that had no output so far.
    #[inline(always)]
    #[must_use]
    pub fn is_within(&self, other: bool) -> bool {
        let not = mark::UNREAD | if other { mark::OUTPUT } else { 0 };
        fresh!(self.len) != 0 && fresh!(self.marks) & not == 0
    }

    /// Whether the stream's output is in lines of JSON.
    #[inline(always)]
    #[must_use]
    pub fn are_lines(&self) -> bool {
        fresh!(self.marks) & mark::LINES != 0
    }

    /// How many bytes the last look took, and what it found.
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> (u32, u32) {
        (fresh!(self.used), fresh!(self.found))
    }

    /// Looks at `left` > 0 bytes of the body, from `offset` in the payload on: up to the end of an event. `ends`: the chunk ends
    /// with them. For the result, see [`Self::found`].
    #[inline(always)]
    pub fn read<P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32, ends: bool) {
        self.offset = offset;
        self.left = left;
        self.used = 0;
        self.found = event::NONE;
        if self.is_unread() {
            self.used = left;
        } else if !(ends && self.glance(payload, offset, left)) {
            self.ends = u32::from(ends);
            payload.look(self);
        }
    }

    /// Reads on, up to the end of an event: what [`Self::read`] was asked for.
    #[inline(always)]
    pub fn look<P: Payload>(&mut self, payload: &mut P) {
        for _ in 0..ROUNDS {
            let (used, found) = self.found();
            let left = fresh!(self.left).wrapping_sub(used);
            if left == 0 || found & (event::EVENT_ENDS | event::UNREAD) != 0 {
                break;
            }
            let Some(text) = payload.text(fresh!(self.offset).wrapping_add(used)) else {
                self.strange();
                self.used = fresh!(self.left);
                return;
            };
            self.round(text, left);
        }
        if self.is_unread() {
            self.used = fresh!(self.left);
        }
        let in_line = fresh!(self.mode) != mode::FIELD || fresh!(self.line) != 0;
        if fresh!(self.ends) != 0 && in_line && fresh!(self.used) == fresh!(self.left) {
            self.mark(mark::CUT);
        }
        let place = fresh!(self.place);
        if fresh!(self.found) & event::OUTPUT != 0 && place != 0 {
            self.form = Self::hash(payload, fresh!(self.offset), place);
        }
    }

    /// One round, of at most `left` bytes of `text`.
    #[inline(always)]
    fn round(&mut self, text: &Text, left: u32) {
        let mode = fresh!(self.mode);
        if mode == mode::REST {
            let length = text.line_length();
            if length != 0 && length <= left {
                self.take(length);
                self.line_ends();
            } else {
                self.take(if left < Text::LINE { left } else { Text::LINE });
            }
            return;
        }
        let mut left = left;
        if mode >= mode::KEYS {
            let more = LOOK.wrapping_sub(fresh!(self.len));
            if more == 0 || more > LOOK {
                return self.gives_up();
            }
            left = if left < more { left } else { more };
        }
        let (word, recent) = (text.at::<0>(), fresh!(self.recent));
        let newline = all_equal(word, b'\n');
        let colon = all_equal(word, b':');
        let stops = match mode {
            mode::FIELD => newline | colon | all_equal(word, b'{'),
            mode::NAME => newline,
            // A colon right after a quote.
            mode::KEYS => newline | colon & (all_equal(word, b'"') << 8 | all_equal(recent >> 56, b'"') & 0x80),
            _ => 0x80,
        };
        let through = bytes_before_lowest(stops) + 1;
        let most = if left < 8 { left } else { 8 };
        let stopped = through <= most;
        let used = launder(&mut self.scratch, if stopped { through } else { most });
        let bits = used * 8;
        // In two shifts, since none is by 64 bits.
        self.recent = (recent >> (bits - 1) >> 1) | (word & keep(used)) << (64 - bits);
        self.take(used);
        if mode == mode::FIELD {
            self.line = fresh!(self.line).wrapping_add(used);
        }
        // No field of an event has a longer name.
        if mode == mode::FIELD && fresh!(self.line) >= 8 + u32::from(stopped) {
            self.strange();
            // The round that shows it can be the one that reads the line's end, if the name is cut.
            if fresh!(self.recent) >> 56 == u64::from(b'\n') {
                self.line_ends();
            }
        } else if stopped {
            self.stops(mode);
        }
    }

    /// Bytes that were read.
    #[inline(always)]
    fn take(&mut self, count: u32) {
        self.used = fresh!(self.used).wrapping_add(count);
        self.len = fresh!(self.len).wrapping_add(count);
    }

    /// Whether the line is these bytes so far, at most eight.
    #[inline(always)]
    fn is<const N: usize>(&self, line: &[u8; N]) -> bool {
        fresh!(self.line) == N as u32 && ends(fresh!(self.recent), line)
    }

    #[inline(always)]
    fn mark(&mut self, marks: u32) {
        self.marks = fresh!(self.marks) | marks;
    }

    /// What stopped a round of this mode means.
    #[inline(always)]
    fn stops(&mut self, mode: u32) {
        let recent = fresh!(self.recent);
        let last = (recent >> 56) as u8;
        if mode == mode::FIELD {
            self.field(last);
        } else if last == b'\n' {
            if mode == mode::NAME {
                // `event: error`, `response.error`, `response.failed`; with the CR that may stand before the LF.
                let name = if (recent >> 48) as u8 == b'\r' { recent << 16 } else { recent << 8 };
                if ends(name, b"error") || ends(name, b"failed") {
                    self.mark(mark::KNOWN | mark::FAILED);
                }
            } else if ends(recent, b"[DONE]\n") || ends(recent, b"DONE]\r\n") {
                self.mark(mark::KNOWN);
            }
            self.line_ends();
        } else if mode == mode::KEYS {
            self.key_ends(key::of(recent));
        } else if mode == mode::VALUE {
            self.value(last);
        } else {
            self.output(last);
        }
    }

    /// A field's name (HTML, section 9.2.6), or an empty line.
    #[inline(always)]
    fn field(&mut self, last: u8) {
        if last == b'\n' {
            if self.is(b"\n") || self.is(b"\r\n") {
                self.event_ends();
            }
            self.line_begins();
        } else if self.is(b"data:") {
            self.data(mark::EVENT);
        } else if self.is(b"{") {
            self.data(mark::EVENT | mark::LINE);
        } else if self.is(b"event:") {
            self.mode = mode::NAME;
        } else if self.is(b":") || self.is(b"id:") || self.is(b"retry:") {
            self.mode = mode::REST;
        } else {
            self.strange();
        }
    }

    /// An event has data, which matters as long as no line before has shown output.
    #[inline(always)]
    fn data(&mut self, marks: u32) {
        self.mark(marks);
        self.mode = if fresh!(self.marks) & mark::OUTPUT == 0 { mode::KEYS } else { mode::REST };
    }

    #[inline(always)]
    fn key_ends(&mut self, key: u32) {
        if key == key::NONE {
            return;
        }
        self.mark(mark::KNOWN);
        if key == key::PART {
            self.mark(mark::PART);
        } else if key != key::FORM {
            self.key = key;
            self.mode = mode::VALUE;
        }
    }

    /// The byte with which a value begins, or a blank before it.
    #[inline(always)]
    fn value(&mut self, byte: u8) {
        if byte == b' ' {
            return;
        }
        let (key, whole) = (fresh!(self.key), fresh!(self.marks) & mark::PART != 0);
        let (string, object) = (byte == b'"', byte == b'{');
        self.mode = mode::KEYS;
        if key == key::ERROR {
            if string || object {
                self.mark(mark::FAILED);
                self.mode = mode::REST;
            }
        } else if key == key::RESPONSE && object {
            self.mark(mark::PART);
        } else if (string || object && key == key::ARGUMENTS) && (key == key::DELTA || !whole) {
            let object = if object { mark::OBJECT } else { 0 };
            self.marks = fresh!(self.marks) & !mark::OBJECT | object;
            self.mode = mode::OUTPUT;
        }
    }

    /// The first byte within a value that is output unless it ends here.
    #[inline(always)]
    fn output(&mut self, byte: u8) {
        let marks = fresh!(self.marks);
        let end = if marks & mark::OBJECT != 0 { b'}' } else { b'"' };
        if byte == end {
            self.mode = mode::KEYS;
            return;
        }
        let lines = if marks & mark::LINE != 0 { mark::LINES } else { 0 };
        self.marks = marks & !mark::LINES | mark::OUTPUT | mark::FLOWS | lines;
        self.found = fresh!(self.found) | event::OUTPUT;
        // Remembered if all of it was in this look.
        let len = fresh!(self.len);
        self.place = if len == fresh!(self.used) { len.wrapping_sub(1) } else { 0 };
        self.mode = mode::REST;
    }

    #[inline(always)]
    fn line_ends(&mut self) {
        if fresh!(self.marks) & mark::LINE != 0 {
            self.event_ends();
        }
        self.line_begins();
    }

    #[inline(always)]
    fn line_begins(&mut self) {
        self.recent = 0;
        self.line = 0;
        self.mode = mode::FIELD;
    }

    #[inline(always)]
    fn event_ends(&mut self) {
        let marks = fresh!(self.marks);
        if marks & mark::EVENT != 0 {
            let known = marks & (mark::KNOWN | mark::FAILED | mark::FLOWS) != 0;
            let other = if marks & mark::OUTPUT == 0 { event::OTHER } else { event::NONE };
            let cut = if marks & mark::CUT != 0 { event::CUT } else { event::NONE };
            let what = if known { event::EVENT_ENDS | other | cut } else { event::UNREAD };
            self.found = fresh!(self.found) | what;
            self.marks = if known { marks & mark::STREAM } else { mark::UNREAD };
        } else {
            self.marks = marks & !mark::CUT;
        }
        self.len = 0;
    }

    /// As much of an event was read as is read of any.
    #[inline(always)]
    fn gives_up(&mut self) {
        if fresh!(self.marks) & mark::KNOWN == 0 {
            self.strange();
        }
        self.mode = mode::REST;
    }

    /// What is no event of a known form. In a stream that has shown one, it is let pass.
    #[inline(always)]
    fn strange(&mut self) {
        self.mode = mode::REST;
        if fresh!(self.marks) & mark::FLOWS == 0 {
            self.mark(mark::UNREAD);
            self.found = fresh!(self.found) | event::UNREAD;
        }
    }
}
