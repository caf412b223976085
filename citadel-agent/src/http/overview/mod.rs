//! The overview page at `/`: one HTML response with inline styles, script and plotting library. The script polls the same URL for
//! JSON, and once a minute the history of the last hour.
//!
//! The JSON is built from a metrics page, so the overview shows only exported values. The browser computes current rates and quantiles
//! from the difference between two readings; `hour` computes the plotted curves from the history.

mod hour;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value as Json, json};

pub(super) use self::hour::last_hour;
use crate::config::resolved::Config;
use crate::history::window::CHECKED;
use crate::history::{History, Subject};
use crate::metrics::family::{Page, Sample, Value};

/// Placeholder in [`HTML`] for the current values, so that the page has content when it loads.
const PLACE: &str = "\"OVERVIEW\"";

/// The page without values. Its Content Security Policy allows only the page's own scripts and styles, by their hashes
/// (Content Security Policy Level 3, section 2.3.1).
static HTML: LazyLock<String> = LazyLock::new(|| {
    let styles = [("UPLOT_CSS", include_str!("uPlot.min.css")), ("PAGE_CSS", include_str!("page.css"))];
    let scripts = [("UPLOT_JS", include_str!("uPlot.iife.min.js")), ("PAGE_JS", include_str!("page.js"))];
    let hash = |(_, text): &(&str, &str)| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let hashes = |all: &[(&str, &str)]| all.iter().map(hash).collect::<Vec<_>>().join(" ");
    let mut html =
        include_str!("page.html").replacen("SCRIPTS", &hashes(&scripts), 1).replacen("STYLES", &hashes(&styles), 1);
    for (place, text) in styles.into_iter().chain(scripts) {
        html = html.replacen(place, text, 1);
    }
    html
});

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

/// The values that the page shows; `page` has the content of `/metrics`, `alerts` is the list of pending and firing alerts.
pub(super) fn overview(config: &Config, links: &[Link], page: &Page, history: &History, alerts: &Json) -> Json {
    let pages: Vec<Json> = (links.iter().filter(|link| link.path != "/"))
        .map(|link| json!({ "path": link.path, "title": link.title }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pages": pages,
        "health_port": config.local.health_check_port,
        "alerts": alerts,
        "host": host(page),
        "models": models(config, page, history),
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
struct LabelledSample<'a> {
    labels: &'a [&'static str],
    sample: &'a Sample,
}

impl<'a> LabelledSample<'a> {
    /// The value of a label; empty where there is no such label.
    fn label(self, name: &str) -> &'a str {
        let position = self.labels.iter().position(|label| *label == name);
        position.and_then(|position| self.sample.labels.get(position)).map_or("", |value| value)
    }

    fn number(self) -> f64 {
        self.sample.value.number()
    }
}

/// The series of a metric; empty if it is not on the page.
fn series<'a>(page: &'a Page, name: &str) -> impl Iterator<Item = LabelledSample<'a>> {
    let family = page.families.iter().find(|family| family.desc.name == name);
    family
        .into_iter()
        .flat_map(|family| family.samples.iter().map(|sample| LabelledSample { labels: family.desc.labels, sample }))
}

/// JSON objects keyed and ordered by label values, such as one per model.
#[derive(Default)]
struct Things(BTreeMap<Vec<String>, Map<String, Json>>);

