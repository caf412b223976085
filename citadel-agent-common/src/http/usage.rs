//! The token counts that a response states about itself.
//!
//! `usage` of OpenAI's and Anthropic's APIs, `timings` of llama.cpp, the counts of Ollama and of TGI: all of them are numbers
//! under keys with well-known names, near the end of a response or of an event. So no JSON is parsed: the last [`TAIL`] bytes are
//! searched for keys that are followed by a number, and those with a known name are kept. Text cannot be mistaken for them,
//! because quotes within a JSON string are escaped: `\"prompt_tokens\":` is no key.
//!
//! Of several numbers for the same key the last one counts: continuous usage, and Anthropic's `message_start` before its
//! `message_delta`.

mod key;

use super::reorder::after;
use super::text::{bounded, bytes_before_lowest, colons_after_quotes, digits_or_blanks, keep, leading_digits};
use super::{Payload, launder};

/// How many bytes at the end of a response or of an event are searched at most.
pub const TAIL: u32 = 896;

/// Rounds of one [`Usage::search_block`]: eight bytes, or fewer up to a number, or the digits of one. Wide, see `events::ROUNDS`.
const ROUNDS: u64 = 8;

/// Blocks of one [`Usage::search`]: enough for [`TAIL`] bytes however many numbers are in them. Wide, likewise.
const BLOCKS: u64 = 64;

/// Larger numbers are not token counts.
const LIMIT: u64 = 1 << 30;

/// No digit of the number has been read.
const NO_DIGIT: u32 = u32::MAX;

/// What was found.
mod mark {
    /// The response's endpoint states usage: it is searched.
    pub(super) const SEARCHED: u32 = 1;
    /// Tokens of the prompt. The same as in [`super::Tokens::known`].
    pub(super) const PROMPT: u32 = super::Tokens::PROMPT;
    /// Generated tokens.
    pub(super) const COMPLETION: u32 = super::Tokens::COMPLETION;
    /// Cached tokens.
    pub(super) const CACHED: u32 = super::Tokens::CACHED;
    /// The prompt excludes cached tokens.
    pub(super) const ADDS: u32 = 16;
    /// There is usage, so timings do not count.
    pub(super) const USAGE: u32 = 32;
    /// There are bytes to search, from `from` to `until`.
    pub(super) const NOTED: u32 = 64;
    /// The response is complete: what it stated is to be reported.
    pub(super) const COMPLETE: u32 = 128;
    /// Its form is Anthropic's: the prompt excludes cached tokens, and there are two counts of these.
    pub(super) const MESSAGES: u32 = super::MESSAGES;
    /// Events with output are searched as well.
    pub(super) const ALL: u32 = super::ALL;
    /// Tokens written to the cache are known.
    pub(super) const CREATED: u32 = 1024;
    /// A piece of a body that is not streamed has come.
    pub(super) const PIECE: u32 = 2048;
    /// And another one: something may have been cut. The next bit, see [`super::Usage::piece`].
    pub(super) const CUT: u32 = 4096;
    /// A part of what was to be searched is missing, so a count may be an older one.
    pub(super) const UNKNOWN: u32 = 8192;
    /// One response before this one that was not reported; there may be several.
    pub(super) const UNREPORTED: u32 = 1 << 16;
}

/// For [`Usage::begin`]: the response is not searched.
pub const NOTHING: u32 = 0;
/// The response is searched.
pub const SEARCHED: u32 = mark::SEARCHED;
/// Likewise, and it is one of Anthropic's API.
pub const MESSAGES: u32 = 256;
/// Likewise, and its events have counts beside output (TGI, SGLang).
pub const ALL: u32 = 512;

/// The token counts of one response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tokens {
    /// Which of them are known.
    pub known: u32,
    /// All tokens of the prompt, including cached ones.
    pub prompt: u32,
    /// Generated tokens.
    pub completion: u32,
    /// Tokens of the prompt that were in the cache.
    pub cached: u32,
}

impl Tokens {
    /// Nothing is known.
    pub const NONE: Self = Self { known: 0, prompt: 0, completion: 0, cached: 0 };
    /// [`Self::prompt`] is known.
    pub const PROMPT: u32 = 2;
    /// [`Self::completion`] is known.
    pub const COMPLETION: u32 = 4;
    /// [`Self::cached`] is known.
    pub const CACHED: u32 = 8;

    /// 1 if one of these is known, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn knows(&self, which: u32) -> u64 {
        (self.known & which != 0) as u64
    }
}

