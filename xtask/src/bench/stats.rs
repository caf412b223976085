//! The kernel's BPF statistics: run time and run count of each program.

use std::fs;
use std::ops::{AddAssign, Sub};

use anyhow::{Context as _, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// While it lives, the kernel times each run of each BPF program; dropping it restores the previous setting.
pub(super) struct StatsOn {
    before: String,
}

impl StatsOn {
    pub(super) fn new() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH} (Linux 5.1)"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for StatsOn {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("bench: {SWITCH} is still on: {error}");
        }
    }
}

/// Fails when statistics are already on: throughput would be measured with them.
pub(super) fn must_be_off() -> Result<()> {
    let now = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH} (Linux 5.1)"))?;
    anyhow::ensure!(now.trim() == "0", "{SWITCH} is on, which slows down every BPF program: write 0 to it first");
    Ok(())
}

/// Runs of a program.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Runs {
    /// Number of runs.
    pub(super) count: f64,
    /// Nanoseconds spent in all of them.
    pub(super) ns: f64,
}

impl Runs {
    /// Parses a program's `fdinfo` (`bpf_prog_show_fdinfo`).
    pub(super) fn parse(fdinfo: &str) -> Option<Self> {
        let field = |name| fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self { count: field("run_cnt:")?, ns: field("run_time_ns:")? })
    }

    /// Nanoseconds per run; zero when there were none.
    pub(super) fn each(self) -> f64 {
        if self.count > 0.0 { self.ns / self.count } else { 0.0 }
    }
}

impl Sub for Runs {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self { count: self.count - before.count, ns: self.ns - before.ns }
    }
}

impl AddAssign for Runs {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.ns += more.ns;
    }
}

/// Repeated measurements of one quantity.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Spread(Vec<f64>);

impl Spread {
    /// From at least one value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        assert!(!values.is_empty(), "a spread of no values");
        Self(values)
    }

    pub(super) fn median(&self) -> f64 {
        let (low, high) = (self.0[(self.0.len() - 1) / 2], self.0[self.0.len() / 2]);
        f64::midpoint(low, high)
    }

    /// The 95 % confidence interval of the median, whatever the distribution: each value is as likely above the true
    /// median as below, so the binomial distribution applies. With fewer than six values, the minimum and the maximum.
    pub(super) fn median_within(&self) -> (f64, f64) {
        let count = self.0.len();
        // Probability that exactly `below` values lie below the median, and that at most so many do.
        let (mut below, mut exactly) = (0, 0.5f64.powi(count as i32));
        let mut at_most = exactly;
        while at_most <= 0.025 && below < count / 2 {
            exactly *= (count - below) as f64 / (below + 1) as f64;
            below += 1;
            at_most += exactly;
        }
        let place = below.saturating_sub(1);
        (self.0[place], self.0[count - 1 - place])
    }

    pub(super) fn min(&self) -> f64 {
        self.0[0]
    }

    pub(super) fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!((Spread::of([2.0, 1.0]).min(), Spread::of([2.0, 1.0]).max()), (1.0, 2.0));
    }

    #[test]
    fn the_median_lies_within_what_the_tables_of_the_binomial_say() {
        // Which have 96.2 %, 96.5 % and 96.9 %; the next ones inside have too little.
        let within = |count: u32| Spread::of((1..=count).map(f64::from)).median_within();
        assert_eq!((within(40), within(100), within(6)), ((14.0, 27.0), (40.0, 61.0), (1.0, 6.0)));
        assert_eq!(within(1), (1.0, 1.0));
    }

    #[test]
    fn runs_of_fdinfo() {
        let runs = Runs::parse("pos:\t0\nrun_time_ns:\t120\nrun_cnt:\t4\n").unwrap();
        assert_eq!(runs.each(), 30.0);
        assert_eq!(Runs::parse("pos:\t0\n"), None);
    }
}
