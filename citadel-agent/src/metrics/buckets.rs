//! Latency distributions in Prometheus' form: classic buckets and native spans, both computed from the same cells.

use std::f64::consts::SQRT_2;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use citadel_agent_common::hist::{BUCKETS, FIRST_INDEX, Histogram, SUM_CELL, ZERO_THRESHOLD_LOG2};

use super::catalogue::Desc;

/// The classic buckets of a histogram, chosen by the range of its values. Native buckets are the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Buckets {
    /// Requests and parts of them: two per power of two from 1 ms to 64 s, the range in which limits are set.
    Requests,
    /// Waits in the kernel, mostly shorter than a millisecond.
    Queues,
    /// TCP round trips, always well below 16 s.
    RoundTrips,
    /// Calls, with many series per host: one per power of two.
    Calls,
    /// Tokens of requests. Their native buckets are those of durations, moved: one token is what the zero threshold is there.
    Tokens,
}

/// Bounds as native indices (eighths of a power of two, 0 is 1 s or 1 token): a range and the step within it.
type Part = (RangeInclusive<i32>, usize);

/// Steps of a factor of 2, and of the square root of 2.
const OCTAVE: usize = 8;
const HALF: usize = 4;

impl Buckets {
    /// All variants, in the order of their discriminants.
    pub(crate) const ALL: [Self; 5] = [Self::Requests, Self::Queues, Self::RoundTrips, Self::Calls, Self::Tokens];

    /// By how much the native indices of values differ from those of the histogram's cells.
    const fn shift(self) -> i32 {
        match self {
            Self::Tokens => -8 * ZERO_THRESHOLD_LOG2,
            _ => 0,
        }
    }

    /// How much of the sum's unit is 1: sums of durations are in nanoseconds.
    const fn sum_unit(self) -> f64 {
        match self {
            Self::Tokens => 1.0,
            _ => 1e9,
        }
    }

    /// How many times larger a cell's bounds are than those of a duration in seconds.
    #[must_use]
    pub fn scale(self) -> f64 {
        f64::from(self.shift() / 8).exp2()
    }

    /// Upper bound of the zero bucket.
    #[must_use]
    pub fn zero_threshold(self) -> f64 {
        f64::from(ZERO_THRESHOLD_LOG2).exp2() * self.scale()
    }

    /// Native index of the histogram's first cell after the zero bucket.
    #[must_use]
    pub const fn first_index(self) -> i32 {
        FIRST_INDEX + self.shift()
    }

    /// Sum of all observations, in seconds or tokens.
    #[must_use]
    pub fn sum(self, histogram: &Histogram) -> f64 {
        histogram.sum() as f64 / self.sum_unit()
    }

    /// Observations up to `bound`, which must be that of a native bucket.
    #[must_use]
    pub fn cumulative_to(self, histogram: &Histogram, bound: f64) -> u64 {
        match bound.is_finite() {
            true => histogram.cumulative_to((bound.log2() * 8.0).round() as i32 - self.shift()),
            false => histogram.count(),
        }
    }

    /// The finite bounds; in comments, in seconds or tokens.
    const fn parts(self) -> [Part; 3] {
        match self {
            // 61 us and 244 us; 0.98 ms to 64 s; 256 s and 1024 s.
            Self::Requests => [(-112..=-96, 2 * OCTAVE), (-80..=48, HALF), (64..=80, 2 * OCTAVE)],
            // 0.95 us to 488 us; the rest as above.
            Self::Queues => [(-160..=-88, OCTAVE), (-80..=48, HALF), (64..=80, 2 * OCTAVE)],
            // 15 us to 488 us; 0.98 ms to 1 s; 2 s to 8 s.
            Self::RoundTrips => [(-128..=-88, OCTAVE), (-80..=0, HALF), (8..=24, OCTAVE)],
            // 0.95 us to 488 us; 0.98 ms to 64 s; 256 s and 1024 s.
            Self::Calls => [(-160..=-88, OCTAVE), (-80..=48, OCTAVE), (64..=80, 2 * OCTAVE)],
            // 1 to 8; 16 to 32,768; 65,536 to 1,048,576.
            Self::Tokens => [(0..=24, OCTAVE), (32..=120, HALF), (128..=160, OCTAVE)],
        }
    }

