//! Lines of HTTP/1.x, looked at eight bytes at a time.
//!
//! Everything in an HTTP/1.x message that is not body is a line: request line, status line, field, chunk size, the empty
//! line after a chunk, trailer (RFC 9112). [`Line`] collects the part of a line that can matter, however its bytes are
//! cut into packets; the functions below read it. Words are little-endian: the first byte is the lowest.

use super::Stretch;

/// `0x01` in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// `0x80` in every byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Turns upper-case ASCII letters into lower-case ones and leaves `-:/; ` and digits as they are.
const LOWER: u64 = 0x2020_2020_2020_2020;

/// Bytes of a line that are certain to be kept.
pub const KEPT: u32 = 56;

/// Longest line: beyond it the peer does not speak HTTP, or nobody could serve it (servers stop at 8 to 64 KiB).
pub const LONGEST: u32 = 1 << 20;

/// The line under way.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its first 56 to 63 bytes, line end included; what follows the line end is left over from an earlier line.
    head: [u64; 8],
    /// Its last 16 bytes, the newest in the highest byte.
    tail: [u64; 2],
    /// Bytes so far.
    len: u32,
    /// See [`Line::forget`].
    scratch: u32,
}

impl Line {
    /// An empty line.
    pub const EMPTY: Self = Self { head: [0; 8], tail: [0; 2], len: 0, scratch: 0 };

    /// Returns `value`, by way of memory. The kernel's verifier follows each path through a program and takes two for
    /// one only where their registers agree. It keeps no account of what lies in maps, so after this call all paths
    /// agree on the value: "any number". Called where many paths join, it makes their number a sum, not a product.
    #[inline(always)]
    pub fn forget(&mut self, value: u32) -> u32 {
        let place = &raw mut self.scratch;
        // SAFETY: the place is behind `self`.
        unsafe {
            place.write_volatile(value);
            place.read_volatile()
        }
    }

