//! The overview page at `/`: one HTML file with inline styles and a script that polls the same URL for JSON.
//!
//! The JSON is built from a metrics page, so the overview shows only exported values. The browser computes rates and quantiles from
//! the difference between two readings.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::config::resolved::Config;
use crate::metrics::family::{Page, Sample, Value};

/// The HTML; [`PLACE`] is replaced by the current values so that the page has content when it loads.
const HTML: &str = include_str!("overview.html");

/// Placeholder for the values in [`HTML`].
const PLACE: &str = "\"OVERVIEW\"";

/// A link to another page of the listener.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Path without query.
    pub(super) path: String,
    /// Human-readable title.
    pub(super) title: &'static str,
}

/// The HTML page with the values of `overview` filled in.
pub(super) fn html(overview: &Json) -> String {
    // In a script element, `<` is the only character that HTML interprets: it could begin the end tag.
    HTML.replacen(PLACE, &overview.to_string().replace('<', "\\u003c"), 1)
}

/// The values that the page shows; `page` has the content of `/metrics`.
pub(super) fn overview(config: &Config, links: &[Link], page: &Page) -> Json {
    let pages: Vec<Json> = (links.iter().filter(|link| link.path != "/"))
        .map(|link| json!({ "path": link.path, "title": link.title }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pages": pages,
        "health_port": config.local.health_check_port,
        "models": models(config, page),
        "gpus": gpus(page),
        "services": services(page),
        "filesystems": filesystems(page),
        "disks": disks(page),
        "arrays": arrays(page),
        "not_measured": not_measured(page),
    })
}

/// One series.
#[derive(Clone, Copy)]
struct Series<'a> {
    labels: &'a [&'static str],
    sample: &'a Sample,
}

impl<'a> Series<'a> {
    /// The value of a label; empty where there is no such label.
    fn label(self, name: &str) -> &'a str {
        let position = self.labels.iter().position(|label| *label == name);
        position.and_then(|position| self.sample.labels.get(position)).map_or("", |value| value)
    }

    fn number(self) -> f64 {
        match &self.sample.value {
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            Value::Histogram(histogram) => histogram.count() as f64,
        }
    }
}

/// The series of a metric; empty if it is not on the page.
fn series<'a>(page: &'a Page, name: &str) -> impl Iterator<Item = Series<'a>> {
    let family = page.families.iter().find(|family| family.desc.name == name);
    family
        .into_iter()
        .flat_map(|family| family.samples.iter().map(|sample| Series { labels: family.desc.labels, sample }))
}

/// JSON objects keyed and ordered by label values, such as one per model.
#[derive(Default)]
struct Things(BTreeMap<Vec<String>, Map<String, Json>>);

impl Things {
    /// The object for a series; a new one starts with these labels.
    fn of(&mut self, series: Series<'_>, labels: &[&str]) -> &mut Map<String, Json> {
        let key = labels.iter().map(|label| series.label(label).to_owned()).collect();
        self.0
            .entry(key)
            .or_insert_with(|| labels.iter().map(|label| ((*label).to_owned(), json!(series.label(label)))).collect())
    }

    /// Copies the values of metrics into fields.
    fn values(&mut self, page: &Page, labels: &[&str], metrics: &[(&str, &str)]) {
        for (field, metric) in metrics {
            for series in series(page, metric) {
                self.of(series, labels).insert((*field).to_owned(), json!(series.number()));
            }
        }
    }

    /// Adds the value of a series to a field.
    fn add(&mut self, series: Series<'_>, labels: &[&str], field: &str) {
        let thing = self.of(series, labels);
        let sum = thing.get(field).and_then(Json::as_f64).unwrap_or_default() + series.number();
        thing.insert(field.to_owned(), json!(sum));
    }

    fn list(self) -> Vec<Json> {
        self.0.into_values().map(Json::Object).collect()
    }
}

