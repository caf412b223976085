//! The state of a destination: its cursor, and counters of entries. One small file each, always replaced as a whole,
//! after the receiver has answered.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::reader::{Lost, Position};
use crate::state_file;

/// Version of the file format; files with another version are not read.
const VERSION: u32 = 1;

/// A larger file was not written by the agent.
const MAX_BYTES: u64 = 64 << 10;

/// A destination's account. Invariant: collected = acknowledged + rejected + limited + pending.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    version: u32,
    /// The last settled entry and its time; `None`: nothing before the first entry since `since_us`.
    cursor: Option<(String, u64)>,
    since_us: u64,
    /// Entries accepted by the receiver.
    pub acknowledged: u64,
    /// Entries rejected by the receiver.
    pub rejected: u64,
    /// Entries dropped because their unit exceeded its rate limit.
    pub limited: u64,
    /// Entries of which a part was too long.
    pub truncated: u64,
    /// Journal entries that were deleted before they were read.
    pub lost_entries: u64,
    /// Duration of these gaps, in microseconds.
    pub lost_us: u64,
}

impl Account {
    /// A new account that starts at `place`.
    #[must_use]
    pub fn new(position: Position) -> Self {
        let (cursor, since_us) = match position {
            Position::After(cursor, time_us) => (Some((cursor, time_us)), 0),
            Position::Since(us) => (None, us),
            Position::End => (None, 0),
        };
        Self {
            version: VERSION,
            cursor,
            since_us,
            acknowledged: 0,
            rejected: 0,
            limited: 0,
            truncated: 0,
            lost_entries: 0,
            lost_us: 0,
        }
    }

    /// Where to continue.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.cursor {
            Some((cursor, time_us)) => Position::After(cursor.clone(), *time_us),
            None => Position::Since(self.since_us),
        }
    }

    /// Moves to the current position in the journal, up to which everything is settled.
    pub fn move_to(&mut self, position: &Position) {
        if let Position::After(cursor, time_us) = position {
            self.settled_up_to(cursor, *time_us);
        }
    }

    /// Moves past an entry.
    pub fn settled_up_to(&mut self, cursor: &str, time_us: u64) {
        self.cursor = Some((cursor.to_owned(), time_us));
    }

    /// Counts lost entries.
    pub fn lose(&mut self, lost: Lost) {
        self.lost_entries += lost.entries;
        self.lost_us += lost.us;
    }

    /// Reads the account at `path`; `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or is not trustworthy.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match state_file::read(path, MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let account: Self = serde_json::from_slice(&bytes)?;
        match account.version {
            VERSION => Ok(Some(account)),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is of version {other}"))),
        }
    }

    /// Writes it to `path` atomically: after a crash the file has the old or the new content.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        state_file::replace(path, &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_as_it_was_written_and_a_torn_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(Account::read(&path).unwrap(), None);
        let mut account = Account::new(Position::Since(5));
        assert_eq!(account.position(), Position::Since(5));
        account.settled_up_to("s=1;i=2", 7);
        account.acknowledged = 9;
        account.write(&path).unwrap();
        assert_eq!(Account::read(&path).unwrap(), Some(account.clone()));
        assert_eq!(account.position(), Position::After("s=1;i=2".to_owned(), 7));
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Account::read(&path).is_err(), "{length}");
        }
        for (what, make) in state_file::tests::INTRUDERS {
            _ = std::fs::remove_file(&path);
            let path = dir.path().join(what.replace(' ', "-"));
            _ = std::fs::remove_file(&path);
            if !path.exists() && std::fs::symlink_metadata(&path).is_err() {
                make(&path);
            }
            assert!(Account::read(&path).unwrap_err().to_string().contains(what), "{what}");
        }
    }
}