    /// Bytes so far.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u32 {
        // SAFETY: a reference is always readable. Volatile, so that the kernel's verifier forgets what it knew of the
        // value on this path: then all paths through one step of the parser end in the same state.
        unsafe { core::ptr::read_volatile(&raw const self.len) }
    }

    /// Whether no byte of the line has come yet.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the line, to begin the next.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes a whole line, of which no byte has come: the first of `stretch`, if it ends there within [`KEPT`] and `left`
    /// bytes. Its length; 0 if it does not, or is one that [`Self::push`] has to take: a request's `start` line that is
    /// shorter than the tail.
    #[inline(always)]
    pub fn take<const RESPONSE: bool>(&mut self, stretch: &Stretch, left: u32, start: bool) -> u32 {
        let mut length = 0;
        for (i, (kept, bytes)) in self.head.iter_mut().zip(&stretch[..KEPT as usize / 8]).enumerate() {
            let word = u64::from_le_bytes(*bytes);
            *kept = word;
            let newline = through_newline(word);
            if newline.found {
                length = i as u32 * 8 + newline.bytes;
                break;
            }
        }
        let length = self.forget(length);
        if length > left || (!RESPONSE && start && length < 16) {
            return 0;
        }
        // Only request lines are told by their end.
        if !RESPONSE && start {
            self.tail = [self.word(length - 16), self.word(length - 8)];
        }
        self.len = length;
        self.forget(length)
    }

    /// In the answer of [`Self::push`]: how many bytes it took.
    pub const USED: u32 = 15;
    /// In the answer of [`Self::push`]: the line's end (LF) was among them.
    pub const COMPLETE: u32 = 16;

    /// Appends the first `valid` (1..=8) bytes of `word`, up to and including the first LF.
    #[inline(always)]
    pub fn push<const RESPONSE: bool>(&mut self, word: u64, valid: u32) -> u32 {
        let newline = through_newline(word);
        let complete = newline.found && newline.bytes <= valid;
        let used = if newline.bytes < valid { newline.bytes } else { valid };
        let bits = used * 8;
        let word = word & (u64::MAX >> ((64 - bits) & 63));
        let len = self.len();
        if len < KEPT {
            let (index, shift) = (masked(len >> 3) as usize, (len & 7) * 8);
            let kept = self.head[index & 7] & !(u64::MAX << shift);
            self.head[index & 7] = kept | (word << shift);
            // Two shifts, because one by 64 is not defined. Without a shift this writes what nobody reads.
            self.head[(index + 1) & 7] = (word >> 1) >> (63 - shift);
        }
        if !RESPONSE {
            // Only request lines are told by their end.
            if used == 8 {
                self.tail = [self.tail[1], word];
            } else {
                self.tail = [
                    (self.tail[0] >> bits) | (self.tail[1] << (64 - bits)),
                    (self.tail[1] >> bits) | (word << (64 - bits)),
                ];
            }
        }
        self.len = len + used;
        self.forget(used | if complete { Self::COMPLETE } else { 0 })
    }

    /// Eight bytes from `offset` on; what lies beyond the kept bytes is unspecified.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self, offset: u32) -> u64 {
        let (index, shift) = ((offset >> 3) as usize, (offset & 7) * 8);
        // Two shifts, because one by 64 is not defined.
        (self.head[index & 7] >> shift) | ((self.head[(index + 1) & 7] << 1) << (63 - shift))
    }

    /// Like [`Self::word`], ASCII letters in lower case.
    #[inline(always)]
    #[must_use]
    pub const fn lower_word(&self, offset: u32) -> u64 {
        lower(self.word(offset))
    }

    /// Whether the complete line is empty: LF, or CR LF (RFC 9112, section 2.2, lets a recipient take the bare LF).
    #[inline(always)]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let len = self.len();
        len == 1 || (len == 2 && self.head[0] as u8 == b'\r')
    }

    /// Whether the complete line ends with ` HTTP/1.` and a digit, as a request line does.
    #[inline(always)]
    #[must_use]
    pub const fn ends_with_version(&self) -> bool {
        let (before, last) = (self.tail[0], self.tail[1]);
        const CRLF: u64 = prefix(b"TP/1.\0\r\n");
        const LF: u64 = prefix(b"TTP/1.\0\n");
        (last & !(0xff << 40) == CRLF && is_digit((last >> 40) as u8) && before >> 40 == prefix(b" HT"))
            || (last & !(0xff << 48) == LF && is_digit((last >> 48) as u8) && before >> 48 == prefix(b" H"))
    }

    /// Offset of the first byte at or after `offset` that is neither space nor tab; gives up after eight.
    #[inline(always)]
    #[must_use]
    pub fn skip_blanks(&mut self, offset: u32) -> u32 {
        let word = self.word(offset);
        let mut count = 0;
        while count < 8 && is_blank((word >> (count * 8)) as u8) {
            count += 1;
        }
        self.forget(offset + count)
    }
}

/// Up to eight bytes as the word they make.
#[must_use]
pub const fn prefix(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = 0;
    while i < text.len() {
        word |= (text[i] as u64) << (i * 8);
        i += 1;
    }
    word
}

/// The mask that keeps the first `bytes` (1..=8) bytes of a word.
#[inline(always)]
#[must_use]
pub const fn keep(bytes: u32) -> u64 {
    u64::MAX >> (64 - bytes * 8)
}

/// Whether `byte` is an ASCII digit.
#[inline(always)]
#[must_use]
pub const fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

#[inline(always)]
const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Where a word's first LF is.
pub struct Newline {
    /// There is one.
    pub found: bool,
    /// Bytes up to and including it; 8 without one.
    pub bytes: u32,
}

/// Looks for the first LF.
#[inline(always)]
#[must_use]
pub const fn through_newline(word: u64) -> Newline {
    let flags = bytes_equal(word, b'\n');
    Newline { found: flags != 0, bytes: bytes_through_lowest(flags) }
}

/// Bytes up to and including the first LF of a stretch; 0 without one.
#[inline(always)]
#[must_use]
pub fn line_length(stretch: &Stretch) -> u32 {
    for (i, bytes) in stretch.iter().enumerate() {
        let newline = through_newline(u64::from_le_bytes(*bytes));
        if newline.found {
            return i as u32 * 8 + newline.bytes;
        }
    }
    0
}

