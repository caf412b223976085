//! `storage` and `services`: disks and systemd units of the host.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::kind::{ABSOLUTE_PATH, INTERVAL, List, Scalar, string_like};
use crate::config::mistakes::quoted;
use crate::config::section::section;
use crate::config::tree::Node;
use crate::config::value::{string, text};
use crate::config::yaml::Yaml;

section! {
    /// Disks and directories.
    pub struct Storage {
        /// The smartctl program (smartmontools), which reads the health of disks; a name without a slash is looked up in `PATH`. Without
        /// it there are no `citadel_smart_*` metrics.
        smartctl: PathBuf = "smartctl".into(), PROGRAM;
        /// Interval between reads of disk health. A disk in standby is not woken.
        smart_interval: Duration = Duration::from_secs(300), INTERVAL;
        /// Directories whose size and newest file are exported, such as models and backups.
        directories: Vec<PathBuf> = Vec::new(), List { of: ABSOLUTE_PATH, what: "absolute paths", most: 64 };
        /// Interval between walks of `directories`.
        directory_interval: Duration = Duration::from_secs(300), INTERVAL;
    }
}

section! {
    /// systemd units.
    pub struct Services {
        /// systemd units to export besides those that serve models; patterns as in `systemctl`.
        units: Vec<String> = vec!["citadel-*.service".to_owned()], List { of: UNIT_PATTERN, what: "patterns", most: 64 };
    }
}

/// A program: an absolute path, or a name to look up in `PATH`.
pub(super) const PROGRAM: Scalar<PathBuf> = Scalar {
    text: "program",
    schema: || string_like("^(/|[^/]+$)"),
    read: program,
    write: |program| Yaml::text(&program.display()),
};

fn program(node: &Node) -> Result<PathBuf, String> {
    let program = text(node)?;
    match program.starts_with('/') || !program.contains('/') {
        true => Ok(program.into()),
        false => Err(format!("{} is neither an absolute path nor a program name without a slash", quoted(&program))),
    }
}

/// A pattern for unit names as in systemd: characters of unit names, and those of `fnmatch(3)`.
pub(super) const UNIT_PATTERN: Scalar<String> = Scalar {
    text: "pattern",
    schema: || string_like(r"^[A-Za-z0-9:_.\\@*?\[\]!^-]{1,255}$"),
    read: unit_pattern,
    write: Yaml::text,
};

pub(super) fn unit_pattern(node: &Node) -> Result<String, String> {
    let pattern = string(node)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?[]!^".contains(c);
    match !pattern.is_empty() && pattern.len() <= 255 && pattern.chars().all(allowed) {
        true => Ok(pattern.to_owned()),
        false => Err(format!("{} is not a unit name or a pattern such as \"citadel-*.service\"", quoted(pattern))),
    }
}