fn models(config: &Config, page: &Page) -> Vec<Json> {
    const LABELS: [&str; 2] = ["port", "model"];
    let mut models = Things::default();
    for (port, name) in &config.models.ports {
        let (port, name) = (port.to_string(), name.clone());
        models.0.insert(
            vec![port.clone(), name.clone()],
            Map::from_iter([("port".to_owned(), json!(port)), ("model".to_owned(), json!(name))]),
        );
    }
    models.values(page, &LABELS, &[("up", "citadel_model_up"), ("in_flight", "citadel_model_requests_in_flight")]);
    for series in series(page, "citadel_model_state").filter(|series| series.number() > 0.0) {
        models.of(series, &LABELS).insert("state".to_owned(), json!(series.label("state")));
    }
    for (field, metric) in
        [("running", "citadel_engine_requests_running"), ("waiting", "citadel_engine_requests_waiting")]
    {
        for series in series(page, metric) {
            models.add(series, &LABELS, field);
        }
    }
    for series in series(page, "citadel_engine_kv_cache_usage_ratio") {
        models.of(series, &LABELS).insert("kv_cache".to_owned(), json!(series.number()));
    }
    // Encrypted or HTTP/2 connections have no latency: the page must say why.
    let unread =
        series(page, "citadel_model_connections_total").filter(|series| !series.label("protocol").starts_with("http1"));
    for series in unread.filter(|series| series.number() > 0.0 && series.label("protocol") != "other") {
        models.add(series, &LABELS, "unread_connections");
    }
    for series in series(page, "citadel_model_requests_total") {
        models.add(series, &LABELS, "requests");
        // An invalid status ("invalid") counts as an error too.
        if !series.label("code").starts_with(['1', '2', '3']) {
            models.add(series, &LABELS, "errors");
        }
    }
    for series in series(page, "citadel_model_requests_aborted_total") {
        models.add(series, &LABELS, "aborted");
    }
    for series in series(page, "citadel_model_gpu_memory_bytes") {
        models.add(series, &LABELS, "gpu_memory");
    }
    for (field, metric) in [
        ("first_token", "citadel_model_time_to_first_token_seconds"),
        ("inter_token", "citadel_model_inter_token_latency_seconds"),
    ] {
        for series in series(page, metric) {
            if let Value::Histogram(histogram) = &series.sample.value {
                // The last cell holds the sum.
                let cells = &histogram.cells[..histogram.cells.len() - 1];
                add_cells(models.of(series, &LABELS), field, cells);
            }
        }
    }
    models.list()
}

/// Adds a histogram to a field, as counts by cell number; empty cells are omitted.
fn add_cells(model: &mut Map<String, Json>, field: &str, cells: &[u64]) {
    let sums = model.entry(field).or_insert_with(|| json!({}));
    for (number, count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
        let cell = &mut sums[number.to_string()];
        *cell = json!(cell.as_u64().unwrap_or_default() + count);
    }
}

fn gpus(page: &Page) -> Vec<Json> {
    const LABELS: [&str; 3] = ["index", "name", "gpu"];
    let mut gpus = Things::default();
    gpus.values(
        page,
        &LABELS,
        &[
            ("up", "citadel_gpu_up"),
            ("utilization", "citadel_gpu_utilization_ratio"),
            ("sm_active", "citadel_gpu_sm_active_ratio"),
            ("memory_used", "citadel_gpu_memory_used_bytes"),
            ("memory_total", "citadel_gpu_memory_total_bytes"),
            ("power", "citadel_gpu_power_watts"),
        ],
    );
    // The hottest of several sensors.
    for series in series(page, "citadel_gpu_temperature_celsius") {
        let gpu = gpus.of(series, &LABELS);
        let hottest = gpu.get("temperature").and_then(Json::as_f64).map_or(series.number(), |t| t.max(series.number()));
        gpu.insert("temperature".to_owned(), json!(hottest));
    }
    gpus.list()
}

