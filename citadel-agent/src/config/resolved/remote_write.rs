//! `remote_write`: sending samples.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::access::{Access, have_urls};
use crate::config::kind::{ABSOLUTE_PATH, BYTES, INTERVAL, Kind, Mapping, Optional, Scalar, TEXT, URL, Words};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Keys, Section, keys_of, part, section};
use crate::config::tree::Node;
use crate::config::value;

/// Name of the destination `remote_monitoring.prometheus.remote_write_url`.
pub const PROMETHEUS: &str = "prometheus";

section! {
    /// Collection, spool and destinations of remote write.
    pub struct RemoteWrite [check destinations_have_urls] {
        /// Interval at which samples are collected for remote write; absent: `remote_monitoring.prometheus.scrape_interval`.
        interval: Option<Duration> = None, Optional(INTERVAL);
        /// Spool directory for samples until they are acknowledged; absent: `remote-write` in systemd's `STATE_DIRECTORY`, else
        /// `/var/lib/citadel-agent/remote-write`.
        directory: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Value of the label `job` of every series.
        job: String = "citadel-agent".to_owned(), TEXT;
        /// Value of the label `instance` of every series; absent: the host name.
        instance: Option<String> = None, Optional(TEXT);
        /// Additional labels of every series.
        external_labels: BTreeMap<String, String> = BTreeMap::new(), EXTERNAL_LABELS;
        /// How to send histograms, unless a destination overrides it. `auto`: classic, plus native to a receiver that confirms remote
        /// write 2.0 and does not identify itself as VictoriaMetrics or InfluxDB. `both`, `native` and `classic` apply to protocol 1.0
        /// too; `native` falls back to classic if the receiver refuses native histograms.
        histograms: Histograms = Histograms::Auto, Words(Histograms::WORDS);
        /// Maximum size of the spool; beyond it the oldest samples are dropped and counted.
        max_bytes: u64 = 1 << 30, SPOOL_BYTES;
        /// Maximum age of spooled samples; older ones are dropped and counted.
        max_age: Duration = Duration::from_secs(7 * 24 * 60 * 60), AGE;
        /// Minimum free space on the file system; while less is free, the oldest samples are dropped and counted.
        min_free_bytes: u64 = 512 << 20, BYTES;
        /// Destinations by name; a name consists of letters, digits, `_` and `-`.
        destinations: BTreeMap<String, Destination> = BTreeMap::new(), DESTINATIONS;
    }
}

section! {
    /// A destination of samples.
    pub struct Destination {
        /// URL to send samples to. Required, except for the destination `prometheus`, whose default is
        /// `remote_monitoring.prometheus.remote_write_url`.
        url: Option<String> = None, Optional(URL);
        /// Remote-write protocol version. `auto` uses 2.0, or 1.0 if the receiver supports only that, which is remembered for a day.
        protocol: Protocol = Protocol::Auto, Words(Protocol::WORDS);
        /// How to send histograms to this destination; absent: `remote_write.histograms`.
        histograms: Option<Histograms> = None, Optional(Words(Histograms::WORDS));
        /// What to do on 401, 403, 404 or a redirect: `park` keeps the samples and retries once a minute, `drop` drops them.
        denied: Denied = Denied::Park, Words(Denied::WORDS);
        /// Timeout of a request.
        timeout: Duration = Duration::from_secs(30), INTERVAL;
        /// Credentials and TLS settings.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

fn destinations_have_urls(remote_write: &RemoteWrite, section: &Section<'_>, mistakes: &mut Mistakes) {
    let destinations = remote_write
        .destinations
        .iter()
        .map(|(name, destination)| (name, destination.url.is_some() || name == PROMETHEUS));
    have_urls(destinations, section, mistakes);
}

/// Protocol version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// 2.0, unless the receiver supports only 1.0.
    Auto,
    /// Only 1.0.
    V1,
    /// Only 2.0.
    V2,
}

impl Protocol {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("1.0", Self::V1), ("2.0", Self::V2)];
}

/// How to send histograms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Histograms {
    /// Classic, plus native to a receiver that confirms 2.0 and is not known to convert them.
    Auto,
    /// Native and classic.
    Both,
    /// Native, or classic to a receiver that does not accept native histograms.
    Native,
    /// Classic.
    Classic,
}

impl Histograms {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("both", Self::Both), ("native", Self::Native), ("classic", Self::Classic)];
}

/// What to do if a receiver denies access (401, 403, 404).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// Keep the queue and retry once a minute.
    Park,
    /// Count the samples as rejected.
    Drop,
}

impl Denied {
    /// The words in the configuration.
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
        "{} is not an allowed label name: use letters, digits and _, not starting with a digit or __, and not job, instance or le",
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

/// A smaller spool could not hold a single page.
fn spool_bytes(node: &Node) -> Result<u64, String> {
    match value::bytes(node)? {
        bytes if bytes >= 64 << 10 => Ok(bytes),
        _ => Err("is less than 64KiB, the minimum size of a spool".to_owned()),
    }
}

/// Maximum age.
const AGE: Scalar<Duration> = Scalar {
    text: "age, 1h to 10 years",
    schema: || json!({"type": "string", "pattern": r"^\s*([0-9]+\s*[A-Za-zµ]+\s*)+$"}),
    read: value::age,
    write: |age| INTERVAL.write(age),
};
