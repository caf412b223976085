//! Information about any process from `/proc/PID` (`proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_pid_smaps(5)`).

use std::fs;
use std::io;
use std::path::PathBuf;

use super::Roots;
use super::files::{read_head, read_whole};

/// Maximum number of processes examined: a hundred times the usual number. Without a limit, any user could make the
/// agent grow.
pub const MAX_PROCESSES: usize = 100_000;

/// Maximum size of `stat`, `comm` and other single-line files.
const MAX_LINE: usize = 4096;

/// Maximum size of `status`: it lists up to 65,536 groups.
const MAX_STATUS: usize = 1 << 20;

/// Maximum size read of `cmdline`, whose length the process controls. Options of servers are within it.
const MAX_COMMAND_LINE: usize = 64 << 10;

/// A PID in the agent's PID namespace.
pub type Pid = u32;

/// A process, distinguished by its start time from a later one with the same PID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process {
    /// PID.
    pub pid: Pid,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// CPU time in clock ticks, by mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ticks {
    /// User mode.
    pub user: u64,
    /// Kernel mode.
    pub system: u64,
}

/// The fields of `/proc/PID/stat` that the agent needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Parent PID; 0 if none.
    pub parent: Pid,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// CPU time of all its threads, including exited ones.
    pub used: Ticks,
    /// CPU time of its waited-for children and their descendants.
    pub used_by_children: Ticks,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// Resident pages, each counted fully even if shared.
    pub rss: u64,
    /// Swapped-out private pages.
    pub swap: u64,
}

/// Reads the PIDs of the host, at most [`MAX_PROCESSES`]: the lowest ones.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn read_pids(roots: &Roots) -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(&roots.proc)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()));
        // The kernel lists them in order.
        if pids.len() == MAX_PROCESSES {
            break;
        }
    }
    Ok(pids)
}

/// Reads a process's `stat`.
///
/// # Errors
/// The process does not exist, or its `stat` is malformed.
pub fn read_stat(roots: &Roots, pid: Pid) -> io::Result<Stat> {
    let stat = read_whole(&roots.of(pid).join("stat"), MAX_LINE)?;
    parse_stat(&stat).ok_or_else(|| malformed(pid, "stat"))
}

/// Parses `stat`.
#[must_use]
pub fn parse_stat(stat: &[u8]) -> Option<Stat> {
    // The command name can contain anything, including parentheses and spaces; it ends with the last ')'.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
    // The first field here is number 3 in the manual page.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: number(22)?,
        used: Ticks { user: number(14)?, system: number(15)? },
        used_by_children: Ticks { user: number(16)?, system: number(17)? },
        virtual_bytes: number(23)?,
        resident_pages: number(24)?,
    })
}

/// Reads the memory of a process.
///
/// # Errors
/// The process does not exist, or its `status` is malformed.
pub fn read_resident(roots: &Roots, pid: Pid) -> io::Result<Resident> {
    parse_resident(&read_whole(&roots.of(pid).join("status"), MAX_STATUS)?).ok_or_else(|| malformed(pid, "status"))
}

/// Parses `status`; all zero for a process without memory: a kernel thread, or an exited process.
#[must_use]
pub fn parse_resident(status: &[u8]) -> Option<Resident> {
    let mut resident = Resident::default();
    for line in status.split(|&byte| byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"VmRSS:") {
            resident.rss = kibibytes(rest)?;
        } else if let Some(rest) = line.strip_prefix(b"VmSwap:") {
            resident.swap = kibibytes(rest)?;
        }
    }
    Some(resident)
}

/// Reads the proportional set size of a process in bytes: each shared page is divided by the number of processes that
/// map it. The kernel walks all of its page tables for this.
///
/// # Errors
/// The process does not exist, or access is denied (needs `CAP_SYS_PTRACE`).
pub fn read_pss(roots: &Roots, pid: Pid) -> io::Result<u64> {
    parse_pss(&read_whole(&roots.of(pid).join("smaps_rollup"), MAX_LINE)?).ok_or_else(|| malformed(pid, "smaps_rollup"))
}

/// Parses `smaps_rollup`; it is empty for an exited process.
#[must_use]
pub fn parse_pss(rollup: &[u8]) -> Option<u64> {
    match rollup.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Pss:")) {
        Some(rest) => kibibytes(rest),
        None => rollup.is_empty().then_some(0),
    }
}