fn services(page: &Page) -> Vec<Json> {
    const LABELS: [&str; 1] = ["name"];
    let mut services = Things::default();
    services.values(
        page,
        &LABELS,
        &[("restarts", "node_systemd_service_restart_total"), ("memory", "citadel_unit_memory_bytes")],
    );
    for (field, metric) in [("state", "node_systemd_unit_state"), ("sub_state", "citadel_unit_sub_state")] {
        for series in series(page, metric).filter(|series| series.number() > 0.0) {
            services.of(series, &LABELS).insert(field.to_owned(), json!(series.label("state")));
        }
    }
    services.list()
}

fn filesystems(page: &Page) -> Vec<Json> {
    let mut filesystems = Things::default();
    filesystems.values(
        page,
        &["mountpoint", "device"],
        &[
            ("size", "node_filesystem_size_bytes"),
            ("avail", "node_filesystem_avail_bytes"),
            ("readonly", "node_filesystem_readonly"),
            ("error", "node_filesystem_device_error"),
        ],
    );
    filesystems.list()
}

fn disks(page: &Page) -> Vec<Json> {
    let mut disks = Things::default();
    disks.values(
        page,
        &["device"],
        &[
            ("healthy", "citadel_smart_healthy"),
            ("used", "citadel_smart_used_ratio"),
            ("temperature", "citadel_smart_temperature_celsius"),
            ("asleep", "citadel_smart_asleep"),
        ],
    );
    disks.list()
}

fn arrays(page: &Page) -> Vec<Json> {
    let mut arrays = Things::default();
    arrays.values(page, &["device"], &[("required", "node_md_disks_required")]);
    for series in series(page, "node_md_disks").filter(|series| series.label("state") == "active") {
        arrays.of(series, &["device"]).insert("active".to_owned(), json!(series.number()));
    }
    for series in series(page, "node_md_state").filter(|series| series.number() > 0.0) {
        arrays.of(series, &["device"]).insert("state".to_owned(), json!(series.label("state")));
    }
    arrays.list()
}

/// Kernel programs that are not measuring, and sources whose last read failed.
fn not_measured(page: &Page) -> Vec<Json> {
    let programs = series(page, "citadel_probe_status").filter(|series| series.label("status") != "ok").map(|series| {
        let what = format!("{}/{}", series.label("family"), series.label("program"));
        json!({ "what": what, "why": format!("{}: {}", series.label("status"), series.label("reason")) })
    });
    let sources = series(page, "citadel_source_success").filter(|series| series.number() == 0.0).map(
        |series| json!({ "what": series.label("source"), "why": "the last read failed or timed out; see the agent's log" }),
    );
    programs.chain(sources).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::models::{REQUESTS, TIME_TO_FIRST_TOKEN};
    use citadel_agent_common::hist::Histogram;

    #[test]
    fn a_models_endpoints_are_added_up() {
        let mut page = Page::default();
        for (endpoint, code, count) in
            [("models", "200", 3), ("chat_completions", "200", 4), ("chat_completions", "503", 2)]
        {
            page.add(&REQUESTS, ["phi3", "11403", endpoint, code], Value::Integer(count));
        }
        for endpoint in ["completions", "chat_completions"] {
            let mut histogram = Histogram::EMPTY;
            histogram.observe(1_000_000);
            page.add(&TIME_TO_FIRST_TOKEN, ["phi3", "11403", endpoint], Value::Histogram(Box::new(histogram)));
        }
        let overview = overview(&Config::default(), &[], &page);
        let models = overview["models"].as_array().unwrap();
        let phi3 = models.iter().find(|model| model["model"] == "phi3").unwrap();
        assert_eq!((&phi3["requests"], &phi3["errors"]), (&json!(9.0), &json!(2.0)));
        let cells: Vec<_> = phi3["first_token"].as_object().unwrap().values().collect();
        assert_eq!(cells, [&json!(2)]);
        // Configured models are listed before their first request.
        assert_eq!(models.len(), 7);
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let html = html(&json!({ "models": [{ "model": "</script><b>" }] }));
        assert!(html.contains("\\u003c/script>\\u003cb>") && !html.contains("<b>") && !html.contains(PLACE));
    }
}
