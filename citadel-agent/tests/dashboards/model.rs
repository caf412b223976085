//! One model on one host: how slow, for whom, and why.

use super::grafana::{Annotation, Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{MODEL, ONE_HOST, by, sum};

const FIRST_TOKEN: &str = "citadel_model_time_to_first_token_seconds";
const CHUNKS: &str = "citadel_model_inter_token_latency_seconds";
const ERRORS: &[(f64, &str)] = &[(0.01, "orange"), (0.05, "red")];
const SLOW_FIRST_TOKEN: &[(f64, &str)] = &[(4.0, "orange"), (8.0, "red")];
const SLOW_CHUNKS: &[(f64, &str)] = &[(0.5, "orange"), (1.0, "red")];

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "model",
        title: "one model",
        about: "How slow one model is, for whom, and why: read it from the top.",
        variables: &[Variable::Instance, Variable::Model, Variable::Loki],
        annotations: annotations(),
        rows: vec![
            ("Now", now()),
            ("Where the time to the first token goes", first_token()),
            ("Tokens", tokens()),
            ("Requests", requests()),
            ("The engine, by its own account", engine()),
            ("The server's processes", process()),
            ("Network", network()),
            ("GPU", gpu()),
            ("Logs", logs()),
        ],
    }
}

fn annotations() -> Vec<Annotation> {
    // The unit that serves the model was started: by hand, by a deployment, or by systemd after it failed.
    let unit = r#"label_replace(citadel_model_info{instance="$instance",model="$model",unit!=""}, "name", "$1", "unit", "(.+)")"#;
    let started = ONE_HOST.series("node_systemd_unit_start_time_seconds", "");
    vec![
        super::alerts(MODEL),
        Annotation {
            name: "Model started",
            colour: "blue",
            expr: format!("{unit} * on (instance, name) group_left () (changes({started}[2m]) > 0)"),
            title: "{{name}} started",
            text: "systemd started the model's unit on {{instance}}",
        },
        super::agent_started(ONE_HOST),
        super::configuration_loaded(ONE_HOST),
    ]
}

