//! Latency distributions over a time window, and their quantiles.

use citadel_agent_common::hist::{FIRST_INDEX, Histogram, SUM_CELL, ZERO_THRESHOLD_LOG2};

/// The non-empty buckets of a cumulative histogram: a tenth of the memory of all its cells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Buckets(Vec<(u8, u64)>);

impl From<&Histogram> for Buckets {
    fn from(histogram: &Histogram) -> Self {
        let cells = histogram.cells[..SUM_CELL].iter().enumerate();
        // SUM_CELL is the largest cell number that fits a byte.
        Self(cells.filter(|&(_, &count)| count > 0).map(|(cell, &count)| (cell as u8, count)).collect())
    }
}

impl Buckets {
    /// Number of observations.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| count).sum()
    }
}

/// Observations in each bucket, possibly fractional.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Distribution {
    /// By cell of [`Histogram`], without the sum.
    counts: Box<[f64; SUM_CELL]>,
}

impl Distribution {
    pub(crate) fn empty() -> Self {
        Self { counts: Box::new([0.0; SUM_CELL]) }
    }

    /// Adds (or, with a negative factor, subtracts) cumulative counts.
    pub(crate) fn add(&mut self, buckets: &Buckets, factor: f64) {
        for &(cell, count) in &buckets.0 {
            self.counts[usize::from(cell)] += count as f64 * factor;
        }
    }

    /// Adds another distribution, each count times `factor`.
    pub(super) fn add_scaled(&mut self, other: &Self, factor: f64) {
        for (own, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *own += more * factor;
        }
    }

    /// Number of observations.
    pub(crate) fn count(&self) -> f64 {
        self.counts.iter().sum()
    }

    /// Whether a bucket is negative: the histogram was reset in between.
    pub(super) fn shrank(&self) -> bool {
        self.counts.iter().any(|&count| count < 0.0)
    }

    /// The quantile in seconds (others are scaled, see `metrics::Buckets::scale`), as Prometheus' `histogram_quantile` of a native histogram: exponential interpolation within
    /// a bucket, linear within the zero bucket. NaN where nothing was observed.
    ///
    /// A value is above a bucket's bound here exactly if it is with the classic buckets, whose bounds are some of these: a
    /// threshold that is one of them means the same for both.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count();
        let mut below = 0.0;
        for (cell, &count) in self.counts.iter().enumerate().filter(|&(_, &count)| count > 0.0) {
            if below + count >= rank {
                let fraction = ((rank - below) / count).clamp(0.0, 1.0);
                return match cell {
                    0 => fraction * f64::from(ZERO_THRESHOLD_LOG2).exp2(),
                    // The upper bound of native index i is 2^(i/8), the lower bound 2^((i-1)/8).
                    _ => ((f64::from(cell as u8) + f64::from(FIRST_INDEX) - 2.0 + fraction) / 8.0).exp2(),
                };
            }
            below += count;
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn distribution(observations: &[u64]) -> Distribution {
        let mut histogram = Histogram::EMPTY;
        for &ns in observations {
            histogram.observe(ns);
        }
        let mut distribution = Distribution::empty();
        distribution.add(&Buckets::from(&histogram), 1.0);
        distribution
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert!(Distribution::empty().quantile(0.5).is_nan());
    }

    #[test]
    fn the_bounds_of_a_bucket_are_its_extremes() {
        // Exactly 4 s: the last value of the bucket that ends there.
        let four = distribution(&[4_000_000_000; 8]);
        assert_eq!(four.quantile(1.0), 4.0);
        assert_eq!(four.quantile(0.0), (15.0f64 / 8.0).exp2());
        // In the zero bucket, linear.
        assert_eq!(distribution(&[1, 2]).quantile(0.5), (-21f64).exp2());
    }

    proptest! {
        /// Against the sorted observations themselves: the quantile is in the same bucket, so at most 9.1 % off.
        #[test]
        fn quantiles_are_within_a_bucket_of_the_truth(
            mut observations in prop::collection::vec(1_000u64..3_000_000_000_000, 1..200), quantile in 0.0f64..=1.0,
        ) {
            observations.sort_unstable();
            let rank = (quantile * observations.len() as f64).ceil().max(1.0) as usize - 1;
            let truth = observations[rank] as f64 / 1e9;
            let got = distribution(&observations).quantile(quantile);
            prop_assert!(got / truth < 1.0906 && truth / got < 1.0906, "{got} is not {truth}");
        }

        /// Above a power of two exactly if fewer than the quantile's share of the observations are at most that.
        #[test]
        fn at_classic_bounds_it_agrees_with_the_classic_buckets(
            observations in prop::collection::vec(1_000u64..1_000_000_000_000, 1..200), quantile in 0.01f64..=1.0, bound in -28i32..18,
        ) {
            let mut histogram = Histogram::EMPTY;
            observations.iter().for_each(|&ns| histogram.observe(ns));
            let above = (histogram.cumulative_to(bound * 4) as f64) < quantile * observations.len() as f64;
            prop_assert_eq!(distribution(&observations).quantile(quantile) > (f64::from(bound) / 2.0).exp2(), above);
        }
    }
}
