//! Lines that are split across segments, or too long to be parsed in place.
//!
//! Everything in an HTTP/1.x message except the body is a line: request line, status line, field, chunk size, the empty
//! line after a chunk, trailer (RFC 9112). [`Line`] collects the relevant part of a line, however its bytes are split
//! into packets.

use super::text::{Text, is_digit, keep, prefix, through_newline};

/// Maximum length of a line: beyond it the peer does not speak HTTP, or no server would accept it (servers stop at 8 to
/// 64 KiB).
pub const LONGEST: u32 = 1 << 20;

/// The last 16 bytes of a line, the newest in the highest byte.
pub type Tail = [u64; 2];

/// The line being received.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Line {
    /// Its first bytes, including the line end; the bytes after the line end are left over from an earlier line.
    head: Text,
    /// Its last bytes, for lines sent by a client.
    tail: Tail,
    /// Bytes received so far.
    len: u32,
    /// See [`super::launder`].
    scratch: u32,
}

impl Line {
    /// An empty line.
    pub const EMPTY: Self = Self { head: Text::EMPTY, tail: [0; 2], len: 0, scratch: 0 };

    /// See [`super::launder`].
    #[inline(always)]
    pub fn launder(&mut self, value: u32) -> u32 {
        super::launder(&mut self.scratch, value)
    }

    /// Its first bytes, as far as received.
    #[inline(always)]
    #[must_use]
    pub const fn text(&self) -> &Text {
        &self.head
    }

    /// Its last bytes, for a line sent by a client.
    #[inline(always)]
    #[must_use]
    pub const fn tail(&self) -> Tail {
        self.tail
    }

    /// Number of bytes received so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u32 {
        // SAFETY: a reference is always readable. Volatile, so that the verifier forgets what it knows about the value
        // on this path: then all paths through one step of the parser end in the same state.
        unsafe { core::ptr::read_volatile(&raw const self.len) }
    }

    /// Whether the complete line is empty.
    #[inline(always)]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.len() <= 2 && self.head.is_blank_line()
    }

    /// Whether no byte of the line has been received.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Discards the line and starts the next one.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// In the result of [`Self::push`]: mask of the number of bytes consumed.
    pub const USED: u32 = 0x7f;
    /// In the result of [`Self::push`]: the line's end (LF) was among them.
    pub const COMPLETE: u32 = 0x80;

    /// Appends bytes of `text`, of which `left` > 0 are valid, up to the first LF: at most 64 at the start of a line
    /// and where they need not be kept, else at most eight.
    #[inline(always)]
    pub fn push<const RESPONSE: bool>(&mut self, text: &Text, left: u32) -> u32 {
        let len = self.len();
        if left >= Text::LINE && (len == 0 || len >= Text::LINE) {
            let length = text.line_length();
            // A shorter end is joined to the tail word by word.
            if length == 0 || length >= 16 {
                let (used, complete) = if length == 0 { (Text::LINE, 0) } else { (length, Self::COMPLETE) };
                let pushed = self.launder(used | complete);
                let used = pushed & Self::USED;
                if !RESPONSE {
                    self.tail = [text.word(used - 16), text.word(used - 8)];
                }
                self.len = len.wrapping_add(used);
                if len == 0 {
                    self.head = *text;
                }
                return pushed;
            }
        }
        self.push_word::<RESPONSE>(text.at::<0>(), if left < 8 { left } else { 8 })
    }

    /// Appends the first `valid` (1..=8) bytes of `word`, up to and including the first LF.
    #[inline(always)]
    fn push_word<const RESPONSE: bool>(&mut self, word: u64, valid: u32) -> u32 {
        let newline = through_newline(word);
        let used = self.launder(if newline.bytes < valid { newline.bytes } else { valid });
        let bits = used * 8;
        let word = word & keep(used);
        if !RESPONSE {
            // Only request lines are recognised by their end. In two shifts, because a shift by 64 bits is undefined.
            let shift = |from: u64, next: u64| (from >> (bits - 1) >> 1) | (next << (64 - bits));
            self.tail = [shift(self.tail[0], self.tail[1]), shift(self.tail[1], word)];
        }
        let len = self.len();
        self.len = len.wrapping_add(used);
        if len < Text::LINE {
            self.head.put(len, word);
        }
        self.launder(used | if newline.found && newline.bytes == used { Self::COMPLETE } else { 0 })
    }
}

/// Whether a line with this end ends with ` HTTP/1.` and a digit, as a request line does.
#[inline(always)]
#[must_use]
pub const fn ends_with_version([before, last]: Tail) -> bool {
    const CRLF: u64 = prefix(b"TP/1.\0\r\n");
    const LF: u64 = prefix(b"TTP/1.\0\n");
    (last & !(0xff << 40) == CRLF && is_digit((last >> 40) as u8) && before >> 40 == prefix(b" HT"))
        || (last & !(0xff << 48) == LF && is_digit((last >> 48) as u8) && before >> 48 == prefix(b" H"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::text::text_of;
    use proptest::prelude::*;

    fn line_of(bytes: &[u8], cut: usize) -> Line {
        let mut line = Line::EMPTY;
        for piece in bytes.chunks(cut) {
            let mut rest = piece;
            while !rest.is_empty() {
                let pushed = line.push::<false>(&text_of(rest), rest.len() as u32);
                rest = &rest[(pushed & Line::USED) as usize..];
                let ended = pushed & Line::COMPLETE != 0;
                assert_eq!(ended, rest.is_empty() && piece.ends_with(b"\n"));
            }
        }
        line
    }

    proptest! {
        #[test]
        fn a_line_is_the_same_however_it_is_cut(text in "[ -~]{16,300}", cut in 1usize..=200) {
            let text = std::format!("{text}\r\n");
            let line = line_of(text.as_bytes(), cut);
            prop_assert_eq!(line.len() as usize, text.len());
            let tail: std::vec::Vec<u8> = line.tail().iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(&tail, &text.as_bytes()[text.len() - 16..]);
            let kept = text.len().min(Text::LINE as usize);
            prop_assert_eq!(&line.text().0[..kept], &text.as_bytes()[..kept]);
        }

        #[test]
        fn push_stops_after_the_first_line_feed(word in any::<[u8; 8]>(), left in 1u32..=8) {
            let pushed = { Line::EMPTY }.push::<false>(&text_of(&word), left);
            let newline = word[..left as usize].iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(pushed & Line::COMPLETE != 0, newline.is_some());
            prop_assert_eq!(pushed & Line::USED, newline.map_or(left, |at| at as u32 + 1));
        }
    }

    #[test]
    fn versions_end_request_lines() {
        for good in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.1\n", "M / HTTP/1.1\r\n"] {
            assert!(ends_with_version(line_of(good.as_bytes(), 3).tail()), "{good:?}");
        }
        for bad in
            ["GET / HTTP/2.0\r\n", "GET /HTTP/1.1\r\n", "GET / HTTP/1.x\r\n", "GET / HTTP/1.1 \r\n", "HTTP/1.1\r\n"]
        {
            assert!(!ends_with_version(line_of(bad.as_bytes(), 8).tail()), "{bad:?}");
        }
    }
}
