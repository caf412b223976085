//! The resolved configuration: every value is there, valid and in its final type.

mod access;
pub mod alerts;
mod ebpf;
mod gpu;
mod host;
pub mod probing;
mod remote;
pub mod remote_write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use access::Access;
pub use alerts::Alerts;
pub use ebpf::{CallForm, Ebpf};
pub use gpu::{DcgmRelease, Gpu};
pub use host::{Services, Storage};
use probing::{HealthEndpoints, Own};
pub(super) use remote::DEFAULT_PROMETHEUS_INTERVAL;
pub use remote::Remote;
pub use remote_write::RemoteWrite;

/// The whole configuration. Only [`super::load`], [`super::parse`] and [`Config::default`] make one, so that
/// holding one means that it is valid.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// `local_collection`: what is served, where.
    pub local: Local,
    /// `model_monitoring`: which ports are models.
    pub models: Models,
    /// `remote_monitoring`: the dev-ops server, `None` when absent or not enabled.
    pub remote: Option<Remote>,
    /// `remote_write`: how samples are sent (the agent's own, optional section).
    pub remote_write: RemoteWrite,
    /// `ebpf`: which kernel probes run, and where (the agent's own, optional section).
    pub ebpf: Ebpf,
    /// `alerts`: the rules in force (the agent's own, optional section).
    pub alerts: Alerts,
    /// `gpu`: what is read of the GPUs (likewise).
    pub gpu: Gpu,
    /// `storage`: disks and directories (the agent's own, optional section).
    pub storage: Storage,
    /// `services`: systemd units (the agent's own, optional section).
    pub services: Services,
}

impl Default for Config {
    /// What serves without a file, and for every key that a file leaves out: the seven models of the operator's file,
    /// discovery on 11400-11500, and nothing sent anywhere.
    fn default() -> Self {
        let ports = [
            (11400, "mixtral"),
            (11401, "hermes"),
            (11402, "openchat"),
            (11403, "phi3"),
            (11404, "yi34b"),
            (11405, "coder"),
            (11500, "vision"),
        ];
        Config {
            local: Local {
                listen_address: Ipv6Addr::UNSPECIFIED.into(),
                metrics_port: 8000,
                health_check_port: 8001,
                log_level: tracing::Level::INFO,
                collection_interval: Duration::from_secs(60),
                control_socket: "/run/citadel-agent/control.sock".into(),
                endpoints: Endpoints {
                    system: "/metrics/system".to_owned(),
                    gpu: "/metrics/gpu".to_owned(),
                    models: "/metrics/models".to_owned(),
                    storage: "/metrics/storage".to_owned(),
                    services: "/metrics/services".to_owned(),
                },
            },
            models: Models {
                ports: ports.map(|(port, name)| (port, name.to_owned())).into(),
                discover: Some(11400..=11500),
                health_endpoints: HealthEndpoints::Auto,
                health_interval: Duration::from_secs(15),
                health_timeout: Duration::from_secs(5),
                relay: false,
                engine_metrics: true,
                ask_for_names: true,
                own: BTreeMap::new(),
            },
            remote: None,
            remote_write: RemoteWrite::default(),
            ebpf: Ebpf::default(),
            alerts: Alerts { enabled: true, rules: super::resolve::shipped_rules() },
            gpu: Gpu::default(),
            storage: Storage::default(),
            services: Services::default(),
        }
    }
}

/// What is served, where.
#[derive(Clone, PartialEq, Debug)]
pub struct Local {
    /// Address that both listeners bind; default `::`, which takes IPv4 as well (falls back to 0.0.0.0 without IPv6).
    pub listen_address: IpAddr,
    /// Port of the metrics pages.
    pub metrics_port: u16,
    /// Port of `/health`, `/ready` and `/status`.
    pub health_check_port: u16,
    /// Level of the log.
    pub log_level: tracing::Level,
    /// How often sources that are not read at each scrape are read.
    pub collection_interval: Duration,
    /// Where the running agent takes orders from its own command line.
    pub control_socket: PathBuf,
    /// Paths of the pages.
    pub endpoints: Endpoints,
}

/// Paths of the metrics pages; `/metrics` always carries all.
#[derive(Clone, PartialEq, Debug)]
pub struct Endpoints {
    /// Host metrics.
    pub system: String,
    /// GPU metrics.
    pub gpu: String,
    /// Per-model metrics.
    pub models: String,
    /// Storage metrics.
    pub storage: String,
    /// Service metrics.
    pub services: String,
}

/// Which ports are models.
#[derive(Clone, PartialEq, Debug)]
pub struct Models {
    /// Names of configured ports.
    pub ports: BTreeMap<u16, String>,
    /// Ports that are measured without being configured, as `port-N`.
    pub discover: Option<RangeInclusive<u16>>,
    /// Paths that the health probes ask.
    pub health_endpoints: HealthEndpoints,
    /// How often they ask.
    pub health_interval: Duration,
    /// How long an answer may take.
    pub health_timeout: Duration,
    /// Whether the models' own metrics are passed on.
    pub relay: bool,
    /// Whether what the engines report of themselves is read.
    pub engine_metrics: bool,
    /// Whether a server that nothing else names is asked what it serves.
    pub ask_for_names: bool,
    /// What of single models is probed otherwise, by name or port.
    pub own: BTreeMap<String, Own>,
}

impl Models {
    /// Whether a port is measured: a configured one, or one of `discover`.
    #[must_use]
    pub fn measures(&self, port: u16) -> bool {
        self.ports.contains_key(&port) || self.discover.as_ref().is_some_and(|range| range.contains(&port))
    }

    /// All ports that are measured: the configured ones and those of `discover`.
    #[must_use]
    pub fn measured_ports(&self) -> BTreeSet<u16> {
        self.ports.keys().copied().chain(self.discover.clone().into_iter().flatten()).collect()
    }
}
