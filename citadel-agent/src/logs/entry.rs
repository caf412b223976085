//! The origin of a journal entry. Only fields written by journald itself (`_...`) are trusted: any process can set any
//! other field of its entries. Pure.

use std::borrow::Cow;

use super::export::Fields;
use super::severity::{Severity, split};

/// Maximum length of a cursor (systemd's have about 150 bytes).
const MAX_CURSOR: usize = 512;

/// An entry with its position and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its position in the journal.
    pub cursor: String,
    /// Its time, in microseconds since 1970.
    pub time_us: u64,
    /// All its fields.
    pub fields: Fields,
}

/// The origin of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin<'a> {
    /// The kernel itself.
    Kernel,
    /// A container: its name and ID.
    Container(&'a str, &'a str),
    /// A systemd unit; includes messages of systemd about it.
    Unit(&'a str),
    /// Anything else.
    None,
}

impl Entry {
    /// `None` if it has no position or no time, so that it did not come from journald.
    #[must_use]
    pub fn of(fields: Fields) -> Option<Self> {
        let cursor = fields.text("__CURSOR")?;
        let plain = cursor.len() <= MAX_CURSOR && cursor.bytes().all(|byte| byte.is_ascii_graphic());
        let (cursor, time_us) = (cursor.to_owned(), fields.text("__REALTIME_TIMESTAMP")?.parse().ok()?);
        plain.then_some(Self { cursor, time_us, fields })
    }

    /// Its text; invalid UTF-8 is replaced.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.fields.get("MESSAGE").unwrap_or_default())
    }

    /// The journal's priority.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.fields.text("PRIORITY")?.parse().ok().filter(|priority| *priority <= 7)
    }

    /// Its severity: from its text if possible, else from its priority.
    #[must_use]
    pub fn severity(&self) -> Severity {
        split(&self.message()).0.unwrap_or_else(|| Severity::of_priority(self.priority().unwrap_or(6)))
    }

    /// PID of the process that wrote it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.fields.text("_PID")?.parse().ok()
    }

    /// The origin.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        let field = |name| self.fields.text(name).filter(|value| !value.is_empty());
        if field("_TRANSPORT") == Some("kernel") {
            // Messages that a program writes to /dev/kmsg have another facility.
            return if field("SYSLOG_FACILITY").unwrap_or("0") == "0" { Origin::Kernel } else { Origin::None };
        }
        let root = field("_UID") == Some("0");
        if root && let (Some(name), Some(id)) = (field("CONTAINER_NAME"), field("CONTAINER_ID_FULL")) {
            return Origin::Container(name, id);
        }
        // Messages of systemd and systemd-coredump about a unit.
        let about = match field("_PID") {
            Some("1") if root => field("UNIT"),
            _ if root => field("COREDUMP_UNIT"),
            _ => None,
        };
        let own = || field("_SYSTEMD_USER_UNIT").or_else(|| field("_SYSTEMD_UNIT"));
        about.or_else(own).map_or(Origin::None, Origin::Unit)
    }

    /// Its sequence number, and the ID of its journal.
    #[must_use]
    pub fn number(&self) -> Option<(&str, u64)> {
        number(&self.cursor)
    }
}

/// The journal's ID and the entry's sequence number in a cursor (`s=ID;i=NUMBER;...`).
#[must_use]
pub fn number(cursor: &str) -> Option<(&str, u64)> {
    let field = |name: &str| cursor.split(';').find_map(|field| field.strip_prefix(name));
    Some((field("s=")?, u64::from_str_radix(field("i=")?, 16).ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry with these fields.
    pub(in crate::logs) fn entry(fields: &[(&str, &str)]) -> Entry {
        let mut all = Fields::default();
        all.push("__CURSOR", b"s=ab;i=1f;b=cd;m=1;t=2;x=3");
        all.push("__REALTIME_TIMESTAMP", b"1700000000000000");
        fields.iter().for_each(|(name, value)| all.push(name, value.as_bytes()));
        Entry::of(all).unwrap()
    }

    #[test]
    fn who_wrote_an_entry_is_what_journald_says() {
        for (fields, origin) in [
            (&[("_SYSTEMD_UNIT", "a.service")][..], Origin::Unit("a.service")),
            (&[("_SYSTEMD_UNIT", "user@7.service"), ("_SYSTEMD_USER_UNIT", "b.service")], Origin::Unit("b.service")),
            (
                &[("_PID", "1"), ("_UID", "0"), ("_SYSTEMD_UNIT", "init.scope"), ("UNIT", "a.service")],
                Origin::Unit("a.service"),
            ),
            (
                &[("_PID", "7"), ("_UID", "7"), ("_SYSTEMD_UNIT", "b.service"), ("UNIT", "a.service")],
                Origin::Unit("b.service"),
            ),
            (
                &[("_UID", "0"), ("COREDUMP_UNIT", "a.service"), ("_SYSTEMD_UNIT", "c.service")],
                Origin::Unit("a.service"),
            ),
            (&[("_UID", "7"), ("COREDUMP_UNIT", "a.service")], Origin::None),
            (&[("_TRANSPORT", "kernel"), ("SYSLOG_FACILITY", "0")], Origin::Kernel),
            (&[("_TRANSPORT", "kernel"), ("SYSLOG_FACILITY", "1")], Origin::None),
            (
                &[
                    ("_UID", "0"),
                    ("_SYSTEMD_UNIT", "docker.service"),
                    ("CONTAINER_NAME", "phi3"),
                    ("CONTAINER_ID_FULL", "0123"),
                ],
                Origin::Container("phi3", "0123"),
            ),
            (
                &[
                    ("_UID", "7"),
                    ("_SYSTEMD_UNIT", "a.service"),
                    ("CONTAINER_NAME", "phi3"),
                    ("CONTAINER_ID_FULL", "0"),
                ],
                Origin::Unit("a.service"),
            ),
        ] {
            assert_eq!(entry(fields).origin(), origin, "{fields:?}");
        }
    }

    #[test]
    fn a_cursor_has_the_number_of_its_entry() {
        assert_eq!(entry(&[]).number(), Some(("ab", 31)));
        for cursor in ["", "s=1", "i=1", "s=a;i=xyz"] {
            assert_eq!(number(cursor), None, "{cursor}");
        }
    }

    #[test]
    fn without_place_or_time_it_is_no_entry() {
        let of = |cursor: &str, time: &str| {
            let mut fields = Fields::default();
            fields.push("__CURSOR", cursor.as_bytes());
            fields.push("__REALTIME_TIMESTAMP", time.as_bytes());
            Entry::of(fields)
        };
        assert!(of("s=1;i=1", "5").is_some());
        assert!(of("", "").is_none() && of("s=1", "-1").is_none() && of("a b", "1").is_none());
        assert!(of(&"x".repeat(600), "1").is_none());
    }
}
