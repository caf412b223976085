//! A latency distribution as Prometheus wants it: classic buckets and native spans, both out of the same cells.

use std::sync::LazyLock;

use citadel_agent_common::hist::{BUCKETS, FIRST_INDEX, Histogram, SUM_CELL, ZERO_THRESHOLD_LOG2};

/// Log2 of the last finite classic bound in seconds: 1024 s.
const LAST_OCTAVE: i32 = 10;

/// Classic buckets: a bound an octave from the zero threshold to 1024 s, and +Inf.
pub(crate) const CLASSIC: usize = (LAST_OCTAVE - ZERO_THRESHOLD_LOG2 + 2) as usize;

/// Upper bounds of the classic buckets in seconds, inclusive.
pub(crate) static BOUNDS: LazyLock<[f64; CLASSIC]> = LazyLock::new(|| {
    let mut bounds = [f64::INFINITY; CLASSIC];
    for (bound, octave) in bounds.iter_mut().zip(ZERO_THRESHOLD_LOG2..=LAST_OCTAVE) {
        *bound = 2f64.powi(octave);
    }
    bounds
});

/// The bounds as label values of `le`.
///
/// Prometheus makes the label out of the number when it reads protobuf, with Go's `%g` and `.0` after whole numbers
/// (also the canonical form of OpenMetrics), but up to version 2 takes it as written from a text page. Only if all
/// formats say the same, a series stays the same when a Prometheus turns native histograms on or off.
pub(crate) static LE: LazyLock<[String; CLASSIC]> = LazyLock::new(|| BOUNDS.map(canonical));

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

/// Observations in each classic bucket, not cumulative.
pub(crate) fn classic(histogram: &Histogram) -> [u64; CLASSIC] {
    let mut counts = [0; CLASSIC];
    // Cell 0 ends at the first bound, every eight cells further is the next one, and the rest is above the last.
    counts[0] = histogram.cells[0];
    for (octave, cells) in histogram.cells[1..SUM_CELL].chunks(8).enumerate() {
        counts[(octave + 1).min(CLASSIC - 1)] += cells.iter().sum::<u64>();
    }
    counts
}

/// Sum of all observations in seconds.
pub(crate) fn sum_seconds(histogram: &Histogram) -> f64 {
    histogram.sum_ns() as f64 / 1e9
}

/// A run of native buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Buckets left out since the last span; the first span's is the index of its first bucket.
    pub(crate) offset: i32,
    /// Buckets in the run.
    pub(crate) length: u32,
}

/// Gaps of up to this many empty buckets are written out, because a new span costs more bytes.
const MAX_GAP: usize = 2;

/// The native buckets that hold something, each count as the difference to the one before it.
///
/// See [the specification](https://prometheus.io/docs/specs/native_histograms/#buckets).
pub(crate) fn native(histogram: &Histogram) -> (Vec<Span>, Vec<i64>) {
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
                let offset = if last.is_none() { i as i32 + FIRST_INDEX } else { (i - next) as i32 };
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
    use citadel_agent_common::hist::SCHEMA;
    use proptest::prelude::*;

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        assert_eq!(LE[0], "9.5367431640625e-07");
        assert_eq!(LE[6], "6.103515625e-05");
        assert_eq!(LE[7], "0.0001220703125");
        assert_eq!(LE[20], "1.0");
        assert_eq!(LE[30], "1024.0");
        assert_eq!(LE[31], "+Inf");
    }

    #[test]
    fn eight_native_buckets_are_an_octave() {
        assert_eq!(1 << SCHEMA, 8, "classic() adds up the cells by this number");
    }

    #[test]
    fn neighbours_share_a_span_and_far_ones_do_not() {
        let mut histogram = Histogram::EMPTY;
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
        fn both_forms_hold_every_observation(cells in prop::collection::vec((0usize..SUM_CELL, 1u64..1000), 0..60)) {
            let mut histogram = Histogram::EMPTY;
            for (cell, count) in cells {
                histogram.cells[cell] = count;
            }
            let counts = classic(&histogram);
            for (i, octave) in (ZERO_THRESHOLD_LOG2..=LAST_OCTAVE).enumerate() {
                prop_assert_eq!(counts[..=i].iter().sum::<u64>(), histogram.cumulative_to_octave(octave));
            }
            prop_assert_eq!(counts.iter().sum::<u64>(), histogram.count());

            let (spans, deltas) = native(&histogram);
            let mut back = [0u64; BUCKETS];
            let (mut at, mut count, mut deltas) = (-FIRST_INDEX, 0i64, deltas.into_iter());
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
