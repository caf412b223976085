//! Facts about the host that need no privilege. Roots are injected; `read_*` does I/O and `parse_*` is pure.

pub mod cgroup;
pub mod kernel_types;
pub mod mountinfo;
pub mod net_tcp;
pub mod pid;
pub mod process;
pub mod sock_diag;

use std::path::PathBuf;

/// Where the kernel's file systems are; tests put a fixture tree here.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

impl Roots {
    /// The directory of a process.
    #[must_use]
    pub fn of(&self, pid: pid::Pid) -> PathBuf {
        self.proc.join(pid.to_string())
    }
}
