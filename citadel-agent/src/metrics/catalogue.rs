//! Every metric that the agent exports, in one table.
//!
//! Exposition, `docs/metrics.md` and the tests derive from it; a metric that is not here cannot be exported. The names
//! are a contract with dashboards and rules: they change only together with a CHANGELOG entry.

/// Type of a metric, as in the [OpenMetrics specification](https://prometheus.io/docs/specs/om/open_metrics_spec/).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until the agent restarts. The catalogued name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, exported as native histogram (schema 3) and as classic buckets.
    Histogram,
}

/// Base unit of a metric's value; where it is not [`Unit::None`], the name ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A count or a flag.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// The endpoint whose page carries a family, besides `/metrics`, which carries all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// `/metrics/models`.
    Models,
    /// On every page: the agent itself.
    Agent,
}

/// One metric's entry.
#[derive(Debug)]
pub struct Desc {
    /// The exposed name, counters with `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// Which page carries it.
    pub section: Section,
    /// Label names, in the order of the samples' values.
    pub labels: &'static [&'static str],
    /// One sentence for HELP.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident $unit:ident $section:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Desc = Desc {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, section: Section::$section,
                labels: &[$($label),*], help: $help,
            };
        )*
        /// All metrics, in the order in which pages carry them.
        pub static CATALOGUE: &[&Desc] = &[$(&$id),*];
    };
}

catalogue! {
    REQUESTS: Counter None Models "citadel_model_requests_total" ["model", "port", "endpoint", "code"]
        "Requests whose response ended, by HTTP status code.";
    REQUESTS_IN_FLIGHT: Gauge None Models "citadel_model_requests_in_flight" ["model", "port"]
        "Requests that began and whose response has not ended.";
    REQUESTS_ABORTED: Counter None Models "citadel_model_requests_aborted_total" ["model", "port", "endpoint", "side", "phase"]
        "Requests whose connection was closed or reset before the response ended, by the side that ended it first and by what was under way: request (still arriving), waiting (no response byte yet), headers (header out, no body yet), streaming, body.";
    REQUEST_DURATION: Histogram Seconds Models "citadel_model_request_duration_seconds" ["model", "port", "endpoint"]
        "First request byte in the server's TCP to last response byte handed down by the server.";
    TIME_TO_FIRST_BYTE: Histogram Seconds Models "citadel_model_time_to_first_byte_seconds" ["model", "port", "endpoint"]
        "Last request byte in to first response byte out; 1xx responses are left out.";
    TIME_TO_FIRST_TOKEN: Histogram Seconds Models "citadel_model_time_to_first_token_seconds" ["model", "port", "endpoint"]
        "Last request byte in to first body byte out, streamed responses only (text/event-stream, application/x-ndjson). The first chunk of an OpenAI stream may be a role chunk without text.";
    INTER_TOKEN_LATENCY: Histogram Seconds Models "citadel_model_inter_token_latency_seconds" ["model", "port", "endpoint"]
        "Time between consecutive body chunks of a streamed response. A chunk can hold several tokens.";
    STREAM_CHUNKS: Counter None Models "citadel_model_stream_chunks_total" ["model", "port", "endpoint"]
        "HTTP body chunks of streamed responses, the empty last chunk excluded.";
    REQUEST_BYTES: Counter Bytes Models "citadel_model_request_bytes_total" ["model", "port"]
        "TCP payload received from clients, each byte once.";
    RESPONSE_BYTES: Counter Bytes Models "citadel_model_response_bytes_total" ["model", "port"]
        "TCP payload sent to clients, each byte once.";
    CONNECTIONS_OPEN: Gauge None Models "citadel_model_connections_open" ["model", "port"]
        "Established TCP connections to the model's port.";
    CONNECTIONS: Counter None Models "citadel_model_connections_total" ["model", "port", "protocol"]
        "Connections by what their first bytes were: http1, http2, tls, or other (also: closed without a byte).";
    TCP_RTT: Histogram Seconds Models "citadel_model_tcp_rtt_seconds" ["model", "port"]
        "Smoothed TCP round-trip time of the model's connections, one sample a response.";
    TCP_RETRANSMITS: Counter None Models "citadel_model_tcp_retransmits_total" ["model", "port"]
        "TCP segments that the host sent again on the model's connections.";

    BUILD_INFO: Gauge None Agent "citadel_agent_build_info" ["version", "commit", "rustc"]
        "Always 1; the labels say what is running.";
    SOURCE_SUCCESS: Gauge None Agent "citadel_source_success" ["source"]
        "1 if the source's last read succeeded, else 0.";
    SOURCE_DURATION: Gauge Seconds Agent "citadel_source_duration_seconds" ["source"]
        "How long the source's last read took.";
    PROBE_STATUS: Gauge None Agent "citadel_probe_status" ["family", "program", "status", "reason"]
        "Always 1; one series a kernel program, its labels say whether it measures and if not, why.";
    PROBE_RUNS: Counter None Agent "citadel_probe_runs_total" ["program"]
        "Runs of a kernel program, while the kernel's BPF statistics are on.";
    PROBE_SECONDS: Counter Seconds Agent "citadel_probe_seconds_total" ["program"]
        "Time spent in a kernel program, while the kernel's BPF statistics are on.";
    MAP_ENTRIES: Gauge None Agent "citadel_map_entries" ["map"]
        "Entries in use of a kernel map.";
    MAP_CAPACITY: Gauge None Agent "citadel_map_capacity" ["map"]
        "Entries that a kernel map can hold.";
    EVENTS_LOST: Counter None Agent "citadel_events_lost_total" ["reason"]
        "What could not be measured, by reason; 0 as long as every request was followed.";
    PROCESS_CPU: Counter Seconds Agent "process_cpu_seconds_total" []
        "User and system CPU time of the agent.";
    PROCESS_RSS: Gauge Bytes Agent "process_resident_memory_bytes" []
        "Resident memory of the agent.";
    PROCESS_VIRTUAL: Gauge Bytes Agent "process_virtual_memory_bytes" []
        "Virtual memory of the agent.";
    PROCESS_OPEN_FDS: Gauge None Agent "process_open_fds" []
        "Open file descriptors of the agent.";
    PROCESS_MAX_FDS: Gauge None Agent "process_max_fds" []
        "Most file descriptors that the agent may open.";
    PROCESS_START: Gauge Seconds Agent "process_start_time_seconds" []
        "When the agent started, in seconds since the epoch.";
}
