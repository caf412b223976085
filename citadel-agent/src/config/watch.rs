//! Triggers reloads of the configuration: on SIGHUP, and when the file has changed.
//!
//! The file is polled instead of watched with inotify: a `stat` every two seconds costs nothing, follows all symlinks
//! (a ConfigMap swaps one two levels up), detects a rename over the file, and works on network and overlay file
//! systems. An inode watch does none of this.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::host::files::FileVersion;

/// Polling interval. A change is reported when two consecutive polls agree.
pub const POLL_PERIOD: Duration = Duration::from_secs(2);

/// Reason for a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// A control command.
    Order,
    /// The file has changed since the last report, and has been stable for one period.
    FileChanged,
}

/// When the current configuration was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Time of the load.
    pub at: SystemTime,
    /// Whether a later configuration was refused.
    pub later_refused: bool,
}

impl Loaded {
    /// A configuration that was just loaded.
    #[must_use]
    pub fn now() -> Self {
        Self { at: SystemTime::now(), later_refused: false }
    }
}

/// Waits for reasons to reload.
#[derive(Debug)]
pub struct Watch {
    hangup: Signal,
    poll: Interval,
    file: Option<Watched>,
}

impl Watch {
    /// Installs a SIGHUP handler (until then the signal ends the process), and watches the file at `path`, if any.
    /// Changes count from now on, so a file that is loaded afterwards cannot be missed.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        Self::with_period(path, POLL_PERIOD)
    }

    /// [`Watch::new`] with another polling interval.
    ///
    /// # Errors
    /// See [`Watch::new`].
    pub fn with_period(path: Option<&Path>, period: Duration) -> io::Result<Self> {
        let mut poll = interval(period);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let file = path.map(Watched::new);
        Ok(Self { hangup: signal(SignalKind::hangup())?, poll, file })
    }

    /// The file is about to be reloaded by a command.
    pub fn ordered(&mut self) -> Trigger {
        if let Some(file) = &mut self.file {
            file.seen();
        }
        Trigger::Order
    }

    /// Waits for the next reason. Cancel safe.
    pub async fn next_reload(&mut self) -> Trigger {
        loop {
            tokio::select! {
                // `None` only if the runtime's signal driver is gone; polling continues.
                Some(()) = self.hangup.recv() => {
                    if let Some(file) = &mut self.file {
                        file.seen();
                    }
                    return Trigger::Signal;
                }
                _ = self.poll.tick() => {
                    if self.file.as_mut().is_some_and(Watched::changed) {
                        return Trigger::FileChanged;
                    }
                }
            }
        }
    }
}

/// A file, its last reported version, and the version that is not stable yet.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    reported: Option<FileVersion>,
    last: Option<FileVersion>,
}

impl Watched {
    fn new(path: &Path) -> Self {
        let now = FileVersion::of(path);
        Self { path: path.to_owned(), reported: now, last: now }
    }

    /// Polls. True once for each new version, when it has been seen twice: a file that is being written, or is absent
    /// between two renames, is not stable.
    fn changed(&mut self) -> bool {
        let now = FileVersion::of(&self.path);
        let settled = self.last == now;
        self.last = now;
        let changed = settled && self.reported != now;
        if changed {
            self.reported = now;
        }
        changed
    }

    /// The current version is about to be loaded anyway.
    fn seen(&mut self) {
        self.reported = FileVersion::of(&self.path);
        self.last = self.reported;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_reported_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "").unwrap();
        let mut watched = Watched::new(&path);
        assert!(!watched.changed());
        for text in ["a", "ab", "abc"] {
            fs::write(&path, text).unwrap();
            assert!(!watched.changed(), "{text:?} has not settled");
        }
        assert!(watched.changed());
        assert!(!watched.changed());
    }

    #[test]
    fn a_file_that_is_away_between_two_renames_is_no_change_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("config.yaml"), dir.path().join("aside"));
        fs::write(&path, "old").unwrap();
        fs::write(&aside, "new").unwrap();
        let mut watched = Watched::new(&path);
        fs::remove_file(&path).unwrap();
        assert!(!watched.changed(), "it was away for one look");
        fs::rename(&aside, &path).unwrap();
        assert!(!watched.changed(), "it has not settled");
        assert!(watched.changed());
    }
}
