//! The requests of a connection that have arrived and have no complete response: a queue of packed entries.

use super::framer::flag;

/// Maximum number of outstanding requests of one connection (pipelining, RFC 9112, section 9.3.2); a power of two.
pub const PIPELINE: usize = 16;

/// A request in two words, written by ingress only. Each holds a time and, in its lowest byte, what else there is to say: so one
/// store fills in a word, and a reader on another CPU can tell from the word alone whether it is of the expected request. No
/// counter has to move between the CPUs' caches.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct Place {
    /// When the request's first byte arrived, and the lowest byte of the request's number on its connection, which starts at 1.
    pub(super) first: Stamp,
    /// When its last byte so far arrived, and its properties. Written once its request line is complete, and after `first`.
    pub(super) last: Stamp,
}

impl Place {
    /// Empty: all zero, like new kernel memory.
    pub(super) const EMPTY: Self = Self { first: Stamp(0), last: Stamp(0) };

    /// An [`crate::abi::Endpoint`].
    #[inline(always)]
    pub(super) const fn endpoint(self) -> u32 {
        self.last.mark() & ENDPOINT
    }

    /// `flag::HEAD` and `flag::CONNECT` of the framer.
    #[inline(always)]
    pub(super) const fn asked(self) -> u32 {
        (self.last.mark() >> ASKED_SHIFT) & flag::ASKED
    }

    /// Whether its last byte has arrived.
    #[inline(always)]
    pub(super) const fn is_complete(self) -> bool {
        self.last.mark() & COMPLETE != 0
    }
}

/// The properties of a request, for [`Place::last`].
#[inline(always)]
pub(super) const fn mark(number: u32, endpoint: u32, flags: u32, complete: u32) -> u32 {
    endpoint & ENDPOINT | (flags & flag::ASKED) << ASKED_SHIFT | complete | generation(number)
}

/// The place of request `number` is used by every [`PIPELINE`]th one. The bit that tells a request from the one before it.
#[inline(always)]
pub(super) const fn generation(number: u32) -> u32 {
    // Number 1 differs from an empty place.
    (((number.wrapping_sub(1) / PIPELINE as u32) & 1) ^ 1) << 7
}

/// Mask of the endpoint.
const ENDPOINT: u32 = 15;
const ASKED_SHIFT: u32 = 4;
/// The request's last byte has arrived.
pub(super) const COMPLETE: u32 = 1 << 6;
/// Mask of [`generation`].
pub(super) const GENERATION: u32 = 1 << 7;

const _: () = assert!(crate::abi::ENDPOINTS <= ENDPOINT as usize + 1 && flag::ASKED << ASKED_SHIFT < COMPLETE);

/// A time of `CLOCK_MONOTONIC` in nanoseconds, modulo 2^56 (two years), and a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct Stamp(u64);

impl Stamp {
    /// `mark` has eight bits.
    #[inline(always)]
    pub(super) const fn new(ns: u64, mark: u32) -> Self {
        Self(ns << 8 | mark as u64)
    }

    /// The byte.
    #[inline(always)]
    pub(super) const fn mark(self) -> u32 {
        self.0 as u8 as u32
    }

    /// Nanoseconds from this time until `now`, which is less than a year away; 0 if `now` is before it.
    #[inline(always)]
    pub(super) const fn until(self, now: u64) -> u64 {
        let since = (now << 8).wrapping_sub(self.0 & !0xff);
        if (since as i64) < 0 { 0 } else { since >> 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_over_months_and_across_the_end_of_their_range() {
        for start in [0, 1, 123_456_789_012_345, (1 << 56) - 1, (1 << 56) + 5, u64::MAX >> 1] {
            let stamp = Stamp::new(start, 0xa5);
            assert_eq!(stamp.mark(), 0xa5);
            for later in [0, 1, 999, 4_300_000_000, 78 * 3_600 * 1_000_000_000, 300 * 86_400 * 1_000_000_000] {
                assert_eq!(stamp.until(start + later), later, "{start} + {later}");
            }
            assert_eq!(stamp.until(start.wrapping_sub(1)), 0, "before {start}");
        }
    }

    #[test]
    fn a_place_holds_what_it_was_given() {
        for number in 1..100 {
            let flags = flag::HEAD | flag::CONNECT | flag::CHUNKED | flag::SPEAKS_HTTP;
            let place = Place { first: Stamp::new(7, 1), last: Stamp::new(9, mark(number, 13, flags, COMPLETE)) };
            assert_eq!((place.endpoint(), place.asked(), place.is_complete()), (13, flag::ASKED, true));
            assert_ne!(generation(number), generation(number + PIPELINE as u32), "it tells {number} from the next one");
            let place = Place { last: Stamp::new(9, mark(number, 2, flag::HEAD, 0)), ..place };
            assert_eq!((place.endpoint(), place.asked(), place.is_complete()), (2, flag::HEAD, false));
        }
        assert_ne!(generation(1), 0, "an empty place holds no request");
    }
}
