//! What a kernel program has cost so far, while the kernel's BPF statistics are on (`kernel.bpf_stats_enabled`).

use std::fs;
use std::ops::Add;
use std::os::fd::{AsFd, AsRawFd as _};

use aya::Ebpf;

use super::family::Family;

/// Runs of a program and the time spent in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunStats {
    /// Number of runs.
    pub runs: u64,
    /// Nanoseconds in all of them.
    pub nanoseconds: u64,
}

impl Add for RunStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { runs: self.runs + other.runs, nanoseconds: self.nanoseconds + other.nanoseconds }
    }
}

/// What each program of a family has cost.
pub(super) fn of(ebpf: &Ebpf, family: Family) -> impl Iterator<Item = (&'static str, RunStats)> {
    family
        .programs()
        .iter()
        .filter_map(|program| Some((program.name, read(&ebpf.program(program.name)?.fd().ok()?.as_fd())?)))
}

/// Reads a loaded program's statistics from its descriptor's `fdinfo` (`bpf_prog_show_fdinfo`, Linux 5.1 on). `None` while
/// none were collected.
#[must_use]
pub fn read(program: &impl AsFd) -> Option<RunStats> {
    parse(&fdinfo(program)?)
}

/// How often the kernel left a program out, because it ran already on that CPU (Linux 5.12 on).
#[must_use]
pub fn missed(program: &impl AsFd) -> Option<u64> {
    number(&fdinfo(program)?, "recursion_misses")
}

fn fdinfo(program: &impl AsFd) -> Option<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()
}

fn number(fdinfo: &str, key: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
}

/// Parses `run_time_ns` and `run_cnt`.
#[must_use]
pub fn parse(fdinfo: &str) -> Option<RunStats> {
    let stats = RunStats { runs: number(fdinfo, "run_cnt")?, nanoseconds: number(fdinfo, "run_time_ns")? };
    (stats.runs > 0).then_some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_once_there_are_any() {
        let text = "pos:\t0\nprog_type:\t8\nrun_time_ns:\t1200\nrun_cnt:\t3\nverified_insns:\t9\n";
        assert_eq!(parse(text), Some(RunStats { runs: 3, nanoseconds: 1200 }));
        assert_eq!(parse("run_time_ns:\t0\nrun_cnt:\t0\n"), None);
        assert_eq!(parse("pos:\t0\n"), None);
        assert_eq!(parse("run_time_ns:\tx\nrun_cnt:\t1\n"), None);
    }
}
