//! The host in the documentation's pictures: an hour of three models, of which one has a blocked event loop for the last ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use citadel_agent::metrics::catalogue;
use citadel_agent::metrics::family::{Page, Value};

use crate::histogram;
use crate::support::Fake;

/// Seconds of history, seconds between two of its pages, and the seconds for which the fault has lasted at its end.
const HOUR: u64 = 3600;
const STEP: u64 = 60;
const FAULT: u64 = 600;

/// Requests per second of each model.
const RATE: u64 = 2;

/// A model: name, port, milliseconds to the first token and between two, tokens of an answer.
struct Model(&'static str, &'static str, u64, u64, u64);

const MODELS: [Model; 3] =
    [Model("mixtral", "11400", 180, 24, 40), Model("hermes", "11401", 90, 12, 30), Model("phi3", "11403", 35, 6, 20)];

/// The one with the fault, and how long its requests then wait to be read.
const SLOW: &str = "hermes";
const UNREAD_MS: u64 = 1900;

/// The host, now.
pub(super) fn host() -> Arc<Fake> {
    let polls = AtomicU64::new(0);
    // The page polls every five seconds.
    let host = Fake::new(move |_| Ok(page(HOUR + 5 * polls.fetch_add(1, Ordering::SeqCst))));
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for second in (0..=HOUR).step_by(STEP as usize) {
        host.history.take(&page(second), now - i64::try_from(HOUR - second).unwrap() * 1000);
    }
    *host.alerts.lock().unwrap() = serde_json::json!([{
        "state": "firing",
        "since_ms": now - 300_000,
        "labels": {"alertname": "ModelTimeToFirstTokenHigh", "severity": "warning", "model": SLOW, "port": "11401"},
        "annotations": {"summary": "hermes is slow to its first token", "description": "The 99th percentile of the last five minutes is 2.1 s."},
    }]);
    *host.requests.lock().unwrap() = vec![crate::requests(11401, 5, 2.1, now)];
    let mut config = host.config.lock().unwrap();
    config.models.ports = MODELS.iter().map(|model| (model.1.parse().unwrap(), model.0.to_owned())).collect();
    drop(config);
    host
}

/// What the host's agent exports this many seconds after the hour began.
fn page(second: u64) -> Page {
    let mut page = Page::default();
    for model in &MODELS {
        add_model(&mut page, model, second);
    }
    for (index, user, used, watts) in [("0", "mixtral", 71_u64, 560.0), ("1", SLOW, 38, 270.0)] {
        let gpu = [
            ("gpu", if index == "0" { "GPU-8f1c" } else { "GPU-27aa" }),
            ("index", index),
            ("name", "NVIDIA H100 80GB HBM3"),
        ];
        for (name, value) in [
            ("citadel_gpu_up", 1.0),
            ("citadel_gpu_utilization_ratio", watts / 640.0),
            ("citadel_gpu_memory_used_bytes", gib(used)),
            ("citadel_gpu_memory_total_bytes", gib(80)),
            ("citadel_gpu_power_watts", watts),
            ("citadel_gpu_power_limit_watts", 700.0),
        ] {
            add(&mut page, name, &gpu, Value::Float(value));
        }
        let sensor = [gpu.as_slice(), &[("sensor", "gpu")]].concat();
        add(&mut page, "citadel_gpu_temperature_celsius", &sensor, Value::Float(watts / 9.0));
        let process = [gpu.as_slice(), &[("pid", "2101"), ("model", user)]].concat();
        add(&mut page, "citadel_gpu_process_memory_bytes", &process, Value::Float(gib(used)));
    }
    let second = second as f64;
    for (name, value) in [
        ("node_load1", 6.2),
        ("node_memory_MemTotal_bytes", gib(512)),
        ("node_memory_MemAvailable_bytes", gib(301)),
        ("node_pressure_cpu_waiting_seconds_total", second * 0.004),
        ("node_pressure_memory_waiting_seconds_total", 0.0),
        ("node_pressure_io_waiting_seconds_total", second * 0.002),
    ] {
        add(&mut page, name, &[], Value::Float(value));
    }
    for (mode, share) in [("user", 5.1), ("system", 0.7), ("idle", 26.2)] {
        add(&mut page, "node_cpu_seconds_total", &[("cpu", "0"), ("mode", mode)], Value::Float(second * share));
    }
    for (name, rate) in [("node_network_receive_bytes_total", 3e5), ("node_network_transmit_bytes_total", 9e5)] {
        add(&mut page, name, &[("device", "eth0")], Value::Float(second * rate));
    }
    for unit in ["citadel-mixtral.service", "citadel-hermes.service", "citadel-phi3.service"] {
        let state = [("name", unit), ("state", "active"), ("type", "exec")];
        add(&mut page, "node_systemd_unit_state", &state, Value::Integer(1));
        add(&mut page, "citadel_unit_sub_state", &[("name", unit), ("state", "running")], Value::Integer(1));
        add(&mut page, "node_systemd_service_restart_total", &[("name", unit)], Value::Integer(0));
    }
    for (mountpoint, size, avail) in [("/", 400, 310), ("/srv/models", 7000, 2100)] {
        let labels = [("device", "/dev/nvme0n1p2"), ("fstype", "ext4"), ("mountpoint", mountpoint)];
        add(&mut page, "node_filesystem_size_bytes", &labels, Value::Float(gib(size)));
        add(&mut page, "node_filesystem_avail_bytes", &labels, Value::Float(gib(avail)));
    }
    page
}

