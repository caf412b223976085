//! The agent's own process, from `/proc/self` (`proc_pid_stat(5)`, `proc_pid_status(5)`).

use std::fs;
use std::io;

use super::Roots;

/// What a process uses.
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
/// When `/proc/self/stat` cannot be read or is not what the kernel documents.
pub fn read_own_usage(roots: &Roots) -> io::Result<Usage> {
    let stat = fs::read(roots.proc.join("self/stat"))?;
    parse_stat(&stat, ticks_per_second(), page_size())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not as documented"))
}

/// Parses the fields of `stat` that [`Usage`] needs.
#[must_use]
pub fn parse_stat(stat: &[u8], ticks_per_second: f64, page_size: u64) -> Option<Usage> {
    // The command name may hold anything, also parentheses and spaces; it ends with the last ')'.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
    // The first field here is number 3 of the manual page.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Usage {
        cpu_seconds: number(14)?.checked_add(number(15)?)? as f64 / ticks_per_second,
        resident_bytes: number(24)?.checked_mul(page_size)?,
        virtual_bytes: number(23)?,
        start_ticks: number(22)?,
    })
}

/// Reads how many file descriptors the agent has open.
///
/// # Errors
/// When `/proc/self/fd` cannot be listed.
pub fn read_open_fds(roots: &Roots) -> io::Result<u64> {
    // One of them is the listing's own.
    Ok((fs::read_dir(roots.proc.join("self/fd"))?.count() as u64).saturating_sub(1))
}

/// The limit on open file descriptors: the soft one, which is what fails.
#[must_use]
pub fn max_fds() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the argument is a valid place for the answer.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit.rlim_cur)
}

/// Reads when the host booted, in seconds since the epoch (`btime` of `proc_stat(5)`).
///
/// # Errors
/// When `/proc/stat` cannot be read or has no such line.
pub fn read_boot_time(roots: &Roots) -> io::Result<u64> {
    fs::read_to_string(roots.proc.join("stat"))?
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat has no btime"))
}

/// Clock ticks a second (`USER_HZ`).
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
    fn a_command_name_may_hold_anything() {
        let stat =
            b"7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 12345 1000000 200 18446744073709551615 1";
        let usage = parse_stat(stat, 100.0, 4096).unwrap();
        assert_eq!(
            usage,
            Usage { cpu_seconds: 3.0, resident_bytes: 200 * 4096, virtual_bytes: 1_000_000, start_ticks: 12345 }
        );
    }

    #[test]
    fn truncated_files_give_nothing() {
        for stat in [&b""[..], b"7 (x", b"7 (x) S 1", b"\xff) \xff\xff"] {
            assert_eq!(parse_stat(stat, 100.0, 4096), None);
        }
    }

    #[test]
    fn the_running_process_can_be_read() {
        let usage = read_own_usage(&Roots::default()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes > usage.resident_bytes);
        assert!(read_open_fds(&Roots::default()).unwrap() >= 3);
        assert!(read_boot_time(&Roots::default()).unwrap() > 1_500_000_000);
        assert!(max_fds().unwrap() >= 64);
    }
}
