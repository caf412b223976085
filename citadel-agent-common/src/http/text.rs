//! HTTP/1.x text, processed in little-endian words of eight bytes: the first byte is the lowest.
//!
//! Where possible, words are searched with arithmetic on all bytes at once: the verifier follows both sides of a
//! branch, and a branch that is rarely taken costs the CPU more than the arithmetic.

/// `0x01` in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// `0x80` in every byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Turns upper-case ASCII letters into lower-case ones and leaves `-:/; ` and digits unchanged.
const LOWER: u64 = 0x2020_2020_2020_2020;

/// Consecutive bytes: the first bytes of a line, which determine its meaning, plus the bytes that a word starting in
/// them may extend to.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Text(pub [u8; Self::LEN]);

impl Text {
    /// Maximum length of the relevant start of a line.
    pub const LINE: u32 = 64;
    /// Total number of bytes.
    pub const LEN: usize = Self::LINE as usize + 8;
    /// All zero.
    pub const EMPTY: Self = Self([0; Self::LEN]);

    /// The eight bytes at `AT`.
    #[inline(always)]
    #[must_use]
    pub const fn at<const AT: usize>(&self) -> u64 {
        const { assert!(AT + 8 <= Self::LEN) };
        // SAFETY: eight bytes of it, which need no alignment.
        u64::from_le(unsafe { self.0.as_ptr().add(AT).cast::<u64>().read_unaligned() })
    }

    /// The eight bytes at `offset`, taken modulo [`Self::LINE`].
    #[inline(always)]
    #[must_use]
    pub fn word(&self, offset: u32) -> u64 {
        // SAFETY: eight of 72 bytes starting at one of the first 64; they need no alignment.
        u64::from_le(unsafe { self.0.as_ptr().add(within(offset) as usize).cast::<u64>().read_unaligned() })
    }

    /// Writes eight bytes at `offset`, taken modulo [`Self::LINE`].
    #[inline(always)]
    pub fn put(&mut self, offset: u32, word: u64) {
        // SAFETY: as in `word`.
        unsafe { self.0.as_mut_ptr().add(within(offset) as usize).cast::<u64>().write_unaligned(word.to_le()) };
    }

    /// Like [`Self::word`], with ASCII letters in lower case.
    #[inline(always)]
    #[must_use]
    pub fn lower_word(&self, offset: u32) -> u64 {
        lower(self.word(offset))
    }

    /// Number of bytes up to and including the first LF within [`Self::LINE`]; 0 if there is none.
    #[inline(always)]
    #[must_use]
    pub fn line_length(&self) -> u32 {
        macro_rules! find {
            ($($at:literal)+) => {
                $(
                    if has_control(self.at::<$at>()) {
                        let newline = through_newline(self.at::<$at>());
                        if newline.found {
                            return bounded::<127>($at + newline.bytes);
                        }
                    }
                )+
            };
        }
        find!(0 8 16 24 32 40 48 56);
        0
    }

    /// Whether a line that starts here is empty: LF, or CR LF (RFC 9112, section 2.2, lets a recipient accept a bare
    /// LF).
    #[inline(always)]
    #[must_use]
    pub const fn is_blank_line(&self) -> bool {
        let word = self.at::<0>();
        word as u8 == b'\n' || word as u16 == u16::from_le_bytes(*b"\r\n")
    }

    /// Offset of the first byte at or after `offset` that is neither space nor tab; stops after eight.
    #[inline(always)]
    #[must_use]
    pub fn skip_blanks(&self, offset: u32) -> u32 {
        let word = self.word(offset);
        // The common case: one space.
        if word as u8 == b' ' && (word >> 8) as u8 > b' ' {
            return within(offset + 1);
        }
        let blanks = all_equal(word, b' ') | all_equal(word, b'\t');
        within(offset + bytes_before_lowest(!blanks & HIGHS))
    }

    /// Parses the decimal number at `offset`: `1*DIGIT` (RFC 9110, section 8.6), at most 16 digits.
    #[inline(always)]
    #[must_use]
    pub fn decimal(&self, offset: u32) -> Decimal {
        let (high, high_digits) = digits8(self.word(offset));
        if high_digits < 8 {
            return Decimal { value: high, digits: high_digits };
        }
        let (low, low_digits) = digits8(self.word(offset + 8));
        // Multiplies by ten to the power of the number of digits, bit by bit.
        let power = |bit: u32, factor: u64| 1 + ((factor - 1) & 0u64.wrapping_sub(u64::from(low_digits) >> bit & 1));
        let value = high * power(0, 10) * power(1, 100) * power(2, 10_000) * power(3, 100_000_000);
        let more = low_digits == 8 && is_digit(self.word(offset + 16) as u8);
        Decimal { value: value + low, digits: if more { 17 } else { 8 + low_digits } }
    }