/// The search in the response under way. All zero before it begins.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Usage {
    /// The last eight bytes of text, the newest in the highest byte.
    recent: u64,
    /// The eight bytes before them.
    earlier: u64,
    /// The number so far, or [`NO_DIGIT`].
    value: u32,
    /// See [`key`].
    key: u32,
    /// See [`mark`].
    marks: u32,
    /// Tokens of the prompt, generated ones, cached ones, and those written to the cache.
    counts: [u32; COUNTS],
    /// Sequence number of the first byte to search.
    from: u32,
    /// And that after the last.
    until: u32,
    /// See [`super::launder`].
    scratch: u32,
}

impl Usage {
    /// Before a response.
    pub const NONE: Self = Self {
        recent: 0,
        earlier: 0,
        value: 0,
        key: key::TEXT,
        marks: 0,
        counts: [0; COUNTS],
        from: 0,
        until: 0,
        scratch: 0,
    };

    /// A response begins at sequence number `start`; `search`: [`NOTHING`], or [`SEARCHED`] with more.
    #[inline(always)]
    pub fn begin(&mut self, search: u32, start: u32) {
        let marks = fresh!(self.marks);
        // That of the one before, if it came in the same segment, as with pipelining.
        let unreported = (marks & mark::COMPLETE) / mark::COMPLETE * mark::UNREPORTED;
        self.marks = (marks & !(mark::UNREPORTED - 1)).wrapping_add(unreported) | search;
        self.from = start;
        self.counts[CACHED] = 0;
        self.counts[CREATED] = 0;
        self.skip();
    }

    /// Bytes are left out.
    #[inline(always)]
    const fn skip(&mut self) {
        self.recent = 0;
        self.earlier = 0;
        self.key = key::TEXT;
    }

    /// Notes bytes of an event that may state tokens: up to sequence number `until`, from `from` on or from what is noted already.
    /// Never those before the response, which may be another's in the same segment.
    #[inline(always)]
    pub fn note(&mut self, from: u32, until: u32) {
        if fresh!(self.marks) & mark::NOTED == 0 && after(from, fresh!(self.from)) {
            self.from = from;
        }
        // The end of it is searched.
        if until.wrapping_sub(fresh!(self.from)) > TAIL {
            self.cut();
        }
        self.note_all(until);
    }

    /// What states tokens may be searched in part.
    #[inline(always)]
    pub fn cut(&mut self) {
        self.marks = fresh!(self.marks) | mark::CUT;
    }

    /// What states tokens may be missing: an event in which a chunk ended, or the rest of a stream.
    #[inline(always)]
    pub fn miss(&mut self) {
        self.marks = fresh!(self.marks) | mark::UNKNOWN;
    }

    /// A chunk of a response that is not streamed begins, or its body.
    #[inline(always)]
    pub fn piece(&mut self) {
        const { assert!(mark::CUT == 2 * mark::PIECE) };
        let marks = fresh!(self.marks);
        self.marks = marks | mark::PIECE | (marks & mark::PIECE) << 1;
    }

    /// Notes all bytes of the response up to sequence number `until`.
    #[inline(always)]
    pub fn note_all(&mut self, until: u32) {
        self.until = until;
        self.marks = fresh!(self.marks) | mark::NOTED;
    }

    /// The response is complete with these bytes.
    #[inline(always)]
    pub fn complete(&mut self) {
        self.marks = fresh!(self.marks) | mark::COMPLETE;
    }

    /// Whether there is something to search or to report.
    #[inline(always)]
    #[must_use]
    pub fn is_noted(&self) -> bool {
        let marks = fresh!(self.marks);
        marks & (mark::NOTED | mark::COMPLETE) != 0 || marks >= mark::UNREPORTED
    }

    /// Whether the response is complete, and how many before it were not reported: from now on they count as reported.
    #[inline(always)]
    #[must_use]
    pub fn take_complete(&mut self) -> (bool, u32) {
        let marks = fresh!(self.marks);
        self.marks = marks & (mark::UNREPORTED - 1) & !(mark::COMPLETE | mark::NOTED);
        (marks & mark::COMPLETE != 0, marks / mark::UNREPORTED)
    }

    /// Whether the response is searched.
    #[inline(always)]
    #[must_use]
    pub fn is_searched(&self) -> bool {
        fresh!(self.marks) & mark::SEARCHED != 0
    }

    /// Whether its events with output are searched as well.
    #[inline(always)]
    #[must_use]
    pub fn is_all_searched(&self) -> bool {
        fresh!(self.marks) & mark::ALL != 0
    }

