//! `storage` and `services`: the host beside the models.

use std::path::PathBuf;
use std::time::Duration;

/// Disks and directories.
#[derive(Clone, PartialEq, Debug)]
pub struct Storage {
    /// The program that asks disks for their health; a name without a slash is looked for on the path.
    pub smartctl: PathBuf,
    /// How often disks are asked.
    pub smart_interval: Duration,
    /// Directories whose size and age are exported.
    pub directories: Vec<PathBuf>,
    /// How often they are walked.
    pub directory_interval: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        let interval = Duration::from_secs(300);
        Self {
            smartctl: PathBuf::from("smartctl"),
            smart_interval: interval,
            directories: Vec::new(),
            directory_interval: interval,
        }
    }
}

/// systemd units.
#[derive(Clone, PartialEq, Debug)]
pub struct Services {
    /// Patterns, as `systemctl` takes them, of the units that are exported besides those that serve models.
    pub units: Vec<String>,
}

impl Default for Services {
    fn default() -> Self {
        Self { units: vec!["citadel-*.service".to_owned()] }
    }
}
