//! Says when to load the configuration again: on SIGHUP, and when the file has changed.
//!
//! The file is polled rather than watched through inotify: one `stat` in two seconds costs nothing, follows every symlink
//! on the way (a ConfigMap swaps one two levels up), sees a rename over the file, and works on network and overlay
//! filesystems, none of which a watch on an inode does by itself.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the file is looked at. A change is reported when two looks in a row agree.
pub const POLL_PERIOD: Duration = Duration::from_secs(2);

/// Why the configuration should be loaded again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// An order from the command line.
    Order,
    /// The file is another than the one last reported, and has stayed so for one period.
    FileChanged,
}

/// Waits for reasons to load the configuration again.
#[derive(Debug)]
pub struct Watch {
    hangup: Signal,
    poll: Interval,
    file: Option<Watched>,
}

impl Watch {
    /// Takes over SIGHUP, which ends the process until then, and watches the file at `path`, if there is one.
    /// Changes count from now on: a file that is loaded afterwards cannot be missed.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        Self::with_period(path, POLL_PERIOD)
    }

    /// [`Watch::new`] with another polling period.
    ///
    /// # Errors
    /// As [`Watch::new`].
    pub fn with_period(path: Option<&Path>, period: Duration) -> io::Result<Self> {
        let mut poll = interval(period);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let file = path.map(Watched::new);
        Ok(Self { hangup: signal(SignalKind::hangup())?, poll, file })
    }

    /// The file is about to be loaded because somebody ordered it.
    pub fn ordered(&mut self) -> Trigger {
        if let Some(file) = &mut self.file {
            file.seen();
        }
        Trigger::Order
    }

    /// Waits for the next reason. Safe to cancel and call again: nothing is lost.
    pub async fn next_reload(&mut self) -> Trigger {
        loop {
            tokio::select! {
                // `None` only when the runtime's signal driver is gone; polling then goes on alone.
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

/// What tells one state of a file from another. The change time moves with everything that can be done to a file, also
/// where the modification time is set back (`cp -p`) or only the permissions were mended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The stamp of the file behind `path`; `None`: it cannot be seen, which is a state like any other.
fn stamp(path: &Path) -> Option<Stamp> {
    // A blocking call, but one stat of a local file: shorter than handing it to another thread.
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// A file, the state that was last reported, and the one that is waiting to settle.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    reported: Option<Stamp>,
    last: Option<Stamp>,
}

impl Watched {
    fn new(path: &Path) -> Self {
        let now = stamp(path);
        Self { path: path.to_owned(), reported: now, last: now }
    }

    /// One look. True once for each new state, when it has been the same twice: a file that is being written, or is away
    /// for a moment between two renames, has not settled.
    fn changed(&mut self) -> bool {
        let now = stamp(&self.path);
        let settled = self.last == now;
        self.last = now;
        let changed = settled && self.reported != now;
        if changed {
            self.reported = now;
        }
        changed
    }

    /// The present state is about to be loaded anyway.
    fn seen(&mut self) {
        self.reported = stamp(&self.path);
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
