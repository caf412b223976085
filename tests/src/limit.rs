//! A memory limit like that of the shipped unit: a cgroup in which the kernel ends what takes more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// `MemoryMax=` of the shipped unit.
pub const MEMORY_MAX: u64 = 128 << 20;

/// A cgroup with a limit; gone with the value, once its processes are.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
    /// The file that counts processes that the kernel ended, by version.
    events: &'static str,
}

impl MemoryLimit {
    /// Makes one, by whichever version of cgroups limits memory on this host.
    ///
    /// # Panics
    /// If neither does, or not for this user; the text says what was tried.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let tried = [Self::v2(bytes), Self::v1(bytes)];
        let mut reasons = Vec::new();
        for attempt in tried {
            match attempt {
                Ok(limit) => return limit,
                Err(reason) => reasons.push(reason),
            }
        }
        panic!("this test needs root and a cgroup that limits memory: {}", reasons.join("; "));
    }

    fn v2(bytes: u64) -> Result<Self, String> {
        let root = mounts("cgroup2", "").next().ok_or("cgroup v2 is not mounted")?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return Err(format!("v2: {} has no memory controller ({})", root.display(), controllers.trim()));
        }
        write(&root.join("cgroup.subtree_control"), "+memory")?;
        let limit = Self::in_folder(&root, "memory.events")?;
        write(&limit.folder.join("memory.max"), &bytes.to_string())?;
        // Without swap there is no such file.
        _ = write(&limit.folder.join("memory.swap.max"), "0");
        Ok(limit)
    }

    fn v1(bytes: u64) -> Result<Self, String> {
        let root = mounts("cgroup", "memory").next().ok_or("v1: no memory controller is mounted")?;
        // Below our own, because in a container nothing else may be ours.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| root.join(path)));
        let limit = Self::in_folder(&own.filter(|path| path.exists()).unwrap_or(root), "memory.oom_control")?;
        write(&limit.folder.join("memory.limit_in_bytes"), &bytes.to_string())?;
        Ok(limit)
    }

    fn in_folder(parent: &Path, events: &'static str) -> Result<Self, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("citadel-agent-tests-{}-{number}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder, events })
    }

    /// Where a process is put in.
    #[must_use]
    pub fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The memory that it takes now, the kernel's on its behalf included, in bytes.
    ///
    /// # Panics
    /// If the kernel does not say.
    #[must_use]
    pub fn usage(&self) -> u64 {
        let file = if self.events == "memory.events" { "memory.current" } else { "memory.usage_in_bytes" };
        let text = fs::read_to_string(self.folder.join(file)).expect("read the cgroup's memory");
        text.trim().parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// How many processes in it the kernel has ended for want of memory.
    ///
    /// # Panics
    /// If the kernel does not say.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.events)).expect("read the cgroup's events");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_else(|| panic!("{} counts no kills:\n{text}", self.events))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Not while a process is in it: children of the agent end a moment after it, and one of a failed test may stay.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Where file systems of this type are mounted, with this among their options.
fn mounts(kind: &str, option: &str) -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let fits = fields.get(2) == Some(&kind)
            && (option.is_empty() || fields.get(3)?.split(',').any(|given| given == option));
        fits.then(|| PathBuf::from(fields[1]))
    };
    mounts.lines().filter_map(path).collect::<Vec<_>>().into_iter()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
