//! What cannot be read of a source's input: it is skipped, counted and logged once, and the rest is exported.
//!
//! A reader is handed a [`Skipped`] and notes in it each line, field or file that is not as documented. Whoever runs the reader
//! keeps a [`Tally`] for the source, which adds up over reads. The kinds are names in the code, so both are bounded whatever
//! the input is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::str::FromStr;

use tracing::warn;

use super::files::{self, ReadError};

/// Longest example that is kept of what was skipped, in characters.
const MAX_EXAMPLE: usize = 120;

/// What one read, or one parse, has skipped, by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    kinds: BTreeMap<&'static str, Kind>,
    elsewhere: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Kind {
    count: u64,
    /// The first one, escaped and shortened.
    example: String,
}

impl Skipped {
    /// Notes something that is skipped. `what` is the file or the field, `found` what was in its place.
    pub fn note(&mut self, what: &'static str, found: impl Display) {
        let kind = self.kinds.entry(what).or_insert_with(|| {
            let found = found.to_string();
            Kind { count: 0, example: found.chars().take(MAX_EXAMPLE).flat_map(char::escape_debug).collect() }
        });
        kind.count += 1;
    }

    /// Passes on what was parsed, and notes `found` where nothing could be.
    pub fn or_note<T>(&mut self, parsed: Option<T>, what: &'static str, found: impl Display) -> Option<T> {
        if parsed.is_none() {
            self.note(what, found);
        }
        parsed
    }

    /// Passes on what was read of a file that may be gone; one that is not as documented is noted.
    pub fn unless_malformed<T>(&mut self, read: io::Result<T>, what: &'static str) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    self.note(what, error);
                }
                None
            }
        }
    }

    /// Reads a file of lines. `None`: this host has no such file, hides it (a container's masked file is empty), has the feature
    /// switched off, or it cannot be read, which is noted.
    ///
    /// A last line that does not end is left out: a number that is cut off is a wrong one.
    pub fn bytes(&mut self, what: &'static str, path: &Path) -> Option<Vec<u8>> {
        let mut bytes = match files::read_lines(path) {
            Ok(bytes) => bytes?,
            Err(ReadError::Io { cause, .. }) if cause.raw_os_error() == Some(libc::EOPNOTSUPP) => return None,
            Err(error) => {
                self.note(what, error);
                return None;
            }
        };
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if end < bytes.len() {
            self.note(what, format_args!("{} (the line does not end)", String::from_utf8_lossy(&bytes[end..])));
            bytes.truncate(end);
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// As [`Skipped::bytes`]. Names that come from outside may hold any bytes; what is no UTF-8 is marked, not refused.
    pub fn text(&mut self, what: &'static str, path: &Path) -> Option<String> {
        Some(files::text(self.bytes(what, path)?))
    }

    /// Reads a file that holds one number. `None`: there is none, the driver cannot say it now, or it is no number, which is noted.
    pub fn number<T: FromStr>(&mut self, what: &'static str, path: &Path) -> Option<T> {
        self.value(what, path, |text| text.parse().ok())
    }

    /// Reads a file that holds one value, as [`Skipped::number`] does.
    pub fn value<T>(&mut self, what: &'static str, path: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = files::read_value(path)?;
        if is_unknown(&text) {
            return None;
        }
        self.or_note(parse(&text), what, &text)
    }

    /// Names in a directory, in order. `None`: there is no such directory, or it cannot be listed, which is noted.
    pub fn list(&mut self, what: &'static str, path: &Path) -> Option<Vec<String>> {
        let names = match files::list(path) {
            Ok(names) => names?,
            Err(error) => {
                self.note(what, error);
                return None;
            }
        };
        // The kernel's own names are ASCII, those of users may be anything.
        let names = names
            .into_iter()
            .filter_map(|name| name.into_string().map_err(|name| self.note(what, name.display())).ok());
        Some(names.collect())
    }

    /// Takes over how much another thread, which logs it itself, has skipped since it began.
    pub fn count_elsewhere(&mut self, total: u64) {
        self.elsewhere = total;
    }

    /// Adds what another reader of the same source has skipped.
    pub fn append(&mut self, other: Self) {
        for (what, kind) in other.kinds {
            let own = self.kinds.entry(what).or_insert(Kind { count: 0, example: kind.example });
            own.count += kind.count;
        }
        self.elsewhere += other.elsewhere;
    }

    /// Whether everything could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How much was skipped.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|kind| kind.count).sum()
    }

    /// What was skipped, for people: an example of each kind.
    #[must_use]
    pub fn summary(&self) -> String {
        let examples = self.kinds.iter().map(|(what, kind)| format!("{what}: {}", kind.example));
        examples.collect::<Vec<_>>().join("; ")
    }
}