    /// Parses the chunk size at the start: `1*HEXDIG` (RFC 9112, section 7.1), at most 15 digits. Chunk extensions may
    /// follow, after optional whitespace.
    #[inline(always)]
    #[must_use]
    pub fn hexadecimal(&self) -> Option<u64> {
        let (mut value, mut digits) = hexdigits8(self.at::<0>());
        if digits == 8 {
            let (low, low_digits) = hexdigits8(self.at::<8>());
            if low_digits == 8 {
                return None;
            }
            value = value << (low_digits * 4) | low;
            digits += low_digits;
        }
        let ends = matches!(self.word(digits) as u8, b'\r' | b'\n' | b';' | b' ' | b'\t');
        if ends && digits > 0 { Some(value) } else { None }
    }

    /// Offset after the method at the start: upper-case letters (like all registered methods) and one space, at most 16
    /// bytes in total. 0 if there is none.
    #[inline(always)]
    #[must_use]
    pub fn after_method(&self) -> u32 {
        // Almost all requests use one of these.
        let word = self.at::<0>();
        if word & keep(4) == prefix(b"GET ") {
            return 4;
        }
        if word & keep(5) == prefix(b"POST ") {
            return 5;
        }
        let mut len = method8(self.at::<0>());
        if len == 8 {
            len += method8(self.at::<8>());
        }
        if len == 0 || len == 16 || self.word(len) as u8 != b' ' { 0 } else { within(len + 1) }
    }
}

/// A decimal number parsed by [`Text::decimal`].
pub struct Decimal {
    /// Its value.
    pub value: u64,
    /// Number of its digits; 0 or more than 16 is not a valid length of a message.
    pub digits: u32,
}

/// Up to eight bytes as a word.
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

/// ASCII letters in lower case; `-:/; ` and digits unchanged.
#[inline(always)]
#[must_use]
pub const fn lower(word: u64) -> u64 {
    word | LOWER
}

/// Whether a word may contain an LF: true if a byte is below 11 or above 138. Cheaper than searching for it, and false
/// for most words of a head.
#[inline(always)]
const fn has_control(word: u64) -> bool {
    // A byte from 11 to 138 neither borrows from the next nor keeps its top bit; the lowest byte below 11 gets its own.
    word.wrapping_sub(0x0b * ONES) & HIGHS != 0
}

/// Position of the first LF of a word.
pub struct Newline {
    /// Whether there is one.
    pub found: bool,
    /// Number of bytes up to and including it; 8 if there is none.
    pub bytes: u32,
}

/// Searches for the first LF.
#[inline(always)]
#[must_use]
pub const fn through_newline(word: u64) -> Newline {
    let flags = first_equal(word, b'\n');
    let below = flags.wrapping_sub(1) & !flags;
    Newline { found: flags != 0, bytes: ((below & ONES).wrapping_mul(ONES) >> 56) as u32 }
}

/// 1 if the first byte of a word is a line end or whitespace before it.
#[inline(always)]
#[must_use]
pub const fn trails(word: u64) -> u32 {
    let flags = first_equal(word, b'\r') | first_equal(word, b' ') | first_equal(word, b'\t');
    (flags >> 7) as u32 & 1
}

/// Flags (`0x80`) the bytes of `word` that equal `byte`; exact only for the lowest flagged byte.
#[inline(always)]
const fn first_equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (byte as u64).wrapping_mul(ONES);
    difference.wrapping_sub(ONES) & !difference & HIGHS
}

/// Flags exactly the bytes of `word` that equal `byte`.
#[inline(always)]
#[must_use]
pub const fn all_equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (byte as u64).wrapping_mul(ONES);
    // A byte that differs carries into its own top bit, or has it set.
    !(((difference & !HIGHS) + !HIGHS) | difference) & HIGHS
}

/// Flags exactly the bytes of `word` that lie in `first..=last`, which are ASCII.
#[inline(always)]
const fn in_range(word: u64, first: u8, last: u8) -> u64 {
    let low = word & !HIGHS;
    let (from_first, above_last) = (low + (0x80 - first as u64) * ONES, low + (0x7f - last as u64) * ONES);
    from_first & !above_last & !word & HIGHS
}

