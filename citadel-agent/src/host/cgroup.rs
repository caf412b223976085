//! cgroup v2: the cgroup of a process, the processes of a cgroup, and their CPU time
//! (`Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::files::{read_value, read_whole_text};
use super::pid::Pid;
use super::{Roots, mountinfo};

/// Maximum number of cgroups read in a tree.
const MAX_CGROUPS: usize = 1024;

/// Maximum size of `/proc/PID/cgroup` and `cpu.stat`: a path has up to 4096 bytes, in about ten hierarchies.
const MAX_TEXT: usize = 64 << 10;

/// Maximum size of `cgroup.procs`: about 130,000 processes.
const MAX_MEMBERS: usize = 1 << 20;

/// CPU time of a cgroup and its descendants, including exited processes, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTime {
    /// User mode.
    pub user_us: u64,
    /// Kernel mode.
    pub system_us: u64,
}

/// Reads the cgroup of a process, relative to the root of the v2 hierarchy.
///
/// # Errors
/// The process does not exist.
pub fn read_cgroup(roots: &Roots, pid: Pid) -> io::Result<Option<PathBuf>> {
    Ok(parse_cgroup(&read_whole_text(&roots.of(pid).join("cgroup"), MAX_TEXT)?))
}

/// Parses `/proc/PID/cgroup` (`cgroups(7)`): hierarchy 0 is v2, also on hybrid hosts. `None`: not in it, or not visible
/// in the agent's cgroup namespace.
#[must_use]
pub fn parse_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A removed cgroup, whose processes have exited.
    let path = Path::new(path.strip_suffix(" (deleted)").unwrap_or(path));
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_owned())
}

/// Reads the processes of a cgroup and its descendants that are visible in the agent's PID namespace.
///
/// # Errors
/// The cgroup does not exist, or exceeds a limit (`FileTooLarge`).
pub fn read_processes(mount: &Path, cgroup: &Path) -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    let mut folders = vec![mount.join(cgroup)];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        seen += 1;
        match read_whole_text(&folder.join("cgroup.procs"), MAX_MEMBERS) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid: &Pid| pid != 0)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(error),
            // A descendant that has just been removed, or a threaded one, whose processes are listed in its parent.
            Err(_) if seen > 1 => continue,
            Err(error) => return Err(error),
        }
        let inner = fs::read_dir(&folder).into_iter().flatten().flatten();
        for inner in inner.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
            if seen + folders.len() >= MAX_CGROUPS {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_CGROUPS} cgroups")));
            }
            folders.push(inner.path());
        }
    }
    Ok(pids)
}

/// Reads a cgroup's CPU time.
///
/// # Errors
/// The cgroup does not exist, or `cpu.stat` is malformed.
pub fn read_cpu_time(mount: &Path, cgroup: &Path) -> io::Result<CpuTime> {
    let text = read_whole_text(&mount.join(cgroup).join("cpu.stat"), MAX_TEXT)?;
    parse_cpu_time(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "cpu.stat has an unexpected format"))
}

/// Parses `cpu.stat`, which every cgroup except the root has, regardless of enabled controllers.
#[must_use]
pub fn parse_cpu_time(text: &str) -> Option<CpuTime> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Some(CpuTime { user_us: field("user_usec")?, system_us: field("system_usec")? })
}

/// Parses how long the cgroup's threads were held back by its CPU quota, in microseconds, out of `cpu.stat`; `None` where its CPU
/// controller is off.
#[must_use]
pub fn parse_throttled(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("throttled_usec ")?.parse().ok())
}

/// Reads the same.
///
/// # Errors
/// When the cgroup is gone.
pub fn read_throttled(mount: &Path, cgroup: &Path) -> io::Result<Option<u64>> {
    Ok(parse_throttled(&read_whole_text(&mount.join(cgroup).join("cpu.stat"), MAX_TEXT)?))
}

/// Parses the number of major page faults of a cgroup's processes since it was made, out of `memory.stat`; `None` where its memory
/// controller is off.
#[must_use]
pub fn parse_major_faults(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("pgmajfault ")?.parse().ok())
}

