//! The sections, one per file: keys with types, defaults, bounds and documentation, and constraints between them.
//!
//! Every value of a [`Config`] is valid and has its final type.

mod access;
pub mod alerts;
mod ebpf;
mod gpu;
mod host;
mod local;
pub mod logs;
mod models;
pub mod probing;
mod remote;
pub mod remote_write;

use std::collections::BTreeMap;
use std::time::Duration;

pub use access::Access;
pub use alerts::Alerts;
pub use ebpf::{CallForm, Ebpf};
pub use gpu::{DcgmRelease, Gpu};
pub use host::{Services, Storage};
pub use local::{Endpoints, Local, LogFormat};
pub use logs::Logs;
pub use models::Models;
pub use remote::Remote;
pub use remote_write::RemoteWrite;

use super::mistakes::Mistakes;
use super::section::{Section, part, section};
use super::value;

section! {
    /// The whole configuration. Only [`crate::config::load`], [`crate::config::parse`] and [`Config::default`] create
    /// one, so every instance is valid. The default applies without a file, and to every key that is not set: the seven
    /// models of the operator's file, discovery on 11400-11500, and nothing sent anywhere.
    pub struct Config [check own_ports_are_no_models] {
        /// The dev-ops server; nothing is sent to it unless it is enabled.
        #[key = "remote_monitoring"]
        remote: Option<Remote> = None, part::<Option<Remote>>();
        /// Listeners and logging.
        #[key = "local_collection"]
        local: Local = Local::default(), part::<Local>();
        /// Models and their probes.
        #[key = "model_monitoring"]
        models: Models = Models::default(), part::<Models>();
        /// Sending samples with remote write.
        remote_write: RemoteWrite = RemoteWrite::default(), part::<RemoteWrite>();
        /// Kernel programs.
        ebpf: Ebpf = Ebpf::default(), part::<Ebpf>();
        /// GPU monitoring.
        gpu: Gpu = Gpu::default(), part::<Gpu>();
        /// Disks and directories.
        storage: Storage = Storage::default(), part::<Storage>();
        /// systemd units.
        services: Services = Services::default(), part::<Services>();
        /// Counting and sending logs.
        logs: Logs = Logs::default(), part::<Logs>();
        /// Alert rules.
        alerts: Alerts = Alerts::default(), part::<Alerts>();
    }
}

impl Config {
    /// All destinations with a URL, by name: those in `remote_write`, and the one in `remote_monitoring`.
    #[must_use]
    pub fn destinations(&self) -> BTreeMap<String, remote_write::Destination> {
        let mut all = self.remote_write.destinations.clone();
        if let Some(url) = self.remote.as_ref().and_then(|remote| remote.remote_write_url.clone()) {
            all.entry(remote_write::PROMETHEUS.to_owned()).or_default().url.get_or_insert(url);
        }
        all.retain(|_, destination| destination.url.is_some());
        for destination in all.values_mut() {
            destination.histograms.get_or_insert(self.remote_write.histograms);
        }
        all
    }

    /// The interval at which samples are collected for the destinations.
    #[must_use]
    pub fn write_interval(&self) -> Duration {
        let scrape = self.remote.as_ref().map(|remote| remote.scrape_interval);
        self.remote_write.interval.or(scrape).unwrap_or(remote::DEFAULT_INTERVAL)
    }
}

/// Rejects the agent's own ports as model ports: the agent would be measured as a model.
fn own_ports_are_no_models(config: &Config, root: &Section<'_>, mistakes: &mut Mistakes) {
    let (local, models) = (root.below("local_collection"), root.below("model_monitoring"));
    for (own_name, own) in config.local.own_ports(&local, mistakes) {
        match models.written("ports") {
            Some(ports) => {
                for entry in ports.each().filter(|entry| value::port(entry.node) == Ok(own)) {
                    entry.mistake(format!("port {own} is the agent's own {own_name}"), mistakes);
                }
            }
            // The default models are not in the file, so the agent's own port has to be changed.
            None => {
                if let Some(model) = config.models.ports.get(&own) {
                    let message = format!("{own} is the default port of the model {model}");
                    local.mistake(Some(own_name), message, mistakes);
                }
            }
        }
        let Some(range) = config.models.discover.as_ref().filter(|range| range.contains(&own)) else { continue };
        if !models.is_right("discover", mistakes) {
            continue;
        }
        let text = format!("{}-{}", range.start(), range.end());
        if models.pos_of("discover") > local.pos_of(own_name) {
            let message = format!("{text} contains the agent's own {own_name}, {own}");
            mistakes.push(models.pos_of("discover"), "model_monitoring.discover", message);
        } else {
            local.mistake(Some(own_name), format!("{own} is in model_monitoring.discover ({text})"), mistakes);
        }
    }
}