/// Number of bytes below the lowest flagged one; 8 if none is.
#[inline(always)]
#[must_use]
pub const fn bytes_before_lowest(flags: u64) -> u32 {
    let below = flags.wrapping_sub(1) & !flags;
    (((below >> 7) & ONES).wrapping_mul(ONES) >> 56) as u32
}

/// The first `count` bytes of a word, moved to the top, with zeros below.
#[inline(always)]
const fn to_top(word: u64, count: u32) -> u64 {
    // All ones, except for a count of 0, for which the shift would do nothing.
    let any = 0u64.wrapping_sub((count as u64 + 7) >> 3);
    (word & any) << ((64 - count * 8) & 63)
}

/// The leading decimal digits of a word: their value and their number.
#[inline(always)]
const fn digits8(word: u64) -> (u64, u32) {
    let digits = word ^ (b'0' as u64 * ONES);
    // A byte above 9 sets its top bit, by itself or by the addition; carries affect only the bytes above it.
    let count = bytes_before_lowest((digits.wrapping_add(0x76 * ONES) | digits) & HIGHS);
    let d = to_top(digits, count);
    let pairs = (d.wrapping_mul(10).wrapping_add(d >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    ((fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff, count)
}

/// Flags exactly the colons of a word that come right after a quote; `last` is the byte before the word.
#[inline(always)]
#[must_use]
pub const fn colons_after_quotes(word: u64, last: u8) -> u64 {
    all_equal(word, b':') & (all_equal(word, b'"') << 8 | ((last == b'"') as u64) << 7)
}

/// Flags exactly the bytes of a word that are digits or blanks.
#[inline(always)]
#[must_use]
pub const fn digits_or_blanks(word: u64) -> u64 {
    in_range(word, b'0', b'9') | all_equal(word, b' ')
}

/// The leading decimal digits of a word: their number, and their value.
#[inline(always)]
#[must_use]
pub const fn leading_digits(word: u64) -> (u32, u64) {
    let (value, digits) = digits8(word);
    (digits, value)
}

/// The three digits after the space at the start of a word, if there is one and there is no fourth digit: `SP 3DIGIT`
/// of a status line (RFC 9112, section 4).
#[inline(always)]
#[must_use]
pub const fn status_code(word: u64) -> Option<u32> {
    let digits = word ^ (b'0' as u64 * ONES);
    // The top bits of the bytes above 9, as in `digits8`: clear for the three, therefore exact for the fourth, where it
    // is set.
    let no_digits = digits.wrapping_add(0x76 * ONES) | digits;
    if word as u8 != b' ' || no_digits & 0x80_8080_8000 != 0x80_0000_0000 {
        return None;
    }
    let [_, hundreds, tens, ones, ..] = digits.to_le_bytes();
    Some(hundreds as u32 * 100 + tens as u32 * 10 + ones as u32)
}

/// The leading hexadecimal digits of a word: their value and their number.
#[inline(always)]
const fn hexdigits8(word: u64) -> (u64, u32) {
    let is_digit = in_range(word, b'0', b'9') | in_range(lower(word), b'a', b'f');
    let count = bytes_before_lowest(!is_digit & HIGHS);
    // A letter has bit 6 set, and its value is its low nibble plus nine.
    let d = to_top((word & (0x0f * ONES)) + ((word >> 6) & ONES) * 9, count);
    let pairs = ((d << 4) + (d >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = ((pairs << 8) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (((fours << 16) + (fours >> 32)) & 0xffff_ffff, count)
}

/// Number of bytes at the start of a word that can belong to a method.
#[inline(always)]
const fn method8(word: u64) -> u32 {
    let can = in_range(word, b'A', b'Z') | all_equal(word, b'-');
    bytes_before_lowest(!can & HIGHS)
}

/// `offset % LINE`, which does not change a valid offset of [`Text`].
#[inline(always)]
#[must_use]
pub fn within(offset: u32) -> u32 {
    bounded::<{ Text::LINE - 1 }>(offset)
}

/// `value & MASK`, for a value that it does not change: the compiler would drop the instruction if it knew that, and
/// the verifier would not know the bound. It also makes the verifier forget the history of the value, so that paths
/// through the parser that differ only in it are merged.
#[inline(always)]
pub(super) fn bounded<const MASK: u32>(value: u32) -> u32 {
    #[cfg(not(target_arch = "bpf"))]
    return value & MASK;
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: an AND without memory access.
        unsafe {
            core::arch::asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack));
        }
        value
    }
}

/// Bytes as they are in a packet: what follows the payload is unspecified.
#[cfg(test)]
pub(super) fn text_of(bytes: &[u8]) -> Text {
    let mut text = Text([0xff; Text::LEN]);
    for (place, byte) in text.0.iter_mut().zip(bytes) {
        *place = *byte;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_ends_with_its_first_line_feed(bytes in "[ -~\r]{0,70}") {
            let bytes = std::format!("{bytes}\n\n").into_bytes();
            let length = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
            let found = text_of(&bytes[..bytes.len().min(Text::LEN)]).line_length() as usize;
            prop_assert_eq!(found, if length <= 64 { length } else { 0 });
        }

        #[test]
        fn decimals_are_read_as_the_standard_library_does(
            value in 0u64..10_000_000_000_000_000, zeros in 0usize..3, at in 0usize..24, after in "[\r\n ;-~]"
        ) {
            let number = std::format!("{}{value}", "0".repeat(zeros));
            let read = text_of(std::format!("{}{number}{after}", "x".repeat(at)).as_bytes()).decimal(at as u32);
            prop_assert_eq!(read.digits as usize, number.len().min(17));
            if number.len() <= 16 {
                prop_assert_eq!(read.value, value);
            }
        }

        #[test]
        fn chunk_sizes_are_read_as_the_standard_library_does(value in 0u64..1 << 60, upper in any::<bool>(), bits in 0u32..60) {
            let value = value >> bits;
            let line = if upper { std::format!("{value:X};ext=1\r\n") } else { std::format!("{value:x}\r\n") };
            prop_assert_eq!(text_of(line.as_bytes()).hexadecimal(), Some(value));
        }

        /// Byte by byte, as the grammar is written.
        #[test]
        fn words_are_read_as_bytes_are(bytes in any::<[u8; 8]>(), likely in "[0-9a-fA-F -]{8}", mix in any::<u8>()) {
            let likely: [u8; 8] = likely.into_bytes().try_into().unwrap();
            let bytes: [u8; 8] = core::array::from_fn(|i| if mix >> i & 1 == 0 { likely[i] } else { bytes[i] });
            let word = u64::from_le_bytes(bytes);
            let leading = |is: fn(u8) -> bool| bytes.iter().take_while(|&&byte| is(byte)).count() as u32;
            prop_assert_eq!(hexdigits8(word).1, leading(|byte| byte.is_ascii_hexdigit()));
            prop_assert_eq!(digits8(word).1, leading(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(method8(word), leading(|byte| byte.is_ascii_uppercase() || byte == b'-'));
            prop_assert_eq!(text_of(&bytes).skip_blanks(0), leading(|byte| byte == b' ' || byte == b'\t'));
        }
    }

    proptest! {
        #[test]
        fn status_codes_are_three_digits(bytes in any::<[u8; 8]>(), likely in " [0-9]{3}[ \r:/0-9][ -~]{3}", mix in any::<u8>()) {
            let likely: [u8; 8] = likely.into_bytes().try_into().unwrap();
            let bytes: [u8; 8] = core::array::from_fn(|i| if mix & 3 != 0 || mix >> i & 1 == 0 { likely[i] } else { bytes[i] });
            let digits = bytes[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let expected = (bytes[0] == b' ' && digits == 3)
                .then(|| core::str::from_utf8(&bytes[1..4]).unwrap().parse::<u32>().unwrap());
            prop_assert_eq!(status_code(u64::from_le_bytes(bytes)), expected);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for line in ["\r\n", "-1\r\n", "x\r\n", ";\r\n", "1234567890123456\r\n", "5\u{1}\r\n", "12345678x\r\n", "5"] {
            assert_eq!(text_of(line.as_bytes()).hexadecimal(), None, "{line:?}");
        }
        assert_eq!(text_of(b"\r\n").decimal(0).digits, 0);
        assert_eq!(text_of(b"12345678901234567\r\n").decimal(0).digits, 17);
    }

    #[test]
    fn methods_end_with_one_space() {
        for (line, target) in
            [("GET /", 4), ("M-SEARCH *", 9), ("OPTIONS /", 8), ("UPDATEREDIRECTS /", 16), ("VERSION-CONTROL x", 16)]
        {
            assert_eq!(text_of(line.as_bytes()).after_method(), target, "{line:?}");
        }
        for line in ["get /", " /", "GET\t/", "GET\r\n", "ABCDEFGHIJKLMNOP /", "\u{e9} /"] {
            assert_eq!(text_of(line.as_bytes()).after_method(), 0, "{line:?}");
        }
    }
}