fn add_model(page: &mut Page, Model(name, port, first, between, tokens): &Model, second: u64) {
    let model = [("model", *name), ("port", *port)];
    let completions = [model.as_slice(), &[("endpoint", "chat_completions")]].concat();
    let ill = if *name == SLOW { second.saturating_sub(HOUR - FAULT) } else { 0 };
    let (well, ill) = ((second - ill) * RATE, ill * RATE);
    // Three latencies a request, so that a distribution is to be seen.
    let spread =
        |ms: u64, count: u64| [(ms * 9 / 10, count * 3 / 5), (ms * 6 / 5, count * 3 / 10), (ms * 2, count / 10)];
    let between_well = |extra: u64| [spread(*first, well), spread(first + extra, ill)].concat();
    let code = [completions.as_slice(), &[("code", "200")]].concat();
    add(page, "citadel_model_requests_total", &code, Value::Integer(well + ill));
    add(page, "citadel_model_time_to_first_token_seconds", &completions, histogram(&between_well(UNREAD_MS)));
    let answer = first + between * tokens;
    let now_takes = answer + if ill > 0 { UNREAD_MS } else { 0 };
    let durations = [spread(answer, well), spread(answer + UNREAD_MS, ill)].concat();
    let successful = [completions.as_slice(), &[("outcome", "success")]].concat();
    add(page, "citadel_model_request_duration_seconds", &successful, histogram(&durations));
    add(
        page,
        "citadel_model_inter_token_latency_seconds",
        &completions,
        histogram(&spread(*between, (well + ill) * tokens)),
    );
    add(page, "citadel_model_stream_chunks_total", &completions, Value::Integer((well + ill) * tokens));
    add(page, "citadel_model_receive_queue_seconds", &model, histogram(&[(1, well), (UNREAD_MS, ill)]));
    add(page, "citadel_model_runqueue_latency_seconds", &model, histogram(&[(1, (well + ill) * 4)]));
    add(page, "citadel_model_tcp_rtt_seconds", &model, histogram(&[(1, well + ill)]));
    add(page, "citadel_model_tcp_retransmits_total", &model, Value::Integer(0));
    for (name, value) in [
        ("citadel_model_up", 1.0),
        // As many as Little's law gives.
        ("citadel_model_requests_in_flight", (RATE * now_takes).div_ceil(1000) as f64),
        ("citadel_model_oldest_request_seconds", now_takes as f64 / 1000.0),
        ("citadel_model_longest_wait_seconds", (now_takes - between * tokens) as f64 / 1000.0),
        ("citadel_model_on_cpu_seconds_total", second as f64 * 0.6),
        ("citadel_engine_requests_running", 3.0),
    ] {
        add(page, name, &model, Value::Float(value));
    }
    for (mode, share) in [("user", 0.5), ("system", 0.1)] {
        let labels = [model.as_slice(), &[("mode", mode)]].concat();
        add(page, "citadel_model_cpu_seconds_total", &labels, Value::Float(second as f64 * share));
    }
    add(page, "citadel_model_memory_bytes", &[model.as_slice(), &[("kind", "pss")]].concat(), Value::Float(gib(11)));
}

/// Adds a series; which labels a metric has is the catalogue's matter, and those not given are empty.
fn add(page: &mut Page, name: &str, labels: &[(&str, &str)], value: Value) {
    let desc = catalogue::all().find(|desc| desc.name == name).unwrap_or_else(|| panic!("there is no metric {name}"));
    let value_of = |wanted: &&str| labels.iter().find(|(label, _)| label == wanted).map_or("", |(_, value)| value);
    let values: Vec<_> = desc.labels.iter().map(|label| value_of(label).into()).collect();
    page.push(desc, values, value);
}

fn gib(count: u64) -> f64 {
    (count << 30) as f64
}
