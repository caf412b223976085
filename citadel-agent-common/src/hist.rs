//! Histogram buckets: schema 3 of Prometheus native histograms, in integer arithmetic.
//!
//! A bucket's upper bound is `2^(index/8)` seconds, inclusive, as in the [native histogram
//! specification](https://prometheus.io/docs/specs/native_histograms/). eBPF has no floating point, so a duration is
//! first converted to units of 2^-30 s and then assigned to a bucket by integer comparisons. The kernel and userspace
//! use this one function; tests compare it with floating point over the whole range.

/// Native-histogram schema: `2^3` buckets per power of two.
pub const SCHEMA: i32 = 3;

/// Log2 of the zero threshold in seconds: durations up to `2^-20` s (0.95 us) are in the zero bucket.
pub const ZERO_THRESHOLD_LOG2: i32 = -20;

/// Cells of a [`Histogram`]: the zero bucket, [`BUCKETS`] exponential buckets, and the sum.
pub const CELLS: usize = 256;

/// Exponential buckets: indices [`FIRST_INDEX`] ..= [`LAST_INDEX`].
pub const BUCKETS: usize = CELLS - 2;

/// Native index of cell 1, the first bucket above the zero threshold.
pub const FIRST_INDEX: i32 = ZERO_THRESHOLD_LOG2 * 8 + 1;

/// Native index of the last bucket, which also contains everything longer (upper bound 2^11.75 s, 57 minutes).
pub const LAST_INDEX: i32 = FIRST_INDEX + BUCKETS as i32 - 1;

/// The cell that holds the sum of all observations, in nanoseconds.
pub const SUM_CELL: usize = CELLS - 1;

/// Counts and sum of one latency distribution, in the layout that the eBPF programs update.
///
/// Cell 0 is the zero bucket, cells `1..=254` are native buckets from [`FIRST_INDEX`] on, and cell 255 is the sum in
/// nanoseconds. 2 KiB, so that a power-of-two mask bounds every index.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Histogram {
    /// The cells, see the type's own documentation.
    pub cells: [u64; CELLS],
}

impl Histogram {
    /// A histogram without observations.
    pub const EMPTY: Self = Self { cells: [0; CELLS] };

    /// Adds one observation (in userspace and tests; eBPF programs add atomically to the same cells).
    pub fn observe(&mut self, ns: u64) {
        self.cells[cell(ns)] += 1;
        self.cells[SUM_CELL] += ns;
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells[..SUM_CELL].iter().sum()
    }

    /// Sum of all observations in their own unit: nanoseconds, or tokens.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.cells[SUM_CELL]
    }

    /// Adds one observation of a number of tokens.
    pub fn observe_tokens(&mut self, tokens: u32) {
        self.cells[cell_of_tokens(tokens)] += 1;
        self.cells[SUM_CELL] += u64::from(tokens);
    }

    /// Sum of all observations in nanoseconds.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.cells[SUM_CELL]
    }

    /// Observations up to `2^(index/8)` seconds, for the classic bucket with that bound.
    ///
    /// Exact from the zero threshold to the last native bucket's lower bound, because classic bounds are a subset of
    /// the native ones.
    #[must_use]
    pub fn cumulative_to(&self, index: i32) -> u64 {
        let last = (index - FIRST_INDEX + 1).clamp(0, BUCKETS as i32) as usize;
        self.cells[..=last].iter().sum()
    }
}

/// `floor(2^(63 + j/8))`: the bounds of the eight buckets of a power of two, for a value whose top bit is bit 63.
const EIGHTHS: [u64; 8] = [
    0x8000_0000_0000_0000,
    0x8b95_c1e3_ea8b_d6e6,
    0x9837_f051_8db8_a96f,
    0xa5fe_d6a9_b151_38ea,
    0xb504_f333_f9de_6484,
    0xc567_2a11_5506_dadd,
    0xd744_fcca_d69d_6af4,
    0xeac0_c6e7_dd24_392e,
];

