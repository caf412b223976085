//! The agent's own process, from `/proc/self` (`proc_pid_stat(5)`, `proc_pid_status(5)`).

use std::fs;
use std::io;

use super::Roots;
use super::files::{MAX_TEXT, read_whole, read_whole_text};
use super::pid::parse_stat;

/// Resource usage of a process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Usage {
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads the agent's own usage.
///
/// # Errors
/// `/proc/self/stat` cannot be read or is malformed.
pub fn read_own_usage(roots: &Roots) -> io::Result<Usage> {
    let stat = read_whole(&roots.proc.join("self/stat"), 4096)?;
    let stat = parse_stat(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat has an unexpected format"))?;
    Ok(Usage {
        cpu_seconds: (stat.used.user + stat.used.system) as f64 / ticks_per_second(),
        resident_bytes: stat.resident_pages * page_size(),
        virtual_bytes: stat.virtual_bytes,
        start_ticks: stat.start_ticks,
    })
}

/// Reads the number of open file descriptors of the agent.
///
/// # Errors
/// `/proc/self/fd` cannot be listed.
pub fn read_open_fds(roots: &Roots) -> io::Result<u64> {
    // One of them belongs to the directory listing.
    Ok((fs::read_dir(roots.proc.join("self/fd"))?.count() as u64).saturating_sub(1))
}

/// The soft limit of open file descriptors.
#[must_use]
pub fn max_fds() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the argument points to a valid struct.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit.rlim_cur)
}

/// Reads the boot time of the host, in seconds since the epoch (`btime` in `proc_stat(5)`).
///
/// # Errors
/// `/proc/stat` cannot be read or has no such line.
pub fn read_boot_time(roots: &Roots) -> io::Result<u64> {
    read_whole_text(&roots.proc.join("stat"), MAX_TEXT)?
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat has no btime"))
}

/// Reads when the agent started, in seconds since the epoch.
///
/// # Errors
/// `/proc/stat` or `/proc/self/stat` cannot be read or is malformed.
pub fn read_start(roots: &Roots) -> io::Result<f64> {
    Ok(read_boot_time(roots)? as f64 + read_own_usage(roots)?.start_ticks as f64 / ticks_per_second())
}

/// Clock ticks per second (`USER_HZ`).
#[must_use]
pub fn ticks_per_second() -> f64 {
    // SAFETY: no pointers are involved.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// Size of a memory page in bytes.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: no pointers are involved.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_process_can_be_read() {
        let usage = read_own_usage(&Roots::default()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes > usage.resident_bytes);
        assert!(read_open_fds(&Roots::default()).unwrap() >= 3);
        assert!(read_boot_time(&Roots::default()).unwrap() > 1_500_000_000);
        assert!(max_fds().unwrap() >= 64);
    }
}
