//! systemd's units, what they log, and where the logs go.

use super::grafana::{Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{HOST, by, sum};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "services",
        title: "services and logs",
        about: "The units that serve models and those of services.units; what is logged, and whether it arrives.",
        variables: &[Variable::Instances, Variable::Loki],
        annotations: vec![super::alerts(HOST), super::agent_started(HOST), super::configuration_loaded(HOST)],
        rows: vec![("Now", now()), ("Units", units()), ("Logs", logs())],
    }
}

fn graph(title: &'static str, unit: &'static str) -> Panel {
    Panel::new(Kind::Graph, title, unit)
}

fn now() -> Vec<Panel> {
    let stat = |title, unit| Panel::new(Kind::Stat, title, unit).size(4, 4);
    let red = &[(1.0, "red")];
    vec![
        stat("Units", "short").query(by("count", "", &HOST.series("node_systemd_unit_state", r#"state="active""#)), ""),
        stat("Failed", "short")
            .thresholds(red)
            .query(sum("", &HOST.series("node_systemd_unit_state", r#"state="failed""#)), ""),
        stat("Restarts in 24 h", "short")
            .thresholds(&[(1.0, "orange"), (3.0, "red")])
            .query(HOST.increase("", "node_systemd_service_restart_total", "", "24h"), ""),
        stat("Errors logged in an hour", "short").thresholds(&[(1.0, "orange")]).query(
            HOST.or_zero(&HOST.increase("", "citadel_model_log_messages_total", r#"severity=~"error|critical""#, "1h")),
            "",
        ),
        stat("Events logged in 24 h", "short")
            .thresholds(red)
            .query(HOST.or_zero(&HOST.increase("", "citadel_model_log_events_total", "", "24h")), ""),
        stat("Oldest log entry that waits", "s")
            .thresholds(&[(60.0, "orange"), (600.0, "red")])
            .query(HOST.or_zero(&by("max", "", &HOST.series("citadel_log_oldest_pending_seconds", ""))), ""),
    ]
}

fn units() -> Vec<Panel> {
    vec![
        graph("Active", "short")
            .max(1.0)
            .query(HOST.series("node_systemd_unit_state", r#"state="active""#), "{{name}}"),
        graph("Restarts in an hour", "short")
            .query(HOST.increase("name", "node_systemd_service_restart_total", "", "1h"), "{{name}}")
            .about("By systemd itself, after the service ended."),
        graph("Running for", "s")
            .query(format!("time() - ({} > 0)", HOST.series("node_systemd_unit_start_time_seconds", "")), "{{name}}"),
        graph("Memory", "bytes")
            .query(HOST.series("citadel_unit_memory_bytes", ""), "{{name}}")
            .about("Of the unit's cgroup, page cache included."),
        graph("Threads", "short").query(HOST.series("node_systemd_unit_tasks_current", ""), "{{name}}"),
        Panel::new(Kind::Table, "How the last run ended", "").size(8, 8).column(
            "Result",
            "",
            &[],
            by("max", "name, result", &HOST.series("citadel_unit_last_result", r#"result!="success""#)),
        ),
        graph("Models up", "short")
            .max(1.0)
            .query(HOST.series("citadel_model_up", ""), "{{model}}")
            .link("One model", "citadel-model"),
        graph("Health probes that succeed", "short")
            .max(1.0)
            .query(HOST.series("citadel_model_probe_success", ""), "{{model}} {{path}}"),
        graph("Health probe duration", "s")
            .query(HOST.series("citadel_model_probe_duration_seconds", ""), "{{model}} {{path}}"),
    ]
}

fn logs() -> Vec<Panel> {
    vec![
        graph("Entries by severity", "cps")
            .query(HOST.sum_rate("model, severity", "citadel_model_log_messages_total", ""), "{{model}} {{severity}}"),
        graph("Events in an hour", "short").query(
            HOST.or_zero(&HOST.increase("model, event", "citadel_model_log_events_total", "", "1h")),
            "{{model}} {{event}}",
        ),
        graph("Sent", "cps").query(
            HOST.sum_rate("destination, outcome", "citadel_log_entries_total", ""),
            "{{destination}} {{outcome}}",
        ),
        graph("Waiting to be sent", "s")
            .thresholds(&[(600.0, "red")])
            .query(HOST.series("citadel_log_oldest_pending_seconds", ""), "{{destination}}"),
        graph("Lost from the journal in an hour", "s")
            .query(HOST.increase("destination", "citadel_log_journal_lost_seconds_total", "", "1h"), "{{destination}}")
            .about("Give the journal more room (SystemMaxUse), or see why entries wait."),
        Panel::new(Kind::Logs, "Warnings and errors", "")
            .query(r#"{host=~"$instance",severity=~"warning|error|critical"}"#, ""),
    ]
}
