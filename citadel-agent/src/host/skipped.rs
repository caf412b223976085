//! Unreadable input of a source is skipped, counted and logged once, and the rest is exported.
//!
//! A reader records each malformed line, field or file in a [`Skipped`]. The caller keeps a [`Tally`] per source, which
//! adds up over reads. Kinds are names in the code, so both are bounded regardless of the input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::str::FromStr;

use tracing::warn;

use super::files::{self, ReadError};

/// Maximum length of an example, in characters.
const MAX_EXAMPLE: usize = 120;

/// What one read or parse has skipped, by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    kinds: BTreeMap<&'static str, Kind>,
    elsewhere: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Kind {
    count: u64,
    /// The first one, escaped and truncated.
    example: String,
}

impl Skipped {
    /// Records that something is skipped. `what` is the file or field, `found` the invalid content.
    pub fn note(&mut self, what: &'static str, found: impl Display) {
        let kind = self.kinds.entry(what).or_insert_with(|| {
            let found = found.to_string();
            Kind { count: 0, example: found.chars().take(MAX_EXAMPLE).flat_map(char::escape_debug).collect() }
        });
        kind.count += 1;
    }

    /// Returns `parsed`, and records `found` if it is `None`.
    pub fn or_note<T>(&mut self, parsed: Option<T>, what: &'static str, found: impl Display) -> Option<T> {
        if parsed.is_none() {
            self.note(what, found);
        }
        parsed
    }

    /// Returns the result of reading a file that may have disappeared; a malformed one is recorded.
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

    /// Reads a file of lines. `None` if the host does not have it, hides it (a masked file in a container is empty),
    /// has the feature disabled, or if it cannot be read, which is recorded.
    ///
    /// An incomplete last line is ignored: a truncated number would be wrong.
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

    /// Like [`Skipped::bytes`]. External names can contain any bytes; invalid UTF-8 is replaced, not rejected.
    pub fn text(&mut self, what: &'static str, path: &Path) -> Option<String> {
        Some(files::text(self.bytes(what, path)?))
    }

    /// Reads a file with a single number. `None` if it does not exist, if the driver cannot provide it now, or if it is
    /// not a number, which is recorded.
    pub fn number<T: FromStr>(&mut self, what: &'static str, path: &Path) -> Option<T> {
        self.value(what, path, |text| text.parse().ok())
    }

    /// Reads a file with a single value, like [`Skipped::number`].
    pub fn value<T>(&mut self, what: &'static str, path: &Path, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = files::read_value(path)?;
        if is_unknown(&text) {
            return None;
        }
        self.or_note(parse(&text), what, &text)
    }

    /// Sorted names in a directory. `None` if it does not exist or cannot be listed, which is recorded.
    pub fn list(&mut self, what: &'static str, path: &Path) -> Option<Vec<String>> {
        let names = match files::list(path) {
            Ok(names) => names?,
            Err(error) => {
                self.note(what, error);
                return None;
            }
        };
        // Names from the kernel are ASCII, those of users can be anything.
        let names = names
            .into_iter()
            .filter_map(|name| name.into_string().map_err(|name| self.note(what, name.display())).ok());
        Some(names.collect())
    }

    /// Sets how much another thread, which logs by itself, has skipped in total.
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

    /// Whether everything was readable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The number of skipped items.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|kind| kind.count).sum()
    }

    /// A summary: an example of each kind.
    #[must_use]
    pub fn summary(&self) -> String {
        let examples = self.kinds.iter().map(|(what, kind)| format!("{what}: {}", kind.example));
        examples.collect::<Vec<_>>().join("; ")
    }
}

/// Whether a driver marks the value as unknown: `<unknown>`, `<unsupported>`, `unknown`.
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
    /// Adds the result of a read; new kinds are logged.
    pub fn add(&mut self, source: &str, skipped: &Skipped) {
        for (what, kind) in &skipped.kinds {
            self.total += kind.count;
            if self.logged.insert(what) {
                let example = kind.example.as_str();
                warn!(source, what, example, "skipped unreadable input; the rest of the source is exported");
            }
        }
        self.elsewhere = self.elsewhere.max(skipped.elsewhere);
    }

    /// The total of all reads.
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
