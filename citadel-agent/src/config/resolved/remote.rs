//! `remote_monitoring`: the dev-ops server.

use std::time::Duration;

use super::access::Access;
use crate::config::kind::{BOOLEAN, HOST, INTERVAL, Item, List, Optional, Scalar, TEXT, URL, or_null};
use crate::config::mistakes::Mistakes;
use crate::config::section::{Field, Part, Section, part, section};
use crate::config::value::{host, is_null};
use crate::config::yaml::Yaml;

/// Default of `scrape_interval` and `evaluation_interval`.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

section! {
    /// The dev-ops server.
    pub struct Remote {
        /// Host of the dev-ops server. Required if `enabled` is `true`.
        dev_ops_server: String = String::new(), SERVER;
        /// Remote-write URL of Prometheus; absent: samples are not sent to it.
        #[key = "prometheus.remote_write_url"]
        remote_write_url: Option<String> = None, Optional(URL);
        /// Interval at which Prometheus scrapes this host.
        #[key = "prometheus.scrape_interval"]
        scrape_interval: Duration = DEFAULT_INTERVAL, INTERVAL;
        /// Interval at which alert rules are evaluated.
        #[key = "prometheus.evaluation_interval"]
        evaluation_interval: Duration = DEFAULT_INTERVAL, INTERVAL;
        /// URL of the Grafana dashboard, linked from alerts.
        #[key = "grafana.dashboard_url"]
        grafana_url: Option<String> = None, Optional(URL);
        /// Name of the Grafana data source.
        #[key = "grafana.datasource"]
        grafana_datasource: Option<String> = None, Optional(TEXT);
        /// URL of the Alertmanager to send alerts to.
        #[key = "alerting.alert_manager_url"]
        alert_manager_url: Option<String> = None, Optional(URL);
        /// Another URL to send alerts to, as JSON of Alertmanager's API v2. `/api/v1/alerts`, which Alertmanager 0.27 removed, is replaced
        /// by `/api/v2/alerts`.
        #[key = "alerting.webhook_url"]
        webhook_url: Option<String> = None, Optional(URL);
        /// Additional Alertmanagers; each gets every alert. If this section has none, no rules are evaluated.
        #[key = "alerting.alertmanagers"]
        alertmanagers: Vec<String> = Vec::new(), List { of: URL, what: "http(s) URLs", most: 16 };
        /// Credentials and CA certificates for all Alertmanagers.
        #[key = "alerting"]
        alerting_access: Access = Access::default(), part::<Access>();
    }
}

/// A host name, or empty.
const SERVER: Scalar<String> = Scalar {
    schema: || or_null((HOST.schema)()),
    read: |node| if is_null(node) { Ok(String::new()) } else { host(node) },
    write: |server| if server.is_empty() { Yaml::Null } else { Yaml::text(server) },
    ..HOST
};

/// `None`: the section is absent or not enabled. All keys are checked nevertheless, so that enabling it later does not
/// reveal errors.
impl Part for Option<Remote> {
    const KEYS: &'static [Item] = &[
        Item {
            name: "enabled",
            doc: "Whether to send metrics and alerts to the dev-ops server.",
            kind: &BOOLEAN,
            default: || Yaml::Bool(false),
        },
        Item { name: "", doc: "", kind: &part::<Remote>(), default: || Yaml::Null },
    ];

    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Self {
        let enabled = BOOLEAN.get(section, "enabled", || false, mistakes);
        let remote = Remote::read(section, mistakes);
        if enabled && remote.dev_ops_server.is_empty() && section.is_right("dev_ops_server", mistakes) {
            let message = "is required because remote_monitoring.enabled is true";
            mistakes.push(section.pos_of("enabled"), "remote_monitoring.dev_ops_server", message);
        }
        enabled.then_some(remote)
    }

    fn write(&self) -> Yaml {
        let mut map = Yaml::Map(vec![("enabled".to_owned(), Yaml::Bool(self.is_some()))]);
        if let Some(remote) = self {
            map.put("", remote.write());
        }
        map
    }
}
