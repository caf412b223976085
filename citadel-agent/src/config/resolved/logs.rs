//! `logs`: reading, counting and sending the systemd journal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;

use super::access::{Access, have_urls};
use super::host::{PROGRAM, UNIT_PATTERN, unit_pattern};
use crate::config::kind::{
    ABSOLUTE_PATH, BOOLEAN, COUNT, INTERVAL, List, Mapping, Optional, Scalar, TEXT, URL, Words, string_like,
};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Keys, Section, keys_of, part, section};
use crate::config::tree::Node;
use crate::config::value::{self, text};
use crate::config::yaml::Yaml;

/// Names of the built-in events, which cannot be redefined.
pub const SHIPPED_EVENTS: [&str; 5] = ["cuda_out_of_memory", "nccl_timeout", "engine_dead", "oom_kill", "xid"];

section! {
    /// Reading, counting and sending the journal.
    pub struct Logs [check destinations_have_urls] {
        /// Whether to read the systemd journal, for `citadel_model_log_*` and for sending logs.
        enabled: bool = true, BOOLEAN;
        /// The journalctl program, which reads the journal; a name without a slash is looked up in `PATH`. Without it, logs are neither
        /// counted nor sent.
        journalctl: PathBuf = "journalctl".into(), PROGRAM;
        /// Directory of journal files; absent: the host's journal.
        journal: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Directory for the journal cursor of each destination; absent: `logs` in systemd's `STATE_DIRECTORY`, else
        /// `/var/lib/citadel-agent/logs`.
        directory: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// systemd units whose journal entries are sent besides those of models; patterns as in `systemctl`.
        units: Vec<String> = Vec::new(), List { of: LOG_UNIT, what: "patterns", most: 64 };
        /// Names of containers whose journal entries are sent besides those of models (log driver `journald` of Docker and Podman).
        containers: Vec<String> = Vec::new(), List { of: CONTAINER, what: "patterns", most: 64 };
        /// Whether to send kernel log lines about GPUs and the OOM killer.
        kernel: bool = true, BOOLEAN;
        /// Minimum severity of entries to send, parsed from the line or else taken from the journal's priority.
        severity: Severity = Severity::Debug, Words(Severity::WORDS);
        /// Maximum number of entries per second of a unit or container, with bursts of ten times as many; further entries are dropped and
        /// counted. `0`: no limit.
        rate_limit: u64 = 1000, COUNT;
        /// Additional events of `citadel_model_log_events_total`, matched against the log lines of models.
        events: BTreeMap<String, String> = BTreeMap::new(), EVENTS;
        /// Destinations by name; a name consists of letters, digits, `_` and `-`.
        destinations: BTreeMap<String, LogDestination> = BTreeMap::new(), DESTINATIONS;
    }
}

section! {
    /// A destination of logs.
    pub struct LogDestination {
        /// URL to send entries to, such as `http://loki:3100/loki/api/v1/push`. Required.
        url: Option<String> = None, Optional(URL);
        /// Protocol: OTLP over HTTP (`/v1/logs`), Loki's push API, or that of `systemd-journal-remote` (`/upload`).
        format: Format = Format::Otlp, Words(Format::WORDS);
        /// Timeout of a request.
        timeout: Duration = Duration::from_secs(30), INTERVAL;
        /// Credentials and TLS settings.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

fn destinations_have_urls(logs: &Logs, section: &Section<'_>, mistakes: &mut Mistakes) {
    let destinations = logs.destinations.iter().map(|(name, destination)| (name, destination.url.is_some()));
    have_urls(destinations, section, mistakes);
}

const LOG_UNIT: Scalar<String> = Scalar { read: log_unit, ..UNIT_PATTERN };

const CONTAINER: Scalar<String> = Scalar { text: "pattern", read: container, ..TEXT };

fn log_unit(node: &Node) -> Result<String, String> {
    let text = unit_pattern(node)?;
    pattern(&text).map(|_| text)
}

fn container(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    pattern(&text).map(|_| text)
}

const DESTINATIONS: Mapping<Keys<LogDestination>> = Mapping {
    text: "mapping of names to destinations",
    expected: "a mapping of names to their settings",
    most: usize::MAX,
    name: value::plain_name,
    value: keys_of::<LogDestination>(),
};

const EVENTS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of event names to regular expressions",
    expected: "a mapping of event names to regular expressions, or {} for none",
    most: 64,
    name: event_name,
    value: Scalar { text: "regular expression", schema: || string_like("."), read: regex, write: Yaml::text },
};

fn event_name(name: &str) -> Result<String, String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if name.is_empty() || name.len() > 64 || !plain {
        Err(format!("{} is not an event name: use a-z, 0-9 and _", quoted(name)))
    } else if SHIPPED_EVENTS.contains(&name) {
        Err(format!("{name} is a built-in event; choose another name"))
    } else {
        Ok(name.to_owned())
    }
}

fn regex(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match Regex::new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{} is not a valid regular expression: {error}", quoted(&text))),
    }
}

/// Protocol of a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// OTLP over HTTP.
    Otlp,
    /// Loki's push API.
    Loki,
    /// The protocol of `systemd-journal-remote`.
    Journal,
}

impl Format {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("otlp", Self::Otlp), ("loki", Self::Loki), ("journal", Self::Journal)];
}

/// Severity of an entry, most severe first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// syslog's emerg, alert and crit.
    Critical,
    /// syslog's err.
    Error,
    /// syslog's warning.
    Warning,
    /// syslog's notice and info.
    Info,
    /// syslog's debug.
    Debug,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Critical, Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("critical", Self::Critical),
        ("error", Self::Error),
        ("warning", Self::Warning),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    /// The label value, and OpenTelemetry's severity text.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// Compiles a pattern as in `fnmatch(3)`: `*`, `?`, `[...]`, `[!...]`.
///
/// # Errors
/// It is invalid.
pub fn pattern(glob: &str) -> Result<Regex, String> {
    let mut regex = String::from("^(?s:");
    let (mut chars, mut in_class) = (glob.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '*' if !in_class => regex.push_str(".*"),
            '?' if !in_class => regex.push('.'),
            '[' if !in_class => {
                let inverted = chars.next_if(|c| "!^".contains(*c)).is_some();
                regex.push_str(if inverted { "[^" } else { "[" });
                in_class = true;
            }
            ']' | '-' if in_class => {
                regex.push(c);
                in_class = c != ']';
            }
            c => regex.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push_str(")$");
    Regex::new(&regex).map_err(|_| format!("{glob:?} is not a valid pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_file_names() {
        for (glob, name, is) in [
            ("citadel-*.service", "citadel-phi3.service", true),
            ("citadel-*.service", "xcitadel-phi3.service", false),
            ("a.b", "axb", false),
            ("[ab]?", "b1", true),
            ("[!ab]1", "b1", false),
            ("[!ab]1", "c1", true),
            ("a\\x2db@.service", "a\\x2db@.service", true),
        ] {
            assert_eq!(pattern(glob).unwrap().is_match(name), is, "{glob} {name}");
        }
        assert!(pattern("[a").is_err());
    }
}
