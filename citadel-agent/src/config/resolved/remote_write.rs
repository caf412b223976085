//! How samples are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Access, Config};

/// The destination that `remote_monitoring.prometheus.remote_write_url` is, by name.
pub const PROMETHEUS: &str = "prometheus";

/// What is sent, how it is kept until it has arrived, and where it goes.
#[derive(Clone, PartialEq, Debug)]
pub struct RemoteWrite {
    /// How often samples are collected; `None`: as often as the Prometheus of `remote_monitoring` would scrape.
    pub interval: Option<Duration>,
    /// Where the spool is; `None`: where systemd says, else `/var/lib/citadel-agent/remote-write`.
    pub directory: Option<PathBuf>,
    /// The label `job`.
    pub job: String,
    /// The label `instance`; `None`: the host's name.
    pub instance: Option<String>,
    /// Labels that every series gets besides.
    pub external_labels: BTreeMap<String, String>,
    /// How histograms are sent where the destination does not say.
    pub histograms: Histograms,
    /// Most bytes of the spool.
    pub max_bytes: u64,
    /// Oldest samples in the spool.
    pub max_age: Duration,
    /// Bytes that the spool leaves free on its file system.
    pub min_free_bytes: u64,
    /// Destinations by name.
    pub destinations: BTreeMap<String, Destination>,
}

impl Default for RemoteWrite {
    fn default() -> Self {
        Self {
            interval: None,
            directory: None,
            job: "citadel-agent".to_owned(),
            instance: None,
            external_labels: BTreeMap::new(),
            histograms: Histograms::Auto,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            min_free_bytes: 512 << 20,
            destinations: BTreeMap::new(),
        }
    }
}

/// Where samples go, and how to get in there.
#[derive(Clone, PartialEq, Debug)]
pub struct Destination {
    /// The receiver; `None` only for [`PROMETHEUS`], whose URL `remote_monitoring` has.
    pub url: Option<String>,
    /// Which protocol is spoken.
    pub protocol: Protocol,
    /// How histograms are sent; `None`: as [`RemoteWrite::histograms`] says.
    pub histograms: Option<Histograms>,
    /// What happens when the receiver lets nothing in.
    pub denied: Denied,
    /// How long a request may take.
    pub timeout: Duration,
    /// How the agent gets in.
    pub access: Access,
}

impl Default for Destination {
    fn default() -> Self {
        Self {
            url: None,
            protocol: Protocol::Auto,
            histograms: None,
            denied: Denied::Park,
            timeout: Duration::from_secs(30),
            access: Access::default(),
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

/// What happens when a receiver lets nothing in (401, 403, 404).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The queue waits, and the door is tried once a minute.
    Park,
    /// What was not let in is rejected.
    Drop,
}

/// A word of the configuration and what it means.
pub type Words<T> = &'static [(&'static str, T)];

impl Protocol {
    /// How it is written.
    pub const WORDS: Words<Self> = &[("auto", Self::Auto), ("1.0", Self::V1), ("2.0", Self::V2)];
}

impl Histograms {
    /// How it is written.
    pub const WORDS: Words<Self> =
        &[("auto", Self::Auto), ("both", Self::Both), ("native", Self::Native), ("classic", Self::Classic)];
}

impl Denied {
    /// How it is written.
    pub const WORDS: Words<Self> = &[("park", Self::Park), ("drop", Self::Drop)];
}

impl Config {
    /// Every destination that has a URL, by name: those of `remote_write`, and the one of `remote_monitoring`.
    #[must_use]
    pub fn destinations(&self) -> BTreeMap<String, Destination> {
        let mut all = self.remote_write.destinations.clone();
        if let Some(url) = self.remote.as_ref().and_then(|remote| remote.remote_write_url.clone()) {
            all.entry(PROMETHEUS.to_owned()).or_default().url.get_or_insert(url);
        }
        all.retain(|_, destination| destination.url.is_some());
        for destination in all.values_mut() {
            destination.histograms.get_or_insert(self.remote_write.histograms);
        }
        all
    }

    /// How often samples are collected for them.
    #[must_use]
    pub fn write_interval(&self) -> Duration {
        let scrape = self.remote.as_ref().map(|remote| remote.scrape_interval);
        self.remote_write.interval.or(scrape).unwrap_or(super::DEFAULT_PROMETHEUS_INTERVAL)
    }
}