/// Whether this is how drivers write that they do not know a value: `<unknown>`, `<unsupported>`, `unknown`.
#[must_use]
pub fn is_unknown(text: &str) -> bool {
    text.starts_with('<') || text == "unknown"
}

/// What a source has skipped since the agent started.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    total: u64,
    elsewhere: u64,
    logged: BTreeSet<&'static str>,
}

impl Tally {
    /// Adds what a read has skipped; a kind that is new is logged.
    pub fn add(&mut self, source: &str, skipped: &Skipped) {
        for (what, kind) in &skipped.kinds {
            self.total += kind.count;
            if self.logged.insert(what) {
                let example = kind.example.as_str();
                warn!(source, what, example, "skipped what cannot be read; the rest of the source is exported");
            }
        }
        self.elsewhere = self.elsewhere.max(skipped.elsewhere);
    }

    /// How much was skipped in all reads.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total + self.elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn absent_hidden_cut_and_endless_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |path: &Path| {
            let mut skipped = Skipped::default();
            (skipped.text("file", path), skipped.count())
        };
        assert_eq!(read(&path), (None, 0));
        assert_eq!(read(&path.join("below")), (None, 0));
        fs::write(&path, "").unwrap();
        assert_eq!(read(&path), (None, 0));
        fs::write(&path, "MemFree: 12").unwrap();
        assert_eq!(read(&path), (None, 1));
        fs::write(&path, "MemFree: 12\nBuff").unwrap();
        assert_eq!(read(&path), (Some("MemFree: 12\n".to_owned()), 1));
        fs::write(&path, b"\xff 1\n").unwrap();
        assert_eq!(read(&path), (Some("\u{fffd} 1\n".to_owned()), 0));
        assert_eq!(read(Path::new("/dev/zero")), (None, 1));
        assert_eq!(read(folder.path()), (None, 1));
    }

    #[test]
    fn a_value_that_is_not_there_is_absent_and_one_that_is_no_number_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut skipped = Skipped::default();
        assert_eq!(skipped.number::<u64>("number", &path), None);
        for silent in ["", "\n", "<unknown>\n", "unknown\n"] {
            fs::write(&path, silent).unwrap();
            assert_eq!(skipped.number::<u64>("number", &path), None);
        }
        assert!(skipped.is_empty());
        fs::write(&path, "42\n").unwrap();
        assert_eq!(skipped.number("number", &path), Some(42));
        fs::write(&path, "none\n").unwrap();
        assert_eq!((skipped.number::<u64>("number", &path), skipped.summary()), (None, "number: none".to_owned()));
    }

    #[test]
    fn names_of_any_bytes_are_noted_and_the_others_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [&b"eth1"[..], b"eth0", b"e\xff"] {
            fs::write(folder.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let mut skipped = Skipped::default();
        assert_eq!(skipped.list("devices", folder.path()).unwrap(), ["eth0", "eth1"]);
        assert_eq!(skipped.summary(), "devices: e\u{fffd}");
        assert_eq!(skipped.list("devices", &folder.path().join("none")), None);
        assert_eq!(skipped.count(), 1);
    }

    #[test]
    fn a_tally_grows_with_each_read_and_examples_are_short_and_escaped() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            let mut skipped = Skipped::default();
            skipped.note("line", format!("\u{1b}[31m\n{}", "x".repeat(10_000)));
            skipped.note("line", "another");
            skipped.count_elsewhere(5);
            assert!(skipped.summary().starts_with("line: \\u{1b}[31m\\nxxx") && skipped.summary().len() < 200);
            tally.add("source", &skipped);
        }
        assert_eq!(tally.total(), 11);
        assert_eq!(tally.logged.len(), 1);
    }
}
