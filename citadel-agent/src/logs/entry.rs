//! What an entry of the journal is of. Only fields that journald itself writes (`_...`) are trusted for that: any process can give
//! its entries any other. Pure.

use std::borrow::Cow;

use super::export::Fields;
use super::severity::{Severity, split};

/// Longest cursor that is taken (systemd's have some 150 bytes).
const MAX_CURSOR: usize = 512;

/// An entry with its place and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where in the journal it is.
    pub cursor: String,
    /// Its time, in microseconds since the epoch.
    pub time_us: u64,
    /// All that is known of it.
    pub fields: Fields,
}

/// Who wrote an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin<'a> {
    /// The kernel itself.
    Kernel,
    /// A container: its name, and its ID.
    Container(&'a str, &'a str),
    /// A systemd unit, or systemd about it.
    Unit(&'a str),
    /// Anything else.
    None,
}

impl Entry {
    /// `None`: it has no place or no time, so it is none of journald's.
    #[must_use]
    pub fn of(fields: Fields) -> Option<Self> {
        let cursor = fields.text("__CURSOR")?;
        let plain = cursor.len() <= MAX_CURSOR && cursor.bytes().all(|byte| byte.is_ascii_graphic());
        let (cursor, time_us) = (cursor.to_owned(), fields.text("__REALTIME_TIMESTAMP")?.parse().ok()?);
        plain.then_some(Self { cursor, time_us, fields })
    }

    /// Its text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.fields.get("MESSAGE").unwrap_or_default())
    }

    /// The journal's priority.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.fields.text("PRIORITY")?.parse().ok().filter(|priority| *priority <= 7)
    }

    /// How serious it is: as its text says, else by its priority.
    #[must_use]
    pub fn severity(&self) -> Severity {
        split(&self.message()).0.unwrap_or_else(|| Severity::of_priority(self.priority().unwrap_or(6)))
    }

    /// The process that wrote it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.fields.text("_PID")?.parse().ok()
    }

    /// Who wrote it.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        let field = |name| self.fields.text(name).filter(|value| !value.is_empty());
        if field("_TRANSPORT") == Some("kernel") {
            // What a program writes to /dev/kmsg has another facility.
            return if field("SYSLOG_FACILITY").unwrap_or("0") == "0" { Origin::Kernel } else { Origin::None };
        }
        let root = field("_UID") == Some("0");
        if root && let (Some(name), Some(id)) = (field("CONTAINER_NAME"), field("CONTAINER_ID_FULL")) {
            return Origin::Container(name, id);
        }
        // What systemd says about a unit, and what systemd-coredump does.
        let about = match field("_PID") {
            Some("1") if root => field("UNIT"),
            _ if root => field("COREDUMP_UNIT"),
            _ => None,
        };
        let own = || field("_SYSTEMD_USER_UNIT").or_else(|| field("_SYSTEMD_UNIT"));
        about.or_else(own).map_or(Origin::None, Origin::Unit)
    }

    /// Its number in its journal, and the journal's ID.
    #[must_use]
    pub fn number(&self) -> Option<(&str, u64)> {
        number(&self.cursor)
    }
}

/// The journal's ID and the entry's number in a cursor (`s=ID;i=NUMBER;...`).
#[must_use]
pub fn number(cursor: &str) -> Option<(&str, u64)> {
    let field = |name: &str| cursor.split(';').find_map(|field| field.strip_prefix(name));
    Some((field("s=")?, u64::from_str_radix(field("i=")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
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
