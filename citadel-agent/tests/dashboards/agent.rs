//! The agent itself: what it measures, what it cannot, what it costs, and whether what it sends arrives.

use super::grafana::{Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{HOST, by, own, sum};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "agent",
        title: "agent",
        about: "Whether the agents measure and deliver, and what they cost.",
        variables: &[Variable::Instances],
        annotations: vec![super::alerts(HOST), super::agent_started(HOST), super::configuration_loaded(HOST)],
        rows: vec![
            ("Now", now()),
            ("What is measured", measured()),
            ("What is sent", sent()),
            ("What it costs", cost()),
        ],
    }
}

fn graph(title: &'static str, unit: &'static str) -> Panel {
    Panel::new(Kind::Graph, title, unit)
}

fn now() -> Vec<Panel> {
    let stat = |title, unit| Panel::new(Kind::Stat, title, unit);
    let warns = &[(1.0, "orange")];
    let zero = |expression: String| HOST.or_zero(&expression);
    vec![
        stat("Version", "")
            .query(by("max", "version", &HOST.series("citadel_agent_build_info", "")), "{{version}}")
            .about("Hosts by version."),
        stat("Running for", "s")
            .query(format!("time() - {}", by("max", "", &own(&HOST.series("process_start_time_seconds", "")))), ""),
        stat("Configurations refused", "short")
            .thresholds(warns)
            .query(by("max", "", &format!("1 - {}", HOST.series("citadel_config_last_reload_successful", ""))), ""),
        stat("Sources that fail", "short")
            .thresholds(warns)
            .query(zero(by("count", "", &format!("{} == 0", HOST.series("citadel_source_success", "")))), ""),
        stat("Broken probes", "short")
            .thresholds(warns)
            .query(zero(by("count", "", &HOST.series("citadel_probe_status", r#"status="broken""#))), ""),
        stat("Events lost in 24 h", "short")
            .thresholds(warns)
            .query(zero(HOST.increase("", "citadel_events_lost_total", "", "24h")), ""),
        stat("Oldest sample that waits", "s")
            .thresholds(&[(60.0, "orange"), (600.0, "red")])
            .query(zero(by("max", "", &HOST.series("citadel_remote_write_oldest_pending_seconds", ""))), ""),
        stat("Memory", "bytes")
            .thresholds(&[(40e6, "orange")])
            .query(by("max", "", &own(&HOST.series("process_resident_memory_bytes", ""))), ""),
        stat("CPU", "percentunit")
            .thresholds(&[(0.02, "orange"), (0.1, "red")])
            .query(by("max", "", &own(&HOST.rate("process_cpu_seconds_total", ""))), "")
            .about("Of one core."),
    ]
}

fn measured() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Table, "Probes that do not measure", "")
            .size(24, 7)
            .about("Why is in the reason; citadel-agent check says how to fix it.")
            .column(
                "Programs",
                "short",
                &[],
                by("count", "family, status, reason", &HOST.series("citadel_probe_status", r#"status!="ok""#)),
            ),
        graph("Sources", "short").max(1.0).query(HOST.series("citadel_source_success", ""), "{{source}}"),
        graph("Source duration", "s").query(HOST.series("citadel_source_duration_seconds", ""), "{{source}}"),
        graph("Skipped input", "cps")
            .query(HOST.or_zero(&HOST.sum_rate("source", "citadel_source_skipped_total", "")), "{{source}}")
            .about("Lines, fields and files that could not be read; the agent's log names the first of each kind."),
        graph("Events lost", "cps")
            .query(HOST.or_zero(&HOST.sum_rate("reason", "citadel_events_lost_total", "")), "{{reason}}")
            .about("Requests that could not be followed: missing from the models' metrics."),
        graph("Fill of kernel maps", "percentunit").max(1.0).thresholds(&[(0.9, "red")]).query(
            format!("{} / {}", HOST.series("citadel_map_entries", ""), HOST.series("citadel_map_capacity", "")),
            "{{map}}",
        ),
        graph("Alerts firing", "short")
            .query(sum("severity", &HOST.series("citadel_alerts_firing", "")), "{{severity}}")
            .about("By the agent's own rules."),
    ]
}

fn sent() -> Vec<Panel> {
    vec![
        graph("Remote write", "cps")
            .query(
                HOST.sum_rate("destination, outcome", "citadel_remote_write_samples_total", ""),
                "{{destination}} {{outcome}}",
            )
            .about("Samples."),
        graph("Remote write: age of the oldest", "s")
            .thresholds(&[(600.0, "red")])
            .query(HOST.series("citadel_remote_write_oldest_pending_seconds", ""), "{{destination}}"),
        graph("Remote write: answers", "cps").query(
            HOST.sum_rate("destination, code", "citadel_remote_write_requests_total", ""),
            "{{destination}} {{code}}",
        ),
        graph("Alert notifications", "cps")
            .query(HOST.sum_rate("peer, outcome", "citadel_alert_notifications_total", ""), "{{peer}} {{outcome}}"),
        graph("Log entries", "cps")
            .query(
                HOST.sum_rate("destination, outcome", "citadel_log_entries_total", ""),
                "{{destination}} {{outcome}}",
            )
            .link("Services and logs", "citadel-services"),
        graph("Connections dropped by the listeners", "cps").query(
            HOST.sum_rate("listener, reason", "citadel_http_connections_dropped_total", ""),
            "{{listener}} {{reason}}",
        ),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        graph("CPU", "percentunit")
            .query(own(&HOST.rate("process_cpu_seconds_total", "")), "")
            .about("Of one core; without the kernel programs, whose time is that of the servers and clients."),
        graph("Memory", "bytes").query(own(&HOST.series("process_resident_memory_bytes", "")), ""),
        graph("File descriptors", "short").query(own(&HOST.series("process_open_fds", "")), ""),
        graph("Kernel programs", "percentunit")
            .query(HOST.sum_rate("program", "citadel_probe_seconds_total", ""), "{{program}}")
            .about("Of one core; only while the kernel's BPF statistics are on (sysctl kernel.bpf_stats_enabled)."),
        graph("GPU sampler", "percentunit")
            .query(HOST.rate("citadel_gpu_sampler_cpu_seconds_total", ""), "")
            .about("Of one core."),
        graph("Series scraped", "short")
            .query(own(&HOST.series("scrape_samples_scraped", "")), "")
            .about("Of hosts that are scraped."),
    ]
}
