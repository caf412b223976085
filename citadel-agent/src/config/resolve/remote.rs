//! `remote_monitoring`.

use super::access::access;
use crate::config::mistakes::Mistakes;
use crate::config::resolved::{DEFAULT_PROMETHEUS_INTERVAL, Remote};
use crate::config::section::{At, Section, convert_at, list};
use crate::config::value;

/// Most Alertmanagers besides the one of `alert_manager_url`.
const MAX_ALERTMANAGERS: usize = 16;

/// All keys are checked even when the section is not enabled, so that enabling it holds no surprise.
pub(super) fn remote(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Option<Remote>> {
    let default_interval = DEFAULT_PROMETHEUS_INTERVAL;
    let enabled = section.read("enabled", false, value::boolean, mistakes);
    let server = section.optional("dev_ops_server", value::host, mistakes);
    if let (Some(At { value: true, pos }), Some(None)) = (&enabled, &server) {
        let message = "is missing, and required because remote_monitoring.enabled is true";
        mistakes.push(*pos, "remote_monitoring.dev_ops_server", message);
    }
    let prometheus = section.section("prometheus", mistakes);
    let remote_write_url = prometheus.optional("remote_write_url", value::url, mistakes);
    let scrape_interval = prometheus.read("scrape_interval", default_interval, value::interval, mistakes);
    let evaluation_interval = prometheus.read("evaluation_interval", default_interval, value::interval, mistakes);
    let grafana = section.section("grafana", mistakes);
    let grafana_url = grafana.optional("dashboard_url", value::url, mistakes);
    let grafana_datasource = grafana.optional("datasource", value::text, mistakes);
    let alerting = section.section("alerting", mistakes);
    let alert_manager_url = alerting.optional("alert_manager_url", value::url, mistakes);
    let webhook_url = alerting.optional("webhook_url", value::url, mistakes);
    let alertmanagers = alertmanagers(&alerting, mistakes);
    let alerting_access = access(&alerting, mistakes);

    if !enabled?.value {
        return Some(None);
    }
    Some(Some(Remote {
        dev_ops_server: server??,
        remote_write_url: remote_write_url?,
        scrape_interval: scrape_interval?.value,
        evaluation_interval: evaluation_interval?.value,
        grafana_url: grafana_url?,
        grafana_datasource: grafana_datasource?,
        alert_manager_url: alert_manager_url?,
        webhook_url: webhook_url?,
        alertmanagers: alertmanagers?,
        alerting_access: alerting_access?,
    }))
}

fn alertmanagers(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let Some((path, node)) = section.node("alertmanagers") else { return Some(Vec::new()) };
    let items = list(&path, node, "a list of URLs, or [] for none", MAX_ALERTMANAGERS, mistakes)?;
    let mut urls: Vec<String> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        match convert_at(path.clone(), item.pos, item, value::url, mistakes) {
            Some(at) if urls.contains(&at.value) => {
                mistakes.push(at.pos, path, format!("\"{}\" is in the list already", at.value));
            }
            Some(at) => urls.push(at.value),
            None => {}
        }
    }
    Some(urls)
}
