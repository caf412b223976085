//! What a complete line means for the message that it belongs to (RFC 9112, sections 3 to 7).

use super::{Framer, event, flag, state};
use crate::http::line::{Decimal, KEPT, decimal, hexadecimal, keep, prefix};
use crate::http::start_line::{after_method, endpoint};

impl Framer {
    #[inline(always)]
    pub(super) fn line_complete<const RESPONSE: bool>(&mut self) -> u32 {
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
                self.flags &= flag::CONNECTION;
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