    /// Nothing is known. Not [`Tokens::NONE`]: an atomic addition of a constant 0 becomes an `or`, which Linux before 5.12 refuses.
    #[inline(always)]
    #[must_use]
    pub fn nothing(&mut self) -> Tokens {
        let zero = launder(&mut self.scratch, 0);
        Tokens { known: zero, prompt: zero, completion: zero, cached: zero }
    }

    /// What the response stated, as far as it is certain.
    #[inline(always)]
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let (mut marks, cached) = (fresh!(self.marks), fresh!(self.counts[CACHED]));
        if marks & mark::UNKNOWN != 0 {
            marks &= !(mark::PROMPT | mark::COMPLETION | mark::CACHED);
        }
        // Where a prompt excludes cached tokens, it is too low without them, and a cut may have hidden them.
        let messages = marks & mark::MESSAGES != 0;
        let all = mark::CACHED | if messages { mark::CREATED } else { 0 };
        if marks & mark::CUT != 0 && (messages || marks & mark::USAGE == 0) && marks & all != all {
            marks &= !mark::PROMPT;
        }
        let adds = 0u32.wrapping_sub((marks & mark::ADDS) / mark::ADDS);
        let known = |mark, value| value & 0u32.wrapping_sub((marks & mark) / mark);
        let prompt = fresh!(self.counts[PROMPT]).wrapping_add(cached.wrapping_add(fresh!(self.counts[CREATED])) & adds);
        Tokens {
            known: marks & (mark::PROMPT | mark::COMPLETION | mark::CACHED),
            prompt: known(mark::PROMPT, prompt),
            completion: known(mark::COMPLETION, fresh!(self.counts[COMPLETION])),
            cached: known(mark::CACHED, cached),
        }
    }

    /// Searches what is noted in a segment with `len` bytes of payload from `seq` on: its end, if it is long.
    #[inline(always)]
    pub fn search<P: Payload>(&mut self, payload: &mut P, seq: u32, len: u32) {
        if fresh!(self.marks) & mark::NOTED == 0 {
            return;
        }
        // Earlier bytes are not in this segment.
        let from = fresh!(self.from).wrapping_sub(seq);
        let from = launder(&mut self.scratch, if from < len { from } else { 0 });
        let until = fresh!(self.until).wrapping_sub(seq);
        let until = launder(&mut self.scratch, if until < len { until } else { len });
        let len = launder(&mut self.scratch, until.wrapping_sub(from));
        let mut used = if len > TAIL { len.wrapping_sub(TAIL) } else { 0 };
        if used != 0 {
            self.skip();
            // What is left out may be the rest of what states them.
            if fresh!(self.marks) & (mark::PROMPT | mark::COMPLETION | mark::CACHED) != 0 {
                self.cut();
            }
        }
        for _ in 0..BLOCKS {
            used = launder(&mut self.scratch, used);
            let left = len.wrapping_sub(used);
            if left == 0 || left > TAIL {
                break;
            }
            let taken = payload.search(self, from.wrapping_add(used), left);
            if taken == 0 {
                break;
            }
            used = used.wrapping_add(taken);
        }
        self.from = fresh!(self.until);
    }

    /// Searches a block of the `left` bytes from `from` on. Returns how many it took.
    #[inline(always)]
    pub fn search_block<P: Payload>(&mut self, payload: &mut P, from: u32, left: u32) -> u32 {
        let mut used = 0;
        for _ in 0..ROUNDS {
            used = launder(&mut self.scratch, used);
            let left = left.wrapping_sub(used);
            if left == 0 || left > TAIL {
                break;
            }
            let Some(text) = payload.text(from.wrapping_add(used)) else { return 0 };
            let word = text.at::<0>();
            let most = launder(&mut self.scratch, if left < 8 { left } else { 8 });
            let taken = if fresh!(self.key) == key::TEXT { self.text(word, most) } else { self.number(word, most) };
            used = used.wrapping_add(taken);
        }
        used
    }

    /// Of the `most` bytes of a word, takes those before a number. Returns how many.
    // Not inlined, for the reason in `conn/observe.rs`.
    #[inline(never)]
    fn text(&mut self, word: u64, most: u32) -> u32 {
        let (recent, earlier) = (fresh!(self.recent), fresh!(self.earlier));
        // What follows the colon after a key.
        let ends = colons_after_quotes(word, (recent >> 56) as u8);
        let after = ends << 8 | u64::from((recent >> 48) as u16 == u16::from_le_bytes(*b"\":")) << 7;
        let before = bytes_before_lowest(after & digits_or_blanks(word));
        let found = before < most;
        let used = launder(&mut self.scratch, if found { before } else { most });
        let (mut recent, mut earlier) = (recent, earlier);
        if used != 0 {
            let bits = used * 8;
            // In two shifts, since none is by 64 bits.
            earlier = (earlier >> (bits - 1) >> 1) | recent << (64 - bits);
            recent = (recent >> (bits - 1) >> 1) | (word & keep(used)) << (64 - bits);
        }
        if found {
            self.key = key::of(recent, earlier);
            self.value = NO_DIGIT;
            (recent, earlier) = (0, 0);
        }
        (self.recent, self.earlier) = (recent, earlier);
        used
    }

    /// Of the `most` bytes of a word, takes the digits of a number, or a blank before it. Returns how many.
    // Likewise.
    #[inline(never)]
    fn number(&mut self, word: u64, most: u32) -> u32 {
        let before = fresh!(self.value);
        if before != NO_DIGIT {
            // Split between segments, or longer than a word: digit by digit.
            let digit = (word as u8).wrapping_sub(b'0');
            if digit < 10 {
                let value = u64::from(before) * 10 + u64::from(digit);
                self.value = if value > LIMIT { LIMIT } else { value } as u32;
                return 1;
            }
            return self.number_ends(word as u8, before, 0);
        }
        if word as u8 == b' ' {
            return 1;
        }
        let (digits, value) = leading_digits(word & keep(most));
        if digits == 0 {
            self.key = key::TEXT;
        } else if digits < most {
            return self.number_ends((word >> (digits * 8)) as u8, value as u32, digits);
        } else {
            self.value = value as u32;
        }
        digits
    }

    /// Keeps a number that this byte follows. Returns `digits`.
    #[inline(always)]
    fn number_ends(&mut self, next: u8, value: u32, digits: u32) -> u32 {
        let key = fresh!(self.key) as usize & (KEYS - 1);
        self.key = key::TEXT;
        let (marks, keeps) = (fresh!(self.marks), MARKS[key]);
        let (timed, usage) = (keeps & mark::USAGE == 0, marks & mark::USAGE != 0);
        // Before a CR, a chunk may end within the number.
        if key <= key::OTHER as usize || u64::from(value) == LIMIT || next == b'\r' || (timed && usage) {
            return digits;
        }
        if !timed && !usage {
            self.marks = marks & !(mark::PROMPT | mark::COMPLETION | mark::CACHED | mark::ADDS);
            self.counts[CACHED] = 0;
        }
        self.marks = fresh!(self.marks) | keeps;
        const { assert!(COUNTS == 4) };
        // SAFETY: one of the four. A checked index would be a call that the programs cannot make.
        unsafe { *self.counts.as_mut_ptr().add(bounded::<3>(PLACES[key]) as usize) = value };
        digits
    }
}

