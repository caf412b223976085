//! Out-of-order segments: sequence numbers, and the ranges that arrived before the data that precedes them.

/// Maximum number of remembered ranges.
const RANGES: usize = 4;

/// Whether sequence number `a` (or another wrapping number) is after `b` (RFC 9293, section 3.4).
#[inline(always)]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// A range of sequence numbers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
struct Range {
    start: u32,
    /// Equal to `start` if there is no range.
    end: u32,
}

/// The ranges that arrived early; no two of them touch.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct EarlyRanges {
    ranges: [Range; RANGES],
}

impl EarlyRanges {
    /// No ranges: all zero, like new kernel memory.
    pub(super) const NONE: Self = Self { ranges: [Range { start: 0, end: 0 }; RANGES] };

    /// Remembers a range, merged with those that it touches. `next` is the next expected sequence number. If there is
    /// no room, the range is dropped.
    #[inline(always)]
    pub(super) fn keep(&mut self, seq: u32, len: u32, next: u32) {
        let (mut start, mut end) = (seq, seq.wrapping_add(len));
        for range in &mut self.ranges {
            if !after(range.end, next) {
                range.end = range.start;
            }
            if range.start != range.end && !after(start, range.end) && !after(range.start, end) {
                if after(start, range.start) {
                    start = range.start;
                }
                if after(range.end, end) {
                    end = range.end;
                }
                range.end = range.start;
            }
        }
        for range in &mut self.ranges {
            if range.start == range.end {
                *range = Range { start, end };
                return;
            }
        }
    }

    /// Number of bytes from `next` on that arrived early; drops the ranges that `next` has passed.
    #[inline(always)]
    pub(super) fn joins(&mut self, next: u32) -> u32 {
        let mut to = next;
        for range in &mut self.ranges {
            if range.start == range.end {
                continue;
            }
            if !after(range.end, next) {
                range.end = range.start;
            } else if !after(range.start, next) && after(range.end, to) {
                to = range.end;
            }
        }
        to.wrapping_sub(next)
    }
}