impl Things {
    /// The object for a series; a new one starts with these labels.
    fn of(&mut self, series: LabelledSample<'_>, labels: &[&str]) -> &mut Map<String, Json> {
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
    fn add(&mut self, series: LabelledSample<'_>, labels: &[&str], field: &str) {
        let thing = self.of(series, labels);
        let sum = thing.get(field).and_then(Json::as_f64).unwrap_or_default() + series.number();
        thing.insert(field.to_owned(), json!(sum));
    }

    fn list(self) -> Vec<Json> {
        self.0.into_values().map(Json::Object).collect()
    }
}

fn models(config: &Config, page: &Page, history: &History) -> Vec<Json> {
    const LABELS: [&str; 2] = ["port", "model"];
    let mut models = Things::default();
    for (port, name) in &config.models.ports {
        let (port, name) = (port.to_string(), name.clone());
        models.0.insert(
            vec![port.clone(), name.clone()],
            Map::from_iter([("port".to_owned(), json!(port)), ("model".to_owned(), json!(name))]),
        );
    }
    models.values(
        page,
        &LABELS,
        &[
            ("up", "citadel_model_up"),
            ("in_flight", "citadel_model_requests_in_flight"),
            ("oldest", "citadel_model_oldest_request_seconds"),
            ("longest_wait", "citadel_model_longest_wait_seconds"),
        ],
    );
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
    for (field, metric, kind) in [
        ("generated", "citadel_engine_tokens_total", "generated"),
        ("stated", "citadel_model_tokens_total", "completion"),
        ("unstated", "citadel_model_requests_without_usage_total", ""),
        ("joules", "citadel_model_gpu_energy_joules_total", ""),
    ] {
        for series in series(page, metric).filter(|series| series.label("kind") == kind) {
            models.add(series, &LABELS, field);
        }
    }
    for series in series(page, "citadel_engine_kv_cache_usage_ratio") {
        models.of(series, &LABELS).insert("kv_cache".to_owned(), json!(series.number()));
    }
    // Encrypted or HTTP/2 connections have no latency: the page must say why.
    let unread =
        series(page, "citadel_model_connections_total").filter(|series| !series.label("protocol").starts_with("http1"));
    for series in
        unread.filter(|series| series.number() > 0.0 && !["other", "upgraded"].contains(&series.label("protocol")))
    {
        models.add(series, &LABELS, "unread_connections");
    }
    let of_users = |series: &LabelledSample<'_>| !CHECKED.contains(&series.label("endpoint"));
    for series in series(page, "citadel_model_requests_total").filter(of_users) {
        models.add(series, &LABELS, "requests");
        // An invalid status ("invalid") counts as an error too.
        if !series.label("code").starts_with(['1', '2', '3']) {
            models.add(series, &LABELS, "errors");
        }
    }
    for series in series(page, "citadel_model_requests_aborted_total").filter(of_users) {
        models.add(series, &LABELS, "aborted");
    }
    // Memory of other processes has no port; it is shown with the GPU.
    for series in series(page, "citadel_model_gpu_memory_bytes").filter(|series| !series.label("port").is_empty()) {
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
    // A model that existed in the last day and is gone must not simply disappear.
    for (subject, name) in history.subjects() {
        let Subject::Model(port) = subject else { continue };
        let port = port.to_string();
        if !models.0.keys().any(|key| key[0] == port) {
            let gone = json!({ "port": port, "model": name.as_str(), "state": "gone" });
            models.0.insert(vec![port, name.to_string()], gone.as_object().cloned().unwrap_or_default());
        }
    }
    models.list()
}

fn host(page: &Page) -> Json {
    let mut host = Things::default();
    host.0.insert(Vec::new(), Map::from_iter([("name".to_owned(), json!(crate::remote_write::host_name()))]));
    host.values(
        page,
        &[],
        &[
            ("load", "node_load1"),
            ("memory_total", "node_memory_MemTotal_bytes"),
            ("memory_available", "node_memory_MemAvailable_bytes"),
            ("pressure_cpu", "node_pressure_cpu_waiting_seconds_total"),
            ("pressure_memory", "node_pressure_memory_waiting_seconds_total"),
            ("pressure_io", "node_pressure_io_waiting_seconds_total"),
        ],
    );
    for series in series(page, "node_cpu_seconds_total") {
        host.add(series, &[], "cpu_seconds");
        if !["idle", "iowait"].contains(&series.label("mode")) {
            host.add(series, &[], "cpu_busy_seconds");
        }
    }
    for (field, metric) in
        [("received", "node_network_receive_bytes_total"), ("sent", "node_network_transmit_bytes_total")]
    {
        for series in series(page, metric).filter(|series| series.label("device") != "lo") {
            host.add(series, &[], field);
        }
    }
    host.list().pop().unwrap_or_default()
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
            ("power_limit", "citadel_gpu_power_limit_watts"),
        ],
    );
    for series in series(page, "citadel_gpu_throttle_active").filter(|series| series.number() > 0.0) {
        // Clocks that are low because the GPU is idle, or because an administrator set them, are not throttled.
        if !["gpu_idle", "applications_clocks", "display_clocks"].contains(&series.label("reason")) {
            let reasons = gpus.of(series, &LABELS).entry("throttled").or_insert_with(|| json!([]));
            if let Some(reasons) = reasons.as_array_mut() {
                reasons.push(json!(series.label("reason")));
            }
        }
    }
    for series in series(page, "citadel_gpu_xid_errors_total").filter(|series| series.number() > 0.0) {
        gpus.add(series, &LABELS, "xid");
    }
    let uncorrected = |series: &LabelledSample<'_>| series.label("kind") == "uncorrected" && series.number() > 0.0;
    for series in series(page, "citadel_gpu_ecc_volatile_errors_total").filter(uncorrected) {
        gpus.add(series, &LABELS, "ecc");
    }
    for series in
        series(page, "citadel_gpu_temperature_limit_celsius").filter(|series| series.label("limit") == "slowdown")
    {
        gpus.of(series, &LABELS).insert("slowdown".to_owned(), json!(series.number()));
    }
    for series in series(page, "citadel_gpu_process_memory_bytes") {
        let model = series.label("model");
        let who = if model.is_empty() { "others" } else { model };
        let users = gpus.of(series, &LABELS).entry("used_by").or_insert_with(|| json!({}));
        users[who] = json!(users[who].as_f64().unwrap_or_default() + series.number());
    }
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
    use crate::metrics::catalogue::gpu::{PROCESS_MEMORY, THROTTLE_ACTIVE, UP as GPU_UP};
    use crate::metrics::catalogue::models::{REQUESTS, TIME_TO_FIRST_TOKEN};
    use citadel_agent_common::hist::Histogram;