fn now() -> Vec<Panel> {
    let errors = MODEL.sum_rate("model", "citadel_model_requests_total", r#"code=~"5..""#);
    let all = MODEL.sum_rate("model", "citadel_model_requests_total", "");
    let stat = |title, unit| Panel::new(Kind::Stat, title, unit);
    vec![
        stat("Verdict", "")
            .verdict()
            .query(MODEL.series("instance_model:citadel_verdict:max", ""), "")
            .about("The worst alert that fires for this model."),
        stat("Up", "short").query(by("min", "model", &MODEL.series("citadel_model_up", "")), "").about(
            "1 while the health probes succeed; no data where the server wants a key that the probes do not have.",
        ),
        stat("Requests", "reqps").query(all.clone(), ""),
        stat("Errors", "percentunit")
            .thresholds(ERRORS)
            .query(MODEL.or_zero(&format!("{errors} / ({all} > 0)")), "")
            .about("Part of the requests answered with a 5xx status. Cause: Requests and Logs below."),
        stat("First token p99", "s")
            .thresholds(SLOW_FIRST_TOKEN)
            .query(MODEL.quantile(0.99, "model", FIRST_TOKEN), "")
            .about("Cause: the row below says what the time is spent on."),
        stat("Between chunks p99", "s")
            .thresholds(SLOW_CHUNKS)
            .query(MODEL.quantile(0.99, "model", CHUNKS), "")
            .about("Cause: GPU (throttled, shared), engine (preemptions, too many running), run queue.")
            .link("GPUs", "citadel-gpu"),
        stat("In flight", "short").query(sum("model", &MODEL.series("citadel_model_requests_in_flight", "")), ""),
        stat("KV cache", "percentunit")
            .thresholds(&[(0.9, "orange"), (0.98, "red")])
            .query(by("max", "model", &MODEL.series("citadel_engine_kv_cache_usage_ratio", "")), "")
            .about("Full: the engine queues and preempts requests."),
    ]
}

/// The mean of a phase by the engine's own clock.
fn phase(name: &str) -> String {
    let matchers = format!(r#"phase="{name}""#);
    let rate = |metric: &str| sum("model", &format!("rate({}[5m])", MODEL.series(metric, &matchers)));
    format!("({} / ({} > 0))", rate("citadel_engine_phase_seconds_total"), rate("citadel_engine_phases_total"))
}

fn first_token() -> Vec<Panel> {
    let recorded = |name: &str| by("max", "model", &MODEL.series(name, ""));
    let wire = recorded("citadel:wire_first_token_seconds:mean5m");
    let engine = recorded("citadel:engine_first_token_seconds:mean5m");
    let frontend = recorded("citadel:frontend_delay_seconds:mean5m");
    let unread = recorded("citadel:receive_queue_seconds:mean5m");
    let (queue, prefill) = (phase("queue"), phase("prefill"));
    let without = |whole: &str, parts: &[&str]| {
        let parts: String = parts.iter().map(|part| format!(" - ({part} or 0 * {whole})")).collect();
        format!("clamp_min({whole}{parts}, 0)")
    };
    vec![
        Panel::new(Kind::Stacked, "Mean time to the first token, by part", "s")
            .about("Five-minute means. Not read yet: the server is busy or gets no CPU (row of its processes). Frontend: HTTP, tokenizer. Engine's queue: too many requests, KV cache full. Prefill: long prompts, GPU slow or shared. Without metrics of an engine, all that the server does is one part. The parts are means of different requests, so they need not add up to the line exactly.")
            .query(&unread, "not read yet")
            .query(without(&frontend, &[&unread]), "frontend")
            .query(&queue, "engine: queue")
            .query(&prefill, "engine: prefill")
            .query(without(&engine, &[&queue, &prefill]), "engine: other")
            .query(format!("{} unless {engine}", without(&wire, &[&unread])), "server")
            .query(&wire, "on the wire")
            .beside(".*on the wire"),
        heat("Time to the first token", FIRST_TOKEN),
        Panel::new(Kind::Graph, "Time to the first token", "s").quantiles(MODEL, "model, endpoint", FIRST_TOKEN, "{{endpoint}}").thresholds(SLOW_FIRST_TOKEN),
        Panel::new(Kind::Graph, "Time to the first byte", "s").quantiles(MODEL, "model, endpoint", "citadel_model_time_to_first_byte_seconds", "{{endpoint}}"),
        Panel::new(Kind::Graph, "Receive queue", "s").quantiles(MODEL, "model", "citadel_model_receive_queue_seconds", "")
            .about("From the first byte in the kernel to the first read by the server. High: its event loop is blocked, or its threads get no CPU: see Run queue.").thresholds(&[(1.0, "red")]),
    ]
}

/// Of native histograms, or where there are none of classic ones.
fn heat(title: &'static str, name: &str) -> Panel {
    Panel::new(Kind::Heatmap, title, "s")
        .about("From native histograms where Prometheus has them, else from classic buckets, each twice as wide as the last.")
        .query(sum("", &MODEL.rate(name, "")), "")
        .query(sum("le", &MODEL.rate(&format!("{name}_bucket"), "")), "")
}

fn tokens() -> Vec<Panel> {
    vec![
        heat("Between chunks", CHUNKS),
        Panel::new(Kind::Graph, "Between chunks", "s")
            .size(12, 9)
            .quantiles(MODEL, "model, endpoint", CHUNKS, "{{endpoint}}")
            .thresholds(SLOW_CHUNKS)
            .about("Between body chunks of a streamed response; a chunk can hold several tokens."),
        Panel::new(Kind::Graph, "Chunks", "cps")
            .query(MODEL.sum_rate("model", "citadel_model_stream_chunks_total", ""), ""),
        Panel::new(Kind::Graph, "Tokens, as the engine counts them", "cps")
            .query(MODEL.sum_rate("model, kind", "citadel_engine_tokens_total", ""), "{{kind}}"),
        Panel::new(Kind::Graph, "Duration of requests", "s").quantiles(
            MODEL,
            "model, endpoint, outcome",
            "citadel_model_request_duration_seconds",
            "{{endpoint}}, {{outcome}}",
        ),
    ]
}

fn requests() -> Vec<Panel> {
    let requests = "citadel_model_requests_total";
    vec![
        Panel::new(Kind::Graph, "Requests by endpoint", "reqps").query(MODEL.or_zero(&MODEL.sum_rate("model, endpoint", requests, "")), "{{endpoint}}"),
        Panel::new(Kind::Graph, "Errors by code", "reqps")
            .query(MODEL.or_zero(&MODEL.sum_rate("model, code", requests, r#"code!~"[123]..""#)), "{{code}}")
            .about("429: the server refuses load. 5xx: look into the logs below. 4xx: the clients. 0 where there are none."),
        Panel::new(Kind::Graph, "Aborted, by phase", "reqps")
            .query(MODEL.or_zero(&MODEL.sum_rate("model, side, phase", "citadel_model_requests_aborted_total", "")), "{{side}} {{phase}}")
            .about("Who ended the connection, and what was under way. Server: it crashed or was restarted. Client, waiting: it gave up, see the first token."),
        Panel::new(Kind::Graph, "In flight", "short").query(sum("model", &MODEL.series("citadel_model_requests_in_flight", "")), ""),
        Panel::new(Kind::Graph, "Longest wait of a request in flight", "s")
            .query(by("max", "model", &MODEL.series("citadel_model_longest_wait_seconds", "")), "for the next byte")
            .query(by("max", "model", &MODEL.series("citadel_model_oldest_request_seconds", "")), "since it began")
            .about("A request that hangs: the wait for the next byte of its response grows, whatever the health probes say."),
        Panel::new(Kind::Graph, "Health probes", "s").query(MODEL.series("citadel_model_probe_duration_seconds", ""), "{{path}}"),
        Panel::new(Kind::Graph, "Health probes that succeed", "short").max(1.0).query(MODEL.series("citadel_model_probe_success", ""), "{{path}}"),
    ]
}

fn engine() -> Vec<Panel> {
    let ratio = |name: &str| by("max", "model", &MODEL.series(name, ""));
    vec![
        Panel::new(Kind::Graph, "Requests in the engine", "short")
            .query(sum("model", &MODEL.series("citadel_engine_requests_running", "")), "running")
            .query(sum("model, reason", &MODEL.series("citadel_engine_requests_waiting", "")), "waiting {{reason}}")
            .query(sum("model", &MODEL.series("citadel_engine_requests_swapped", "")), "swapped"),
        Panel::new(Kind::Graph, "KV cache", "percentunit")
            .max(1.0)
            .thresholds(&[(0.9, "orange"), (0.98, "red")])
            .query(ratio("citadel_engine_kv_cache_usage_ratio"), ""),
        Panel::new(Kind::Graph, "Preemptions", "cps")
            .query(MODEL.sum_rate("model", "citadel_engine_preemptions_total", ""), "")
            .about("Running requests put back because the KV cache was full: each computes its prompt again."),
        Panel::new(Kind::Graph, "Phases, mean", "s").query(by_phase(), "{{phase}}"),
        Panel::new(Kind::Graph, "From the prefix cache", "percentunit")
            .max(1.0)
            .query(ratio("citadel:engine_prefix_cache_hits:ratio5m"), ""),
        Panel::new(Kind::Graph, "Speculative tokens accepted", "percentunit")
            .max(1.0)
            .query(ratio("citadel:engine_speculative_accepted:ratio5m"), ""),
    ]
}

fn by_phase() -> String {
    let rate = |name: &str| MODEL.sum_rate("model, phase", name, "");
    format!("{} / ({} > 0)", rate("citadel_engine_phase_seconds_total"), rate("citadel_engine_phases_total"))
}

fn process() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Graph, "Run queue", "s").quantiles(MODEL, "model", "citadel_model_runqueue_latency_seconds", "")
            .about("Runnable to running. High: the host has too few CPUs for what runs on it.").link("Host", "citadel-host"),
        Panel::new(Kind::Graph, "CPU", "short").query(MODEL.sum_rate("model, mode", "citadel_model_cpu_seconds_total", ""), "{{mode}}").about("Cores."),
        Panel::new(Kind::Graph, "Memory", "bytes").query(sum("model, kind", &MODEL.series("citadel_model_memory_bytes", "")), "{{kind}}"),
        Panel::new(Kind::Graph, "System calls, p99", "s")
            .query(MODEL.quantile(0.99, "model, syscall", "citadel_model_syscall_duration_seconds"), "{{syscall}}")
            .about("Calls that wait (epoll_wait, futex, poll, accept4) are idleness as much as stall; read, write, fsync, openat are not."),
        Panel::new(Kind::Graph, "Time on a CPU", "short")
            .query(MODEL.sum_rate("model", "citadel_model_on_cpu_seconds_total", ""), "")
            .about("Cores, by the kernel's own account of threads."),
        Panel::new(Kind::Graph, "System calls that fail", "cps")
            .query(MODEL.or_zero(&MODEL.sum_rate("model, syscall, errno", "citadel_model_syscall_errors_total", r#"errno!="EAGAIN""#)), "{{syscall}} {{errno}}"),
    ]
}

fn network() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Graph, "Connections open", "short")
            .query(sum("model", &MODEL.series("citadel_model_connections_open", "")), ""),
        Panel::new(Kind::Graph, "New connections", "cps")
            .query(MODEL.sum_rate("model, protocol", "citadel_model_connections_total", ""), "{{protocol}}")
            .about("tls, http2: requests and latency of these are not measured, see docs/tls.md."),
        Panel::new(Kind::Graph, "Round-trip time", "s").quantiles(MODEL, "model", "citadel_model_tcp_rtt_seconds", ""),
        Panel::new(Kind::Graph, "Retransmits", "cps")
            .query(MODEL.sum_rate("model", "citadel_model_tcp_retransmits_total", ""), ""),
        Panel::new(Kind::Graph, "Bytes", "Bps")
            .size(16, 8)
            .query(MODEL.sum_rate("model", "citadel_model_request_bytes_total", ""), "in")
            .query(MODEL.sum_rate("model", "citadel_model_response_bytes_total", ""), "out"),
    ]
}

fn gpu() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Graph, "GPU time", "percentunit")
            .max(1.0)
            .query(sum("model, gpu", &MODEL.series("citadel_model_gpu_sm_ratio", "")), "{{gpu}}")
            .about("This model's part of the SMs' time.")
            .link("GPUs", "citadel-gpu"),
        Panel::new(Kind::Graph, "GPU memory", "bytes")
            .query(sum("model, gpu", &MODEL.series("citadel_model_gpu_memory_bytes", "")), "{{gpu}}"),
        Panel::new(Kind::Graph, "GPU power", "watt")
            .query(MODEL.sum_rate("model, gpu", "citadel_model_gpu_energy_joules_total", ""), "{{gpu}}")
            .about("This model's part of the GPU's energy."),
    ]
}

fn logs() -> Vec<Panel> {
    // Without a model: Xids, and processes of no model that the kernel killed.
    let events = ONE_HOST.increase(
        "model, event",
        "citadel_model_log_events_total",
        r#"model=~"${model:regex}|""#,
        "$__rate_interval",
    );
    vec![
        Panel::new(Kind::Graph, "Log entries by severity", "cps").size(12, 8)
            .query(MODEL.sum_rate("model, severity", "citadel_model_log_messages_total", ""), "{{severity}}"),
        Panel::new(Kind::Graph, "Events in logs", "short").size(12, 8).query(ONE_HOST.or_zero(&events), "{{model}} {{event}}")
            .about("Out of GPU memory, NCCL time-outs, a dead engine, processes that the kernel killed; Xids have no model."),
        Panel::new(Kind::Logs, "Logs", "").query(r#"{host="$instance"} | model="$model""#, ""),
    ]
}
