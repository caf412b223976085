//! Segments out of order: sequence numbers, and the ranges that came before what precedes them.

/// Ranges that are remembered.
const RANGES: usize = 4;

/// Whether sequence number `a`, or another number that counts on past its type's end, lies after `b` (RFC 9293, section 3.4).
#[inline(always)]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// A range of sequence numbers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    start: u32,
    /// Equal to `start` where there is none.
    end: u32,
}

/// The ranges that came too early; no two of them touch.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EarlyRanges {
    ranges: [Range; RANGES],
}

impl EarlyRanges {
    /// None: all zero, as new kernel memory is.
    pub(super) const NONE: Self = Self { ranges: [Range { start: 0, end: 0 }; RANGES] };

    /// Keeps a range, together with those that it touches. `next` is what is waited for. Without room it is forgotten.
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

    /// How many bytes from `next` on came early; forgets the ranges that `next` has passed.
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