/// Reads the same.
///
/// # Errors
/// The cgroup does not exist, or its memory controller is off.
pub fn read_major_faults(mount: &Path, cgroup: &Path) -> io::Result<Option<u64>> {
    Ok(parse_major_faults(&read_whole_text(&mount.join(cgroup).join("memory.stat"), MAX_TEXT)?))
}

/// Reads the memory limit of this process's cgroup: the lowest limit of it and its ancestors, in cgroup v1 or v2. `None`: there is
/// no limit, or it cannot be read.
#[must_use]
pub fn read_memory_limit(roots: &Roots) -> Option<u64> {
    let text = read_whole_text(&roots.proc.join("self/cgroup"), MAX_TEXT).ok()?;
    let v2 = mountinfo::read_cgroup2_mount(roots).ok().flatten().zip(parse_cgroup(&text));
    let v2 = v2.into_iter().flat_map(|(mount, path)| limits(&mount, &path, "memory.max"));
    let v1 = text.lines().find_map(|line| line.split_once(":memory:/")).map(|(_, path)| PathBuf::from(path));
    let mount = roots.sys.join("fs/cgroup/memory");
    let v1 = v1.into_iter().flat_map(|path| limits(&mount, &path, "memory.limit_in_bytes"));
    v2.chain(v1).min()
}

/// The limits of a cgroup and its ancestors. No limit is `max` in v2, and a number near 2^63 in v1.
fn limits(mount: &Path, path: &Path, file: &str) -> Vec<u64> {
    let limit = |above: &Path| read_value(&mount.join(above).join(file))?.parse().ok();
    path.ancestors().filter_map(limit).filter(|&limit: &u64| limit < 1 << 62).collect()
}

/// Reads the ID that distinguishes a cgroup from a later one with the same name.
///
/// # Errors
/// The cgroup does not exist.
pub fn read_id(mount: &Path, cgroup: &Path) -> io::Result<u64> {
    Ok(fs::metadata(mount.join(cgroup))?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_taken_and_paths_are_relative() {
        let hybrid = "3:cpu,cpuacct:/a\n1:name=systemd:/system.slice/b.service\n0::/system.slice/b.service\n";
        assert_eq!(parse_cgroup(hybrid), Some("system.slice/b.service".into()));
        assert_eq!(parse_cgroup("0::/\n"), Some(PathBuf::new()));
        assert_eq!(parse_cgroup("0::/x.service (deleted)\n"), Some("x.service".into()));
        for text in ["", "1:cpu:/x\n", "0::/../../other.slice\n"] {
            assert_eq!(parse_cgroup(text), None, "{text:?}");
        }
    }

    #[test]
    fn cpu_time_is_read_by_mode() {
        let text = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnice_usec 0\n";
        assert_eq!(parse_cpu_time(text), Some(CpuTime { user_us: 20, system_us: 10 }));
        assert_eq!(parse_cpu_time("usage_usec 30\nuser_usec x\n"), None);
        assert_eq!(parse_major_faults("anon 4096\npgfault 900\npgmajfault 17\nworkingset_refault_anon 3\n"), Some(17));
        assert_eq!(parse_major_faults("pgmajfault x\n"), None);
        assert_eq!(parse_throttled("user_usec 20\nnr_throttled 3\nthrottled_usec 12345\n"), Some(12_345));
        assert_eq!(parse_throttled(text), None);
    }

    #[test]
    fn processes_of_inner_cgroups_are_found() {
        let mount = tempfile::tempdir().unwrap();
        let inner = mount.path().join("a/b/c");
        fs::create_dir_all(&inner).unwrap();
        for (folder, text) in [("a", "1\n2\n"), ("a/b", ""), ("a/b/c", "3\n0\n")] {
            fs::write(mount.path().join(folder).join("cgroup.procs"), text).unwrap();
        }
        assert_eq!(read_processes(mount.path(), Path::new("a")).unwrap(), [1, 2, 3]);
        assert_eq!(read_processes(mount.path(), Path::new("a/b")).unwrap(), [3]);
        assert!(read_processes(mount.path(), Path::new("gone")).is_err());
        for number in 0..MAX_CGROUPS {
            fs::create_dir(mount.path().join(format!("a/b/{number}"))).unwrap();
        }
        let error = read_processes(mount.path(), Path::new("a")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "a part of them would be a wrong answer");
    }
}