/// Where counts are kept: indices into [`Usage::counts`].
const PROMPT: usize = 0;
const COMPLETION: usize = 1;
const CACHED: usize = 2;
const CREATED: usize = 3;
/// How many there are.
const COUNTS: usize = 4;

/// Number of keys, as a power of two.
const KEYS: usize = 16;

/// By key, where its number is kept.
static PLACES: [u32; KEYS] = {
    let mut places = [PROMPT as u32; KEYS];
    (places[key::COMPLETION as usize], places[key::TIMED_COMPLETION as usize]) = (COMPLETION as u32, COMPLETION as u32);
    (places[key::CACHED as usize], places[key::TIMED_CACHED as usize]) = (CACHED as u32, CACHED as u32);
    (places[key::READ as usize], places[key::CREATED as usize]) = (CACHED as u32, CREATED as u32);
    places
};

/// By key, what is known with its number.
static MARKS: [u32; KEYS] = {
    use mark::{ADDS, CACHED, COMPLETION, CREATED, PROMPT, USAGE};
    let mut marks = [0; KEYS];
    marks[key::PROMPT as usize] = USAGE | PROMPT;
    marks[key::COMPLETION as usize] = USAGE | COMPLETION;
    marks[key::CACHED as usize] = USAGE | CACHED;
    marks[key::READ as usize] = USAGE | CACHED | ADDS;
    marks[key::CREATED as usize] = USAGE | ADDS | CREATED;
    marks[key::TIMED_PROMPT as usize] = PROMPT | ADDS;
    marks[key::TIMED_COMPLETION as usize] = COMPLETION | ADDS;
    marks[key::TIMED_CACHED as usize] = CACHED | ADDS;
    marks
};
