//! `remote_write`: how samples are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::access::Access;
use crate::config::kind::{ABSOLUTE_PATH, BYTES, INTERVAL, Kind, Mapping, Optional, Scalar, TEXT, URL, Words};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Keys, Section, keys_of, part, section};
use crate::config::tree::Node;
use crate::config::value;

/// The destination that `remote_monitoring.prometheus.remote_write_url` is, by name.
pub const PROMETHEUS: &str = "prometheus";

section! {
    /// What is sent, how it is kept until it has arrived, and where it goes.
    pub struct RemoteWrite [check destinations_have_urls] {
        /// How often samples are collected for remote write; absent: every `remote_monitoring.prometheus.scrape_interval`.
        interval: Option<Duration> = None, Optional(INTERVAL);
        /// Where samples are kept until they have arrived; absent: `remote-write` in the folder that systemd names
        /// (`STATE_DIRECTORY`), else `/var/lib/citadel-agent/remote-write`.
        directory: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// The label `job` of every series.
        job: String = "citadel-agent".to_owned(), TEXT;
        /// The label `instance` of every series; absent: the host's name.
        instance: Option<String> = None, Optional(TEXT);
        /// Further labels of every series.
        external_labels: BTreeMap<String, String> = BTreeMap::new(), EXTERNAL_LABELS;
        /// How histograms are sent where the destination does not say. `auto`: classic ones, and native ones besides to a receiver
        /// that confirms remote write 2.0 and does not say that it is VictoriaMetrics or InfluxDB. The others are sent in 1.0 too;
        /// to a receiver that refuses native ones, `native` sends classic ones.
        histograms: Histograms = Histograms::Auto, Words(Histograms::WORDS);
        /// Most bytes kept; beyond them the oldest samples are dropped, and counted.
        max_bytes: u64 = 1 << 30, SPOOL_BYTES;
        /// Older samples are dropped, and counted.
        max_age: Duration = Duration::from_secs(7 * 24 * 60 * 60), AGE;
        /// What stays free on the file system: the oldest samples are dropped, and counted, as long as there is less.
        min_free_bytes: u64 = 512 << 20, BYTES;
        /// Destinations by name: letters, digits, `_` and `-`.
        destinations: BTreeMap<String, Destination> = BTreeMap::new(), DESTINATIONS;
    }
}

section! {
    /// Where samples go, and how to get in there.
    pub struct Destination {
        /// Where samples go. Required, except for the destination `prometheus`, which is
        /// `remote_monitoring.prometheus.remote_write_url`.
        url: Option<String> = None, Optional(URL);
        /// Remote-write protocol; `auto` is 2.0, and 1.0 for a receiver that knows no other, which is remembered for a day.
        protocol: Protocol = Protocol::Auto, Words(Protocol::WORDS);
        /// How histograms are sent to this destination; absent: as `remote_write.histograms` says.
        histograms: Option<Histograms> = None, Optional(Words(Histograms::WORDS));
        /// When the receiver answers 401, 403, 404 or a redirect: wait and try once a minute, or drop what was not let in.
        denied: Denied = Denied::Park, Words(Denied::WORDS);
        /// How long a request may take.
        timeout: Duration = Duration::from_secs(30), INTERVAL;
        /// How the agent gets in.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

fn destinations_have_urls(remote_write: &RemoteWrite, section: &Section<'_>, mistakes: &mut Mistakes) {
    let Some(written) = section.written("destinations") else { return };
    for (name, destination) in &remote_write.destinations {
        let Some(item) = written.entry(name) else { continue };
        if destination.url.is_none() && name != PROMETHEUS && !mistakes.concern(&format!("{}.url", item.path)) {
            mistakes.push(item.key_pos, item.path, "has no url");
        }
    }
}

/// Which protocol is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// 2.0, unless the receiver knows only 1.0.
    Auto,
    /// Only 1.0.
    V1,
    /// Only 2.0.
    V2,
}

impl Protocol {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("1.0", Self::V1), ("2.0", Self::V2)];
}

/// How histograms are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Histograms {
    /// Classic, and native besides to a receiver that confirms 2.0 and is not known to make something else of them.
    Auto,
    /// Native and classic.
    Both,
    /// Native, and classic only to a receiver that does not take native ones.
    Native,
    /// Classic.
    Classic,
}

impl Histograms {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("both", Self::Both), ("native", Self::Native), ("classic", Self::Classic)];
}

/// What happens when a receiver lets nothing in (401, 403, 404).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The queue waits, and the door is tried once a minute.
    Park,
    /// What was not let in is rejected.
    Drop,
}

impl Denied {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[("park", Self::Park), ("drop", Self::Drop)];
}

const EXTERNAL_LABELS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of label name to value",
    expected: "a mapping of label names to values, or {} for none",
    most: usize::MAX,
    name: external_label,
    value: TEXT,
};

fn external_label(name: &str) -> Result<String, String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let right = first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if right && !name.starts_with("__") && !matches!(name, "job" | "instance" | "le") {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{} is not a label name for this: letters, digits and _, not beginning with a digit or __, and not job, instance or le",
        quoted(name)
    ))
}

const DESTINATIONS: Mapping<Keys<Destination>> = Mapping {
    text: "mapping of names to destinations",
    expected: "a mapping of names to their settings",
    most: usize::MAX,
    name: value::plain_name,
    value: keys_of::<Destination>(),
};

const SPOOL_BYTES: Scalar<u64> = Scalar { text: "bytes, 64KiB or more", read: spool_bytes, ..BYTES };

/// Less than this holds no page of a host.
fn spool_bytes(node: &Node) -> Result<u64, String> {
    match value::bytes(node)? {
        bytes if bytes >= 64 << 10 => Ok(bytes),
        _ => Err("is less than 64KiB, which holds too little to be worth keeping".to_owned()),
    }
}

/// How old something may become.
const AGE: Scalar<Duration> = Scalar {
    text: "age, 1h to 10 years",
    schema: || json!({"type": "string", "pattern": r"^\s*([0-9]+\s*[A-Za-zµ]+\s*)+$"}),
    read: value::age,
    write: |age| INTERVAL.write(age),
};