    /// The bounds, for the documents.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Requests => "61 us, 244 us; two per power of two from 0.98 ms (2^-10 s) to 64 s; 256 s, 1024 s",
            Self::Queues => {
                "powers of two from 0.95 us (2^-20 s), two per power of two from 0.98 ms (2^-10 s) to 64 s; 256 s, 1024 s"
            }
            Self::RoundTrips => {
                "powers of two from 15 us (2^-16 s), two per power of two from 0.98 ms (2^-10 s) to 1 s, powers of two to 8 s"
            }
            Self::Calls => "powers of two from 0.95 us (2^-20 s) to 64 s; 256 s, 1024 s",
            Self::Tokens => "powers of two from 1 to 1048576 tokens, two per power of two from 16 to 32768",
        }
    }

    /// Upper bounds in seconds or tokens, inclusive; the last one is infinite.
    #[must_use]
    pub fn bounds(self) -> &'static [f64] {
        &self.classic().bounds
    }

    /// The buckets in the form that the encoders need.
    pub(crate) fn classic(self) -> &'static Classic {
        static CLASSIC: LazyLock<[Classic; Buckets::ALL.len()]> = LazyLock::new(|| Buckets::ALL.map(Classic::new));
        &CLASSIC[self as usize]
    }
}

/// The classic buckets of a metric; those of requests if it is unknown or not a histogram.
pub(crate) fn classic(desc: Option<&Desc>) -> &'static Classic {
    desc.and_then(|desc| desc.buckets).unwrap_or(Buckets::Requests).classic()
}

/// Classic buckets, including +Inf.
#[derive(Debug)]
pub(crate) struct Classic {
    /// Which.
    pub(crate) buckets: Buckets,
    /// Upper bounds in seconds or tokens, inclusive; the last one is infinite.
    pub(crate) bounds: Vec<f64>,
    /// The bounds as values of the label `le`.
    ///
    /// Reading protobuf, Prometheus formats the number with Go's `%g` and `.0` after whole numbers (also the canonical
    /// form of OpenMetrics), but up to version 2 it takes the label from a text page as written. Only if all formats
    /// agree does a series stay the same when native histograms are enabled or disabled in Prometheus.
    pub(crate) le: Vec<String>,
    /// For each bucket, the index after its last cell.
    ends: Vec<usize>,
}

impl Classic {
    fn new(buckets: Buckets) -> Self {
        let indices: Vec<_> = buckets.parts().into_iter().flat_map(|(range, step)| range.step_by(step)).collect();
        let mut bounds: Vec<_> = indices.iter().copied().map(bound).collect();
        bounds.push(f64::INFINITY);
        // Cell 1 is the first index.
        let first = buckets.first_index();
        let mut ends: Vec<_> = indices.iter().map(|index| (index - first + 2).unsigned_abs() as usize).collect();
        ends.push(SUM_CELL);
        Self { buckets, le: bounds.iter().copied().map(canonical).collect(), bounds, ends }
    }

    /// Number of series of a histogram: buckets, sum and count.
    pub(crate) fn series(&self) -> usize {
        self.ends.len() + 2
    }

    /// Observations up to each bound; exact, because each bound is also a native one.
    pub(crate) fn cumulative(&self, histogram: &Histogram) -> impl Iterator<Item = u64> {
        let (mut next, mut count) = (0, 0);
        self.ends.iter().map(move |&end| {
            count += histogram.cells[next..end].iter().sum::<u64>();
            next = end;
            count
        })
    }
}

/// `2^(index/8)`, for multiples of 4.
fn bound(index: i32) -> f64 {
    let octave = f64::from(index.div_euclid(8)).exp2();
    if index.rem_euclid(8) == 4 { octave * SQRT_2 } else { octave }
}

/// A positive number as Go's `strconv.FormatFloat(bound, 'g', -1, 64)`, whole numbers with `.0`.
fn canonical(bound: f64) -> String {
    if bound.is_infinite() {
        return "+Inf".to_owned();
    }
    if bound >= 1e-4 {
        return format!("{bound:?}");
    }
    // Go writes at least two digits of exponent.
    let exponential = format!("{bound:e}");
    match exponential.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => exponential,
    }
}

/// A run of native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Empty buckets since the last span; for the first span, the index of its first bucket.
    pub(crate) offset: i32,
    /// Buckets in the run.
    pub(crate) length: u32,
}

/// Gaps of up to this many empty buckets are written out, because a new span costs more bytes.
const MAX_GAP: usize = 2;