/// Reads the command line of a process, which it can change: as many complete arguments as fit into 64 KiB.
///
/// # Errors
/// The process does not exist.
pub fn read_command_line(roots: &Roots, pid: Pid) -> io::Result<Vec<String>> {
    let (mut bytes, whole) = read_head(&roots.of(pid).join("cmdline"), MAX_COMMAND_LINE)?;
    if !whole {
        // The last argument may be truncated, and a truncated name would be wrong.
        bytes.truncate(bytes.iter().rposition(|&byte| byte == 0).unwrap_or(0));
    }
    Ok(parse_command_line(&bytes))
}

/// Parses `cmdline`: arguments terminated by zero bytes.
#[must_use]
pub fn parse_command_line(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Reads the command name of a process (`proc_pid_comm(5)`), which it can change.
///
/// # Errors
/// The process does not exist.
pub fn read_command_name(roots: &Roots, pid: Pid) -> io::Result<String> {
    let (name, _) = read_head(&roots.of(pid).join("comm"), MAX_LINE)?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// Reads the path of a process's executable.
///
/// # Errors
/// The process does not exist, or access is denied (needs `CAP_SYS_PTRACE`).
pub fn read_executable(roots: &Roots, pid: Pid) -> io::Result<PathBuf> {
    fs::read_link(roots.of(pid).join("exe"))
}

/// `  123 kB`, in bytes.
fn kibibytes(text: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(text).ok()?.trim().strip_suffix(" kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn malformed(pid: Pid, file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{file} has an unexpected format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] =
        b"7 (a) b (c)) S 3 7 7 0 -1 4194560 100 0 0 0 250 50 7 9 20 0 1 0 12345 1000000 200 18446744073709551615 1";

    #[test]
    fn a_command_name_may_hold_anything() {
        assert_eq!(
            parse_stat(STAT),
            Some(Stat {
                parent: 3,
                start_ticks: 12345,
                used: Ticks { user: 250, system: 50 },
                used_by_children: Ticks { user: 7, system: 9 },
                virtual_bytes: 1_000_000,
                resident_pages: 200,
            })
        );
    }

    #[test]
    fn truncated_files_give_nothing() {
        for stat in [&b""[..], b"7 (x", b"7 (x) S 1", b"\xff) \xff\xff"] {
            assert_eq!(parse_stat(stat), None);
        }
        assert_eq!(parse_resident(b"VmRSS:\t12 MB\n"), None);
        assert_eq!(parse_pss(b"Rss: 12 kB\n"), None);
    }

    #[test]
    fn memory_is_read_in_bytes_and_what_has_none_has_zero() {
        let status = b"Name:\tx\nVmPeak:\t   99 kB\nVmRSS:\t   12 kB\nVmSwap:\t    3 kB\n";
        assert_eq!(parse_resident(status), Some(Resident { rss: 12 << 10, swap: 3 << 10 }));
        assert_eq!(parse_resident(b"Name:\tkthreadd\n"), Some(Resident::default()));
        assert_eq!(
            parse_pss(b"00400000-7fff ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:   5 kB\nPss_Dirty: 1 kB\n"),
            Some(5120)
        );
        assert_eq!(parse_pss(b""), Some(0));
    }

    #[test]
    fn arguments_may_be_empty_or_odd() {
        assert_eq!(parse_command_line(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(parse_command_line(b"one title"), ["one title"]);
        assert!(parse_command_line(b"").is_empty());
    }

    #[test]
    fn of_an_endless_command_line_the_whole_arguments_at_its_beginning_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::below(folder.path());
        fs::create_dir_all(roots.of(7)).unwrap();
        let path = roots.of(7).join("cmdline");
        fs::write(&path, [b"vllm\0serve\0phi3\0".as_slice(), &vec![b'x'; 64 << 20]].concat()).unwrap();
        assert_eq!(read_command_line(&roots, 7).unwrap(), ["vllm", "serve", "phi3"]);
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert!(read_command_line(&roots, 7).unwrap().is_empty());
        fs::write(roots.of(7).join("status"), vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(read_resident(&roots, 7).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn the_running_process_can_be_read() {
        let (roots, pid) = (Roots::default(), std::process::id());
        assert!(read_pids(&roots).unwrap().contains(&pid));
        assert!(read_stat(&roots, pid).unwrap().start_ticks > 0);
        let resident = read_resident(&roots, pid).unwrap();
        assert!((1..=resident.rss * 2).contains(&read_pss(&roots, pid).unwrap()));
        assert_eq!(read_executable(&roots, pid).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(read_command_line(&roots, pid).unwrap(), std::env::args().collect::<Vec<_>>());
    }
}