/// Number of leading zeros of a byte.
static LEADING_ZEROS: [u8; 256] = {
    let mut zeros = [0; 256];
    let mut byte = 1;
    while byte < zeros.len() {
        zeros[byte] = (byte as u8).leading_zeros() as u8;
        byte += 1;
    }
    zeros
};

/// In [`PARTS`]: the number of bounds below the part.
const PART_BASE: u64 = 15;

/// Splits a power of two whose top bit is bit 62 into 64 parts: the bucket bound that lies in the part, or more than
/// any value, and in its low bits the number of bounds before it. (Values have zeros in these bits, so the comparison
/// is unaffected.) A part is narrower than a bucket.
static PARTS: [u64; 64] = {
    let mut parts = [0; 64];
    let (mut part, mut before) = (0, 0);
    while part < parts.len() {
        let next = (65 + part as u64) << 56;
        let inside = before < 8 && EIGHTHS[before] >> 1 < next;
        let end = if inside { EIGHTHS[before] >> 1 } else { u64::MAX >> 1 };
        parts[part] = (end & !PART_BASE) | before as u64;
        before += inside as usize;
        part += 1;
    }
    parts
};

/// Longer durations are recorded as this one: it is in the last bucket, and the conversion does not overflow.
const MAX_NS: u64 = 3_400_000_000_000;

/// `(2^30 / 10^9 - 1) * 2^26`, rounded down: `ns + (ns * this >> 26)` is a duration in units of 2^-30 s, never above
/// the exact value, and below it by at most one unit plus 5e-10 of it. So a round number of seconds stays in the bucket
/// whose bound it is. (A plain `ns * 1125900 >> 20` rounds up and puts exactly 1 s above the 1 s bound.)
const NS_TO_UNITS: u64 = 4_948_730;

/// The cell of [`Histogram::cells`] for an observation of `ns` nanoseconds; always below [`SUM_CELL`].
///
/// Has no branch after the first one: the verifier follows every path separately, and branches here would create five
/// hundred of them for each observation in each step of the parser.
#[inline(always)]
#[must_use]
pub fn cell(ns: u64) -> usize {
    let ns = if ns > MAX_NS { MAX_NS } else { ns };
    cell_of_units(ns + ((ns * NS_TO_UNITS) >> 26))
}

/// The cell for `tokens` tokens, at most `MAX_TOKENS` of which are told apart: a token is one zero threshold, `2^10` units.
#[inline(always)]
#[must_use]
pub fn cell_of_tokens(tokens: u32) -> usize {
    cell_of_units(u64::from(if tokens > MAX_TOKENS { MAX_TOKENS } else { tokens }) << 10)
}

/// More tokens are recorded as this many.
const MAX_TOKENS: u32 = 1 << 30;

/// The cell for units of 2^-30 s, fewer than 2^42 of them.
#[inline(always)]
fn cell_of_units(units: u64) -> usize {
    // The zero bucket ends at 2^-20 s = 2^10 units.
    if units <= 1 << 10 {
        return 0;
    }
    // Position of the top bit, by halving and a table: the target has no count-leading-zeros instruction. At the end
    // `norm` has its top bit at 62, so that differences fit. The position is one of the 32 from 10 on.
    let mut norm = units << 21;
    let mut top = 41;
    let mut width = 16;
    while width > 4 {
        // Does the value fit below the upper `width` of 63 bits?
        let shift = below(norm, 1 << (63 - width)) * width;
        norm <<= shift;
        top -= shift;
        width >>= 1;
    }
    let shift = u64::from(LEADING_ZEROS[(norm >> 55) as usize & 255]);
    norm <<= shift;
    top -= shift;
    // ceil(8 * log2(units)) = 8 * top + the number of bucket bounds below the value: those below its part, plus the one
    // in its part.
    let part = PARTS[(norm >> 56) as usize & 63];
    let index = 8 * top + (part & PART_BASE) + below(part, norm);
    // Units are 2^-30 s, so this is the native index plus 240, and cell 1 has native index -159.
    (index - (240 + FIRST_INDEX - 1) as u64) as usize
}

/// 1 if `a < b`, else 0, for values below 2^63.
#[cfg(not(target_arch = "bpf"))]
const fn below(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) >> 63
}

