//! `logs`: what of systemd's journal is read, counted and sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;

use super::access::Access;
use super::host::{PROGRAM, UNIT_PATTERN, unit_pattern};
use crate::config::kind::{
    ABSOLUTE_PATH, BOOLEAN, COUNT, INTERVAL, List, Mapping, Optional, Scalar, TEXT, URL, Words, string_like,
};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Keys, Section, keys_of, part, section};
use crate::config::tree::Node;
use crate::config::value::{self, text};
use crate::config::yaml::Yaml;

/// Names of the shipped events, which no configured one may have.
pub const SHIPPED_EVENTS: [&str; 5] = ["cuda_out_of_memory", "nccl_timeout", "engine_dead", "oom_kill", "xid"];

section! {
    /// What of the journal is read, counted and sent.
    pub struct Logs [check destinations_have_urls] {
        /// Whether systemd's journal is read: `citadel_model_log_*` on the pages, and what is sent.
        enabled: bool = true, BOOLEAN;
        /// Reads the journal; a name without a slash is looked for on the path. Without it nothing is counted or sent.
        journalctl: PathBuf = "journalctl".into(), PROGRAM;
        /// Directory of the journal's files; absent: this host's journal.
        journal: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Where it is kept how far each destination has got; absent: `logs` in the folder that systemd names
        /// (`STATE_DIRECTORY`), else `/var/lib/citadel-agent/logs`.
        directory: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// systemd units whose entries are sent besides those of models; patterns as `systemctl` takes them.
        units: Vec<String> = Vec::new(), List { of: LOG_UNIT, what: "patterns", most: 64 };
        /// Containers whose entries are sent besides those of models, by name (the drivers `journald` of Docker and Podman).
        containers: Vec<String> = Vec::new(), List { of: CONTAINER, what: "patterns", most: 64 };
        /// Whether the kernel's lines about GPUs and the out-of-memory killer are sent.
        kernel: bool = true, BOOLEAN;
        /// The least serious entries that are sent: by what the line says, else by the journal's priority.
        severity: Severity = Severity::Debug, Words(Severity::WORDS);
        /// Entries a second that a unit or container may send, ten times as many at once; those beyond are dropped, and counted.
        /// `0`: any number.
        rate_limit: u64 = 1000, COUNT;
        /// Further events of `citadel_model_log_events_total`, searched in the lines of models.
        events: BTreeMap<String, String> = BTreeMap::new(), EVENTS;
        /// Destinations by name: letters, digits, `_` and `-`.
        destinations: BTreeMap<String, LogDestination> = BTreeMap::new(), DESTINATIONS;
    }
}

section! {
    /// Where entries go, and how to get in there.
    pub struct LogDestination {
        /// Where entries go, such as `http://loki:3100/loki/api/v1/push`. Required.
        url: Option<String> = None, Optional(URL);
        /// OTLP over HTTP (`/v1/logs`), Loki's push API, or what `systemd-journal-remote` takes (`/upload`).
        format: Format = Format::Otlp, Words(Format::WORDS);
        /// How long a request may take.
        timeout: Duration = Duration::from_secs(30), INTERVAL;
        /// How the agent gets in.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

fn destinations_have_urls(logs: &Logs, section: &Section<'_>, mistakes: &mut Mistakes) {
    let Some(written) = section.written("destinations") else { return };
    for (name, destination) in &logs.destinations {
        let Some(item) = written.entry(name) else { continue };
        if destination.url.is_none() && !mistakes.concern(&format!("{}.url", item.path)) {
            mistakes.push(item.key_pos, item.path, "has no url");
        }
    }
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
        Err(format!("{} is not a name: a-z, 0-9 and _", quoted(name)))
    } else if SHIPPED_EVENTS.contains(&name) {
        Err(format!("{name} is a shipped event; take another name"))
    } else {
        Ok(name.to_owned())
    }
}

fn regex(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match Regex::new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{} is no regular expression: {error}", quoted(&text))),
    }
}

/// How a receiver is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// OpenTelemetry's protocol over HTTP.
    Otlp,
    /// Loki's push API.
    Loki,
    /// What `systemd-journal-remote` takes.
    Journal,
}

impl Format {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("otlp", Self::Otlp), ("loki", Self::Loki), ("journal", Self::Journal)];
}

/// How serious an entry is; the first is the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// syslog's emerg, alert and crit.
    Critical,
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// syslog's notice and info.
    Info,
    /// Debug.
    Debug,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Critical, Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("critical", Self::Critical),
        ("error", Self::Error),
        ("warning", Self::Warning),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    /// As the value of a label, and as OpenTelemetry's severity text.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// A pattern as `fnmatch(3)` has them: `*`, `?`, `[...]`, `[!...]`.
///
/// # Errors
/// It is none.
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
    Regex::new(&regex).map_err(|_| format!("{glob:?} is no pattern"))
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
