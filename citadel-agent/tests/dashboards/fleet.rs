//! All hosts and models: which is worst, and since when. Reads recording rules, so that it stays cheap over many hosts.

use super::grafana::{Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{HOST, by, sum};

const ERRORS: &[(f64, &str)] = &[(0.01, "orange"), (0.05, "red")];
const FIRST_TOKEN: &[(f64, &str)] = &[(4.0, "orange"), (8.0, "red")];
const CHUNKS: &[(f64, &str)] = &[(0.5, "orange"), (1.0, "red")];
const FULL: &[(f64, &str)] = &[(0.9, "orange"), (0.98, "red")];
const ANY: &[(f64, &str)] = &[(1.0, "red")];
const ANY_WARNS: &[(f64, &str)] = &[(1.0, "orange")];

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "fleet",
        title: "fleet",
        about: "Every host and model, worst first. Click a model or a host to see why.",
        variables: &[Variable::Instances],
        annotations: vec![super::alerts(HOST)],
        rows: vec![
            ("Now", now()),
            ("Models, worst first", vec![models()]),
            ("Hosts, worst first", vec![hosts()]),
            ("Alerts", vec![alerts()]),
            ("Over time", over_time()),
        ],
    }
}

fn now() -> Vec<Panel> {
    let count = |name: &str, matchers: &str| format!("count({}) or vector(0)", HOST.series(name, matchers));
    let firing = |severity: &str| count("ALERTS", &format!(r#"alertstate="firing",severity="{severity}""#));
    let stat = |title, expr: String| Panel::new(Kind::Stat, title, "short").column(title, "", &[], expr);
    vec![
        stat("Hosts", format!("count({})", by("max", "", &HOST.series("citadel_agent_build_info", "")))),
        stat("Models", format!("count({})", by("max", "model", &HOST.series("citadel_model_connections_open", "")))),
        stat("Critical alerts", firing("critical")).thresholds(ANY),
        stat("Warnings", firing("warning")).thresholds(ANY_WARNS),
        stat("Models down", format!("count({} == 0) or vector(0)", HOST.series("citadel_model_up", "")))
            .thresholds(ANY),
        stat("GPUs lost", format!("count({} == 0) or vector(0)", HOST.series("citadel_gpu_up", ""))).thresholds(ANY),
        Panel::new(Kind::Stat, "Requests", "reqps").column(
            "Requests",
            "",
            &[],
            format!("sum({}) or vector(0)", HOST.series("instance_model:citadel_model_requests:rate5m", "")),
        ),
        Panel::new(Kind::Stat, "Errors", "percentunit").thresholds(ERRORS).column(
            "Errors",
            "",
            &[],
            format!(
                "sum({}) / sum({}) or vector(0)",
                HOST.series("instance_model:citadel_model_errors:rate5m", ""),
                HOST.series("instance_model:citadel_model_requests:rate5m", "")
            ),
        ),
    ]
}

fn models() -> Panel {
    let recorded = |name: &str| by("max", "model", &HOST.series(&format!("instance_model:{name}"), ""));
    let worst = |name: &str| by("max", "model", &HOST.series(name, ""));
    Panel::new(Kind::Table, "Models", "")
        .about("The verdict is the worst alert that fires for the model. Click the model to see what its time is spent on.")
        .column("Verdict", "", &[], recorded("citadel_verdict:max"))
        .column("Up", "short", &[], worst("citadel_model_up"))
        .column("Requests/s", "reqps", &[], recorded("citadel_model_requests:rate5m"))
        .column(
            "Errors",
            "percentunit",
            ERRORS,
            format!(
                "{} / ({} > 0)",
                recorded("citadel_model_errors:rate5m"),
                recorded("citadel_model_requests:rate5m")
            ),
        )
        .column("Aborted/s", "reqps", &[], recorded("citadel_model_requests_aborted:rate5m"))
        .column("First token p99", "s", FIRST_TOKEN, recorded("citadel_model_time_to_first_token_seconds:p99_5m"))
        .column("Between chunks p99", "s", CHUNKS, recorded("citadel_model_inter_token_latency_seconds:p99_5m"))
        .column("In flight", "short", &[], recorded("citadel_model_requests_in_flight:sum"))
        .column("Waiting in engine", "short", &[], sum("model", &HOST.series("citadel_engine_requests_waiting", "")))
        .column("KV cache", "percentunit", FULL, worst("citadel_engine_kv_cache_usage_ratio"))
}

fn hosts() -> Panel {
    let on = |expression: String| by("max", "", &expression);
    let part = |used: &str, all: &str, of: &str| {
        by("max", "", &format!("1 - {} / {}", HOST.series(used, of), HOST.series(all, of)))
    };
    let files = r#"fstype!~"tmpfs|ramfs|squashfs|overlay|iso9660""#;
    let gpus = |condition: &str| by("count", "", &format!("{}{condition}", HOST.series("citadel_gpu_up", "")));
    Panel::new(Kind::Table, "Hosts", "")
        .about("The verdict is the worst alert that fires for the host, its GPUs and its models.")
        .column("Verdict", "", &[], on(HOST.series("instance:citadel_verdict:max", "")))
        .column("Models", "short", &[], by("count", "", &HOST.series("citadel_model_connections_open", "")))
        .column("GPUs", "short", &[], gpus(""))
        .column("GPUs lost", "short", ANY, format!("{} or 0 * {}", gpus(" == 0"), gpus("")))
        .column(
            "GPU busy",
            "percentunit",
            &[],
            format!(
                "{} or {}",
                by("avg", "", &HOST.series("citadel_gpu_sm_active_ratio", "")),
                by("avg", "", &HOST.series("citadel_gpu_utilization_ratio", ""))
            ),
        )
        .column(
            "GPU memory",
            "percentunit",
            FULL,
            on(format!(
                "{} / {}",
                HOST.series("citadel_gpu_memory_used_bytes", ""),
                HOST.series("citadel_gpu_memory_total_bytes", "")
            )),
        )
        .column(
            "Hottest GPU",
            "celsius",
            &[(80.0, "orange"), (87.0, "red")],
            on(HOST.series("citadel_gpu_temperature_celsius", r#"sensor="gpu""#)),
        )
        .column(
            "Memory",
            "percentunit",
            &[(0.9, "orange"), (0.95, "red")],
            part("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", ""),
        )
        .column(
            "Fullest disk",
            "percentunit",
            &[(0.9, "orange"), (0.95, "red")],
            part("node_filesystem_avail_bytes", "node_filesystem_size_bytes", files),
        )
        .column("Failed units", "short", ANY, sum("", &HOST.series("node_systemd_unit_state", r#"state="failed""#)))
        .column(
            "Agent's failed sources",
            "short",
            ANY_WARNS,
            format!(
                "{} - {}",
                by("count", "", &HOST.series("citadel_source_success", "")),
                sum("", &HOST.series("citadel_source_success", ""))
            ),
        )
}

fn alerts() -> Panel {
    let of = |severity: &str| HOST.series("ALERTS", &format!(r#"alertstate="firing",severity="{severity}""#));
    Panel::new(Kind::Table, "Firing", "")
        .about("Each alert is explained in the agent's docs/alerts.md; its message in Alertmanager says what to do.")
        .column(
            "Severity",
            "",
            &[],
            by(
                "max",
                "model, alertname",
                &format!("3 * {} or 2 * {} or 1 * {}", of("critical"), of("warning"), of("info")),
            ),
        )
}

fn over_time() -> Vec<Panel> {
    let graph = |title, unit, name: &str| {
        let worst = format!("topk(10, {})", HOST.series(&format!("instance_model:{name}"), ""));
        Panel::new(Kind::Graph, title, unit).size(12, 8).query(worst, "{{model}}")
    };
    vec![
        graph("First token p99, the ten slowest", "s", "citadel_model_time_to_first_token_seconds:p99_5m")
            .thresholds(FIRST_TOKEN),
        graph("Between chunks p99, the ten slowest", "s", "citadel_model_inter_token_latency_seconds:p99_5m")
            .thresholds(CHUNKS),
        graph("Errors, the ten worst", "reqps", "citadel_model_errors:rate5m"),
        graph("Requests, the ten busiest", "reqps", "citadel_model_requests:rate5m"),
    ]
}
