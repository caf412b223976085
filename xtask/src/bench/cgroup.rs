//! A cgroup with a memory limit, like that of the shipped unit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// `MemoryMax=` of the shipped unit.
pub(super) const MEMORY_MAX: u64 = 128 << 20;

/// Readings of the memory, and the time between two.
const READINGS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(200);

/// A cgroup whose processes may use [`MEMORY_MAX`]; removed on drop, once they have ended.
pub(super) struct Limited {
    folder: PathBuf,
    files: Files,
}

/// Names of files in a cgroup, which depend on the version.
struct Files {
    usage: &'static str,
    events: &'static str,
    /// Frees caches when this is written to it.
    reclaim: (&'static str, &'static str),
}

const V1: Files =
    Files { usage: "memory.usage_in_bytes", events: "memory.oom_control", reclaim: ("memory.force_empty", "0") };

const V2: Files = Files { usage: "memory.current", events: "memory.events", reclaim: ("memory.reclaim", "1G") };

impl Limited {
    /// Creates one, with whichever version of cgroups limits memory on this host.
    ///
    /// # Errors
    /// Neither version does.
    pub(super) fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let name = format!("citadel-agent-bench-{}", std::process::id());
        if let Some(root) = mounted(&mounts, "cgroup2", "")
            && fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|controller| controller == "memory"))
        {
            write(&root.join("cgroup.subtree_control"), "+memory")?;
            let limited = Self::create(root.join(name), V2)?;
            write(&limited.folder.join("memory.max"), &MEMORY_MAX.to_string())?;
            return Ok(limited);
        }
        let Some(root) = mounted(&mounts, "cgroup", "memory") else {
            bail!("neither version of cgroups limits memory on this host: this benchmark needs the memory controller");
        };
        // In a container, only what is below our own cgroup can be changed.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| root.join(path)));
        let parent = own.filter(|path| path.exists()).unwrap_or(root);
        let limited = Self::create(parent.join(name), V1)?;
        write(&limited.folder.join("memory.limit_in_bytes"), &MEMORY_MAX.to_string())?;
        Ok(limited)
    }

    fn create(folder: PathBuf, files: Files) -> Result<Self> {
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder, files })
    }

    /// The file to which a process writes `0` to enter.
    pub(super) fn entrance(&self) -> Result<File> {
        let path = self.folder.join("cgroup.procs");
        File::options().write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Memory charged to it in bytes, kernel memory included, but for caches that the kernel frees when it needs room: they are freed
    /// first. (Discovery reads `/proc/PID/fd`, of which the kernel keeps almost a kilobyte an entry.) The least of some readings,
    /// because the kernel frees a part of them at a time, and later than it says.
    pub(super) fn usage(&self) -> Result<u64> {
        let (file, text) = self.files.reclaim;
        let mut least = u64::MAX;
        for _ in 0..READINGS {
            // Version 2 reports an error if there is less to free. Before 5.19, it has no such file.
            _ = fs::write(self.folder.join(file), text);
            thread::sleep(BETWEEN);
            let text = self.read(self.files.usage)?;
            let usage = text.trim().parse().with_context(|| format!("{} reads {text:?}", self.files.usage))?;
            least = least.min(usage);
        }
        Ok(least)
    }

    /// How many of its processes the kernel has killed because of the limit.
    pub(super) fn kills(&self) -> Result<u64> {
        let text = self.read(self.files.events)?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
            .with_context(|| format!("{} has no oom_kill", self.files.events))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // Children of the agent end a moment after it.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Where a file system of this type is mounted with this option, if one is given.
fn mounted(mounts: &str, kind: &str, option: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, path, of_kind, options, ..] = fields[..] else { return None };
        let fits = of_kind == kind && (option.is_empty() || options.split(',').any(|given| given == option));
        fits.then(|| PathBuf::from(path))
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_type_and_option() {
        let mounts =
            "cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/two cgroup2 rw 0 0\n";
        assert_eq!(mounted(mounts, "cgroup", "memory"), Some("/c/memory".into()));
        assert_eq!(mounted(mounts, "cgroup2", ""), Some("/c/two".into()));
        assert_eq!(mounted(mounts, "cgroup2", "memory"), None);
    }
}