/// Whether there is an LF among the eight bytes.
#[inline(always)]
#[must_use]
pub const fn has_newline(word: u64) -> bool {
    bytes_equal(word, b'\n') != 0
}

/// ASCII letters in lower case; `-:/; ` and digits as they are.
#[inline(always)]
#[must_use]
pub const fn lower(word: u64) -> u64 {
    word | LOWER
}

/// Flags (`0x80`) the bytes of `word` that equal `byte`; exact for the lowest flagged byte, which is all that counts.
#[inline(always)]
const fn bytes_equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (byte as u64).wrapping_mul(ONES);
    difference.wrapping_sub(ONES) & !difference & HIGHS
}

/// Number of bytes up to and including the lowest flagged one; 8 when none is.
#[inline(always)]
const fn bytes_through_lowest(flags: u64) -> u32 {
    let below = flags.wrapping_sub(1) & !flags;
    ((below & ONES).wrapping_mul(ONES) >> 56) as u32
}

/// A decimal number read by [`decimal`].
pub struct Decimal {
    /// Its value.
    pub value: u64,
    /// How many digits it has; 0 or more than 16 is no number that a message can have as its length.
    pub digits: u32,
}

/// Reads the decimal number at `offset`: `1*DIGIT` (RFC 9110, section 8.6), at most 16 digits.
#[inline(always)]
#[must_use]
pub fn decimal(line: &mut Line, offset: u32) -> Decimal {
    let (high, high_digits) = digits8(line.word(offset));
    if high_digits < 8 {
        return Decimal { value: high, digits: line.forget(high_digits) };
    }
    let (low, low_digits) = digits8(line.word(offset + 8));
    // Times ten to the power of the digits, bit by bit: the verifier would follow both sides of each branch.
    let power = |bit: u32, factor: u64| 1 + ((factor - 1) & 0u64.wrapping_sub(u64::from(low_digits) >> bit & 1));
    let value = high * power(0, 10) * power(1, 100) * power(2, 10_000) * power(3, 100_000_000);
    let more = low_digits == 8 && is_digit(line.word(offset + 16) as u8);
    Decimal { value: value + low, digits: line.forget(if more { 17 } else { 8 + low_digits }) }
}

