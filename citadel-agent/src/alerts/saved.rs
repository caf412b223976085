//! Alerts on disk, so that they survive a restart: one file, always replaced as a whole.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::Alert;
use super::window::Millis;
use crate::state_file;

/// Version of the file format; files with another version are not read.
const VERSION: u32 = 1;

/// A larger file was not written by the agent.
const MAX_BYTES: u64 = 16 << 20;

/// The alerts at a point in time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// The time, in milliseconds since 1970.
    pub at: Millis,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

impl Saved {
    /// These alerts at `at`.
    #[must_use]
    pub fn new(alerts: Vec<Alert>, at: Millis) -> Self {
        Self { version: VERSION, at, alerts }
    }

    /// No alerts.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new(Vec::new(), 0)
    }
}

/// Why the alerts could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// The content is not in the format of this version.
    #[error("not a state file of this version: {0}")]
    Format(String),
}

/// Parses the content of a file.
///
/// # Errors
/// See [`SavedError`].
pub fn parse_saved(bytes: &[u8]) -> Result<Saved, SavedError> {
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| SavedError::Format(error.to_string()))?;
    match saved.version {
        VERSION => Ok(saved),
        other => Err(SavedError::Format(format!("version {other}"))),
    }
}

/// Reads the file at `path`; no alerts if it does not exist.
///
/// # Errors
/// See [`SavedError`].
pub fn read_saved(path: &Path) -> Result<Saved, SavedError> {
    match state_file::read(path, MAX_BYTES) {
        Ok(bytes) => parse_saved(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::nothing()),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file at `path` atomically: after a crash it has the old or the new content.
///
/// # Errors
/// The disk is full, the folder does not exist or is not writable, and so on.
pub fn write_saved(path: &Path, saved: &Saved) -> io::Result<()> {
    state_file::replace(path, &serde_json::to_vec(saved)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::alerts::{Phase, Texts};

    fn saved() -> Saved {
        let labels = Texts::from([("alertname".to_owned(), "A".to_owned())]);
        let alert = |phase| Alert { labels: labels.clone(), annotations: Texts::new(), phase };
        let phases = [
            Phase::Pending { since: 1 },
            Phase::Firing { since: 2, untrue_since: Some(3) },
            Phase::Resolved { since: 4, at: 5 },
        ];
        Saved::new(phases.map(alert).into(), 6)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.json");
        assert_eq!(read_saved(&path).unwrap(), Saved::nothing());
        for _ in 0..2 {
            write_saved(&path, &saved()).unwrap();
            assert_eq!(read_saved(&path).unwrap(), saved());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_torn_or_foreign_is_an_error_and_no_panic() {
        let whole = serde_json::to_vec(&saved()).unwrap();
        for length in 0..whole.len() {
            assert!(parse_saved(&whole[..length]).is_err());
        }
        let foreign = String::from_utf8(whole).unwrap().replace("\"version\":1", "\"version\":2");
        assert!(parse_saved(foreign.as_bytes()).unwrap_err().to_string().contains("version 2"));
        let dir = tempfile::tempdir().unwrap();
        assert!(read_saved(dir.path()).is_err());
        for (what, make) in state_file::tests::INTRUDERS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("alerts.json");
            make(&path);
            assert!(read_saved(&path).unwrap_err().to_string().contains(what));
            // Where the new one is written before it takes its place.
            make(&path.with_extension("new"));
            assert_eq!(write_saved(&path, &saved()).is_ok(), what != "a directory", "{what}");
        }
    }
}
