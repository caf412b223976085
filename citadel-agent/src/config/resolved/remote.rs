//! `remote_monitoring`: the dev-ops server.

use std::time::Duration;

use super::Access;

/// `scrape_interval` and `evaluation_interval` where they are not configured.
pub(in crate::config) const DEFAULT_PROMETHEUS_INTERVAL: Duration = Duration::from_secs(15);

/// The dev-ops server.
#[derive(Clone, PartialEq, Debug)]
pub struct Remote {
    /// Host name or address of the dev-ops server.
    pub dev_ops_server: String,
    /// Where remote write goes.
    pub remote_write_url: Option<String>,
    /// How often Prometheus scrapes this host.
    pub scrape_interval: Duration,
    /// How often Prometheus evaluates its rules.
    pub evaluation_interval: Duration,
    /// Grafana, for links.
    pub grafana_url: Option<String>,
    /// Grafana's data source.
    pub grafana_datasource: Option<String>,
    /// Alertmanager.
    pub alert_manager_url: Option<String>,
    /// Alertmanager's webhook, as the operator's file names it.
    pub webhook_url: Option<String>,
    /// Further Alertmanagers.
    pub alertmanagers: Vec<String>,
    /// How all of them let the agent in.
    pub alerting_access: Access,
}