/// The leading decimal digits of a word: their value and their number.
#[inline(always)]
const fn digits8(word: u64) -> (u64, u32) {
    let digits = word ^ (b'0' as u64 * ONES);
    // A byte above 9 sets its top bit, alone or by the addition; carries spoil only bytes above it.
    let others = (digits.wrapping_add(0x76 * ONES) | digits) & HIGHS;
    let count = if others == 0 { 8 } else { bytes_through_lowest(others) - 1 };
    if count == 0 {
        return (0, 0);
    }
    // The digits move to the top; zeros come in before them.
    let d = digits << (64 - count * 8);
    let pairs = (d.wrapping_mul(10).wrapping_add(d >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    ((fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff, count)
}

/// Reads the chunk size at the beginning of a line: `1*HEXDIG` (RFC 9112, section 7.1), at most 15 digits.
#[inline(always)]
#[must_use]
pub fn hexadecimal(line: &Line) -> Option<u64> {
    let mut rest = line.word(0);
    let mut value = 0;
    for digit in 0..16 {
        if digit == 8 {
            rest = line.word(8);
        }
        let byte = (rest & 0xff) as u8;
        rest >>= 8;
        let lower = byte | 0x20;
        let nibble = if is_digit(byte) {
            byte - b'0'
        } else if lower.wrapping_sub(b'a') < 6 {
            lower - b'a' + 10
        } else {
            // Chunk extensions may follow, after optional blanks.
            let ends = matches!(byte, b'\r' | b'\n' | b';' | b' ' | b'\t');
            return if ends && digit > 0 { Some(value) } else { None };
        };
        value = value << 4 | u64::from(nibble);
    }
    None
}

/// `index & 7`, which changes nothing for an index of [`Line::head`]: the compiler, which knows the bound, would leave the
/// instruction out, and verifiers before 6.12 forget a bound when the register is spilled between comparison and use.
#[inline(always)]
#[cfg_attr(not(target_arch = "bpf"), expect(unused_mut, reason = "only the kernel's variant writes it"))]
fn masked(mut index: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: an AND without memory access.
    unsafe {
        core::arch::asm!("{0} &= 7", inout(reg) index, options(pure, nomem, nostack));
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line_of(text: &[u8], cut: usize) -> Line {
        let mut line = Line::EMPTY;
        for piece in text.chunks(cut) {
            let mut word = [0xff; 8];
            word[..piece.len()].copy_from_slice(piece);
            let pushed = line.push::<false>(u64::from_le_bytes(word), piece.len() as u32);
            assert_eq!((pushed & Line::USED) as usize, piece.len());
        }
        line
    }

    proptest! {
        #[test]
        fn a_line_is_the_same_however_it_is_cut(text in "[ -~]{0,80}", cut in 1usize..=8) {
            let text = std::format!("{text}\r\n");
            let (cut, whole) = (line_of(text.as_bytes(), cut), line_of(text.as_bytes(), 8));
            prop_assert_eq!(cut.len(), text.len() as u32);
            prop_assert_eq!(cut.tail[1], whole.tail[1]);
            for offset in 0..(text.len().min(KEPT as usize) as u32) {
                prop_assert_eq!(cut.word(offset) as u8, text.as_bytes()[offset as usize]);
            }
        }

        #[test]
        fn push_stops_after_the_first_line_feed(word in any::<[u8; 8]>(), valid in 1u32..=8) {
            let pushed = { Line::EMPTY }.push::<false>(u64::from_le_bytes(word), valid);
            let newline = word[..valid as usize].iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(pushed & Line::COMPLETE != 0, newline.is_some());
            prop_assert_eq!(pushed & Line::USED, newline.map_or(valid, |at| at as u32 + 1));
        }

        #[test]
        fn decimals_are_read_as_the_standard_library_does(value in 0u64..10_000_000_000_000_000, zeros in 0usize..3) {
            let text = std::format!("{}{value}\r\n", "0".repeat(zeros));
            let read = decimal(&mut line_of(text.as_bytes(), 8), 0);
            let digits = text.len() as u32 - 2;
            prop_assert_eq!(read.digits, digits.min(17));
            if digits <= 16 {
                prop_assert_eq!(read.value, value);
            }
        }

        #[test]
        fn chunk_sizes_are_read_as_the_standard_library_does(value in 0u64..1 << 60, upper in any::<bool>()) {
            let text = if upper { std::format!("{value:X};ext=1\r\n") } else { std::format!("{value:x}\r\n") };
            prop_assert_eq!(hexadecimal(&line_of(text.as_bytes(), 8)), Some(value));
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["\r\n", "-1\r\n", "x\r\n", ";\r\n", "1234567890123456\r\n", "5\u{1}\r\n"] {
            assert_eq!(hexadecimal(&line_of(text.as_bytes(), 8)), None, "{text:?}");
        }
        assert_eq!(decimal(&mut line_of(b"\r\n", 8), 0).digits, 0);
        assert_eq!(decimal(&mut line_of(b"12345678901234567\r\n", 8), 0).digits, 17);
    }

    #[test]
    fn versions_end_request_lines() {
        for good in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.1\n", "M / HTTP/1.1\r\n"] {
            assert!(line_of(good.as_bytes(), 3).ends_with_version(), "{good:?}");
        }
        for bad in
            ["GET / HTTP/2.0\r\n", "GET /HTTP/1.1\r\n", "GET / HTTP/1.x\r\n", "GET / HTTP/1.1 \r\n", "HTTP/1.1\r\n"]
        {
            assert!(!line_of(bad.as_bytes(), 8).ends_with_version(), "{bad:?}");
        }
    }

    #[test]
    fn blanks_are_skipped() {
        assert_eq!(line_of(b"a: \t x\r\n", 8).skip_blanks(2), 5);
        assert_eq!(line_of(b"a:x\r\n", 8).skip_blanks(2), 2);
    }
}
