//! Alerts: evaluates rules on the pages that the agent exports, and sends alerts to every Alertmanager.
//!
//! ```text
//! page --evaluate--> results --state--> pending, firing, resolved --engine--> notifications --outbox--> each peer
//! ```
//!
//! All modules but `command`, `delivery`, `saved` and `service` are pure: pages and times go in, alerts come out.

mod annotation;
mod cause;
pub mod command;
mod delivery;
mod engine;
mod evaluate;
mod figures;
pub(crate) mod histogram;
mod increase;
mod notification;
mod outbox;
mod peers;
mod prometheus;
mod saved;
mod service;
mod state;
mod window;

use std::net::SocketAddr;

use crate::config::{Config, web};
use crate::remote_write;

pub use engine::{Engine, Settings};
pub use figures::{Active, Numbers, PeerNumbers};
pub use notification::Notification;
pub use peers::{Peer, peers};
pub use prometheus::rule_file;
pub use saved::{Saved, SavedError, parse_saved, read_saved, write_saved};
pub use service::{PrepareError, Prepared, Running, differs, prepare};
pub use state::{Alert, Phase, Texts};

/// Labels added to every alert: the same as those of the series that remote write sends.
fn identity(config: &Config) -> Texts {
    remote_write::identity(config).labels.into_iter().collect()
}

/// Link to more details of an alert: Grafana where it is configured, else the agent's own page.
fn generator_url(config: &Config) -> String {
    let grafana = config.remote.as_ref().and_then(|remote| remote.grafana_url.clone());
    grafana.unwrap_or_else(|| {
        let address = config.local.listen_address;
        let port = config.local.metrics_port;
        let scheme = if speaks_tls(config) { "https" } else { "http" };
        match address.is_unspecified() {
            true => format!("{scheme}://{}:{port}/", remote_write::host_name()),
            false => format!("{scheme}://{}/", SocketAddr::new(address, port)),
        }
    })
}

fn speaks_tls(config: &Config) -> bool {
    let file = config.local.web_config_file.as_deref();
    file.is_some_and(|file| web::load(file).is_ok_and(|web| web.tls.is_on()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn an_alert_links_to_grafana_or_else_to_the_agents_own_page() {
        let url = |text: &str| generator_url(&parse("test", text).unwrap());
        let host = remote_write::host_name();
        assert_eq!(url("{}"), format!("http://{host}:8000/"));
        let local = "local_collection: { listen_address: '127.0.0.1', metrics_port: 9000 }";
        assert_eq!(url(local), "http://127.0.0.1:9000/");
        assert_eq!(url("local_collection: { listen_address: '::1' }"), "http://[::1]:8000/");
        let grafana =
            "remote_monitoring: { enabled: true, dev_ops_server: ops, grafana: { dashboard_url: 'http://ops:3000' } }";
        assert_eq!(url(grafana), "http://ops:3000");
    }
}
