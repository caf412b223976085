//! What a kernel program has cost so far, while the kernel's BPF statistics are on (`kernel.bpf_stats_enabled`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};

use aya::Ebpf;

use super::plan::Family;

/// Runs of a program and the time spent in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunStats {
    /// Number of runs.
    pub runs: u64,
    /// Nanoseconds in all of them.
    pub nanoseconds: u64,
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
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    parse(&fs::read_to_string(path).ok()?)
}

/// Parses `run_time_ns` and `run_cnt`.
#[must_use]
pub fn parse(fdinfo: &str) -> Option<RunStats> {
    let number = |key: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse::<u64>().ok())
    };
    let stats = RunStats { runs: number("run_cnt")?, nanoseconds: number("run_time_ns")? };
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