    #[test]
    fn a_models_endpoints_are_added_up_without_those_of_health_checks() {
        let mut page = Page::default();
        for (endpoint, code, count) in [
            ("models", "200", 3),
            ("health", "503", 5),
            ("completions", "200", 1),
            ("chat_completions", "200", 4),
            ("chat_completions", "503", 2),
        ] {
            page.add(&REQUESTS, ["phi3", "11403", endpoint, code], Value::Integer(count));
        }
        for endpoint in ["completions", "chat_completions"] {
            let mut histogram = Histogram::EMPTY;
            histogram.observe(1_000_000);
            page.add(&TIME_TO_FIRST_TOKEN, ["phi3", "11403", endpoint], Value::Histogram(Box::new(histogram)));
        }
        let overview = overview(&Config::default(), &[], &page, &History::default(), &Json::Null);
        let models = overview["models"].as_array().unwrap();
        let phi3 = models.iter().find(|model| model["model"] == "phi3").unwrap();
        assert_eq!((&phi3["requests"], &phi3["errors"]), (&json!(7.0), &json!(2.0)));
        let cells: Vec<_> = phi3["first_token"].as_object().unwrap().values().collect();
        assert_eq!(cells, [&json!(2)]);
        // Configured models are listed before their first request.
        assert_eq!(models.len(), 7);
    }

    #[test]
    fn a_model_that_was_here_is_gone_and_not_left_out() {
        let history = History::default();
        let mut page = Page::default();
        for (at, count) in [(0, 1), (5000, 2)] {
            page = Page::default();
            page.add(&REQUESTS, ["coder-2", "11433", "chat_completions", "200"], Value::Integer(count));
            history.take(&page, 1_800_000_000_000 + at);
        }
        let state = |page: &Page| {
            let overview = overview(&Config::default(), &[], page, &history, &Json::Null);
            let models = overview["models"].as_array().unwrap();
            models.iter().find(|model| model["port"] == "11433").map(|model| model["state"].clone())
        };
        assert_eq!(state(&page), Some(Json::Null));
        assert_eq!(state(&Page::default()), Some(json!("gone")));
    }

    #[test]
    fn who_uses_a_gpu_and_what_holds_it_down_are_with_it() {
        let mut page = Page::default();
        let gpu = ["GPU-1", "0", "H100"];
        page.add(&PROCESS_MEMORY, ["GPU-1", "0", "H100", "7", "phi3"], Value::Integer(1000));
        page.add(&PROCESS_MEMORY, ["GPU-1", "0", "H100", "8", "phi3"], Value::Integer(24));
        page.add(&PROCESS_MEMORY, ["GPU-1", "0", "H100", "9", ""], Value::Integer(5));
        page.add(&THROTTLE_ACTIVE, ["GPU-1", "0", "H100", "hw_thermal_slowdown"], Value::Integer(1));
        page.add(&THROTTLE_ACTIVE, ["GPU-1", "0", "H100", "sw_power_cap"], Value::Integer(0));
        page.add(&GPU_UP, gpu, Value::Integer(1));
        let overview = overview(&Config::default(), &[], &page, &History::default(), &Json::Null);
        let gpu = &overview["gpus"][0];
        assert_eq!(gpu["used_by"], json!({ "phi3": 1024.0, "others": 5.0 }));
        assert_eq!(gpu["throttled"], json!(["hw_thermal_slowdown"]));
        // No card of a model without a name.
        assert!(overview["models"].as_array().unwrap().iter().all(|model| model["port"] != ""));
    }

    #[test]
    fn only_scripts_and_styles_of_the_page_itself_run() {
        let html = html(&json!({}));
        assert!(!html.contains("unsafe-inline") && html.matches("sha256-").count() == 4);
        for place in ["UPLOT_CSS", "UPLOT_JS", "PAGE_CSS", "PAGE_JS", "SCRIPTS", "STYLES"] {
            assert!(!html.contains(place), "{place}");
        }
        // What ends a script inside of one would end it in the page.
        assert_eq!(html.matches("</script>").count(), 3);
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let html = html(&json!({ "models": [{ "model": "</script><b>" }] }));
        assert!(html.contains("\\u003c/script>\\u003cb>") && !html.contains("<b>") && !html.contains(PLACE));
    }
}
