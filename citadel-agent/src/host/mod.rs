//! Facts about the host that need no privileges. Roots are injected; `read_*` does I/O and `parse_*` is pure.

pub mod cgroup;
pub mod errno;
pub mod files;
pub(crate) mod kernel_types;
pub mod mountinfo;
pub(crate) mod net_tcp;
pub mod pid;
pub mod process;
pub mod skipped;
pub(crate) mod sock_diag;

use std::path::{Path, PathBuf};

/// Paths of the kernel's file systems; tests use a fixture tree.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
    /// `/run/udev/data`: udev's device database.
    pub udev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Roots {
    /// The file systems of a host whose root directory is `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            proc: root.join("proc"),
            sys: root.join("sys"),
            etc: root.join("etc"),
            udev: root.join("run/udev/data"),
            dev: root.join("dev"),
        }
    }

    /// The host name (`proc_sys_kernel(5)`); empty if it cannot be read.
    #[must_use]
    pub fn host_name(&self) -> String {
        files::read_value(&self.proc.join("sys/kernel/hostname")).unwrap_or_default()
    }

    /// The directory of a process.
    #[must_use]
    pub fn of(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }
}