/// 1 if `a < b`, else 0, for values below 2^63. In assembly, because the compiler would generate a comparison and a
/// branch.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn below(a: u64, b: u64) -> u64 {
    let mut difference = a;
    // SAFETY: arithmetic on registers only.
    unsafe {
        core::arch::asm!(
            "{0} -= {1}", "{0} >>= 63",
            inout(reg) difference, in(reg) b, options(pure, nomem, nostack)
        );
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn eighths_are_the_eighth_roots_of_two() {
        for (j, &bound) in EIGHTHS.iter().enumerate() {
            let exact = 2f64.powf(63.0 + j as f64 / 8.0);
            assert!((bound as f64 - exact).abs() / exact < 1e-15, "eighth {j}");
        }
    }

    #[test]
    fn the_first_bucket_begins_above_the_zero_threshold() {
        assert_eq!(cell(0), 0);
        assert_eq!(cell(953), 0, "953 ns are below 2^-20 s = 953.67 ns");
        assert_eq!(cell(955), 1);
        assert_eq!(FIRST_INDEX, -159);
        assert_eq!(LAST_INDEX, 94);
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        assert_eq!(cell(4_000_000_000_000), BUCKETS);
        assert_eq!(cell(u64::MAX), BUCKETS);
    }

    #[test]
    fn one_second_is_in_the_bucket_that_ends_at_one_second() {
        // Index 0 has upper bound 2^0 s, inclusive.
        assert_eq!(cell(1_000_000_000) as i32, 1 - FIRST_INDEX);
        assert_eq!(cell(1_000_000_002), (2 - FIRST_INDEX) as usize);
    }

    #[test]
    fn tokens_are_in_the_bucket_that_ends_at_their_number() {
        assert_eq!([0, 1].map(cell_of_tokens), [0, 0]);
        // Cell i ends at 2^(i/8) tokens.
        let cell = |tokens: u32| (8.0 * f64::from(tokens).log2()).ceil() as usize;
        for tokens in (2..5000).chain((13..30).flat_map(|octave| [1 << octave, (1 << octave) + 1])) {
            assert_eq!(cell_of_tokens(tokens), cell(tokens), "{tokens}");
        }
        assert_eq!(cell_of_tokens(u32::MAX), 8 * 30);
    }

    #[test]
    fn classic_buckets_are_sums_of_native_ones() {
        let mut histogram = Histogram::EMPTY;
        for ns in [500, 400_000_000, 1_000_000_000, 1_100_000_000, 2_500_000_000] {
            histogram.observe(ns);
        }
        assert_eq!(histogram.cumulative_to(-20 * 8), 1);
        assert_eq!(histogram.cumulative_to(-8), 2);
        assert_eq!(histogram.cumulative_to(0), 3);
        assert_eq!(histogram.cumulative_to(8), 4);
        assert_eq!(histogram.cumulative_to(80), 5);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum_ns(), 5_000_000_500);
    }

    proptest! {
        /// Log-uniform over the whole range: the bucket's bounds hold the value, up to the conversion's rounding.
        #[test]
        fn bounds_hold_the_value_in_floating_point(exponent in 0.0f64..44.0) {
            let ns = 2f64.powf(exponent) as u64;
            let seconds = ns as f64 * 1e-9;
            let cell = cell(ns);
            let slack = 1e-9 + seconds * 1e-9;
            if cell == 0 {
                prop_assert!(seconds <= 2f64.powi(-20) + slack);
            } else {
                let index = cell as i32 - 1 + FIRST_INDEX;
                let (lower, upper) = (2f64.powf(f64::from(index - 1) / 8.0), 2f64.powf(f64::from(index) / 8.0));
                prop_assert!(seconds > lower - slack, "{ns} ns is at or below bucket {index}");
                prop_assert!(seconds <= upper + slack || cell == BUCKETS, "{ns} ns is above bucket {index}");
            }
        }

        #[test]
        fn longer_is_never_in_an_earlier_bucket(ns in 0u64..5_000_000_000_000, more in 0u64..1_000_000_000_000) {
            prop_assert!(cell(ns) <= cell(ns + more));
        }
    }
}