/// The non-empty native buckets, each count as the difference to the previous one.
///
/// See [the specification](https://prometheus.io/docs/specs/native_histograms/#buckets).
pub(crate) fn native(buckets: Buckets, histogram: &Histogram) -> (Vec<Span>, Vec<i64>) {
    let counts = &histogram.cells[1..=BUCKETS];
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    let (mut next, mut previous) = (0, 0i64);
    for (i, _) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let first = match spans.last_mut() {
            Some(span) if i - next <= MAX_GAP => {
                span.length += (i + 1 - next) as u32;
                next
            }
            last => {
                let offset = if last.is_none() { i as i32 + buckets.first_index() } else { (i - next) as i32 };
                spans.push(Span { offset, length: 1 });
                i
            }
        };
        for &count in &counts[first..=i] {
            deltas.push(count as i64 - previous);
            previous = count as i64;
        }
        next = i + 1;
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::Kind;
    use proptest::prelude::*;

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        let le = &Buckets::Queues.classic().le;
        assert_eq!(le[0], "9.5367431640625e-07");
        assert_eq!(le[6], "6.103515625e-05");
        assert_eq!(le[10], "0.0009765625");
        assert_eq!(le[11], "0.0013810679320049757");
        let le = &Buckets::Requests.classic().le;
        assert_eq!(le[..3], ["6.103515625e-05", "0.000244140625", "0.0009765625"]);
        assert_eq!(le[le.len() - 5..], ["45.254833995939045", "64.0", "256.0", "1024.0", "+Inf"]);
    }

    #[test]
    fn every_histogram_has_buckets_that_rise() {
        for desc in crate::metrics::catalogue::all() {
            assert_eq!(desc.buckets.is_some(), desc.kind == Kind::Histogram, "{}", desc.name);
        }
        for buckets in Buckets::ALL {
            assert!(buckets.bounds().is_sorted_by(|a, b| a < b), "{buckets:?}");
            assert!(buckets.classic().ends.is_sorted_by(|a, b| a < b), "{buckets:?}");
        }
    }

    /// From 1 ms to 60 s: what a quantile says is at most the square root of two off.
    #[test]
    fn requests_have_two_buckets_an_octave() {
        let bounds = Buckets::Requests.bounds();
        let within: Vec<_> = bounds.windows(2).filter(|pair| pair[0] >= 0.0009 && pair[1] <= 64.0).collect();
        assert_eq!(within.len(), 32);
        assert!(within.iter().all(|pair| (pair[1] / pair[0] - SQRT_2).abs() < 1e-9), "{within:?}");
    }

    /// 1000 tokens are in the bucket up to 1024, with the sum as it is.
    #[test]
    fn tokens_are_counted_as_such() {
        let mut histogram = Histogram::EMPTY;
        for tokens in [1, 1000, 1024, 1025] {
            histogram.observe_tokens(tokens);
        }
        let buckets = Buckets::Tokens;
        assert_eq!(buckets.sum(&histogram), 3050.0);
        assert_eq!([1.0, 512.0, 1024.0, 2048.0].map(|bound| buckets.cumulative_to(&histogram, bound)), [1, 1, 3, 4]);
        assert_eq!(buckets.zero_threshold(), 1.0);
        let (bounds, le) = (buckets.bounds(), &buckets.classic().le);
        assert_eq!((bounds[0], bounds[bounds.len() - 2]), (1.0, 1_048_576.0));
        assert_eq!(le[..6], ["1.0", "2.0", "4.0", "8.0", "16.0", "22.627416997969522"]);
        // The native bucket that ends at 1024 = 2^(80/8).
        assert_eq!(native(buckets, &histogram).0[0], Span { offset: 80, length: 2 });
    }

    #[test]
    fn neighbours_share_a_span_and_far_ones_do_not() {
        let mut histogram = Histogram::EMPTY;
        let native = |histogram: &Histogram| native(Buckets::Requests, histogram);
        assert_eq!(native(&histogram), (vec![], vec![]));
        histogram.cells[1] = 5;
        histogram.cells[2] = 3;
        histogram.cells[5] = 1;
        histogram.cells[9] = 2;
        let spans = vec![Span { offset: -159, length: 5 }, Span { offset: 3, length: 1 }];
        assert_eq!(native(&histogram), (spans, vec![5, -2, -3, 0, 1, 1]));
    }

    proptest! {
        #[test]
        fn both_forms_hold_every_observation(
            cells in prop::collection::vec((0usize..SUM_CELL, 1u64..1000), 0..60), tokens in any::<bool>(),
        ) {
            let mut histogram = Histogram::EMPTY;
            for (cell, count) in cells {
                histogram.cells[cell] = count;
            }
            for buckets in Buckets::ALL {
                let classic = buckets.classic();
                let mut cumulative = classic.cumulative(&histogram);
                for bound in &classic.bounds[..classic.bounds.len() - 1] {
                    prop_assert_eq!(cumulative.next(), Some(buckets.cumulative_to(&histogram, *bound)), "{}", bound);
                }
                prop_assert_eq!(cumulative.collect::<Vec<_>>(), [histogram.count()]);
            }

            let buckets = if tokens { Buckets::Tokens } else { Buckets::Calls };
            let (spans, deltas) = native(buckets, &histogram);
            let mut back = [0u64; BUCKETS];
            let (mut at, mut count, mut deltas) = (-buckets.first_index(), 0i64, deltas.into_iter());
            for span in spans {
                at += span.offset;
                for _ in 0..span.length {
                    count += deltas.next().expect("a delta for each bucket");
                    back[at as usize] = count as u64;
                    at += 1;
                }
            }
            prop_assert_eq!(deltas.next(), None);
            prop_assert_eq!(&back[..], &histogram.cells[1..=BUCKETS]);
        }
    }
}
