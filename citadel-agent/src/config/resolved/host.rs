//! `storage` and `services`: the host beside the models.

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
        /// Asks disks for their health (smartmontools); a name without a slash is looked for on the path. Without it there are no
        /// `citadel_smart_*`.
        smartctl: PathBuf = "smartctl".into(), PROGRAM;
        /// How often disks are asked. A disk that sleeps is not woken.
        smart_interval: Duration = Duration::from_secs(300), INTERVAL;
        /// Directories whose size and newest file are exported: models, backups.
        directories: Vec<PathBuf> = Vec::new(), List { of: ABSOLUTE_PATH, what: "absolute paths", most: 64 };
        /// How often they are walked.
        directory_interval: Duration = Duration::from_secs(300), INTERVAL;
    }
}

section! {
    /// systemd units.
    pub struct Services {
        /// systemd units that are exported besides those that serve models; patterns as `systemctl` takes them.
        units: Vec<String> = vec!["citadel-*.service".to_owned()], List { of: UNIT_PATTERN, what: "patterns", most: 64 };
    }
}

/// A program: an absolute path, or a name to look for on the path.
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
        false => Err(format!("{} is neither an absolute path nor a name without a slash", quoted(&program))),
    }
}

/// What systemd matches names of units with: characters of unit names, and those of `fnmatch(3)`.
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
        false => Err(format!("{} is not a unit's name or a pattern such as \"citadel-*.service\"", quoted(pattern))),
    }
}
