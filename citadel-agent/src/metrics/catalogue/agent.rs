//! Metrics about the agent itself: on every page.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Agent;

    BUILD_INFO: Gauge None "citadel_agent_build_info" ["version", "commit", "rustc"]
        "Always 1; the labels describe the running build.";
    CONFIG_LOADED: Gauge Seconds "citadel_config_last_reload_success_timestamp_seconds" []
        "Unix time at which the current configuration was loaded.";
    CONFIG_SUCCESSFUL: Gauge None "citadel_config_last_reload_successful" []
        "1 if the last configuration load succeeded, 0 if it failed and the configuration before it is still used.";
    SOURCE_SUCCESS: Gauge None "citadel_source_success" ["source"]
        "1 if the last read of the source succeeded, else 0.";
    SOURCE_DURATION: Gauge Seconds "citadel_source_duration_seconds" ["source"]
        "Duration of the last read of the source.";
    SOURCE_SKIPPED: Counter(Start) None "citadel_source_skipped_total" ["source"]
        "Lines, fields and files of the source's input that could not be parsed and were skipped, counted at each read. The rest is exported.";
    PROBE_STATUS: Gauge None "citadel_probe_status" ["family", "program", "status", "reason"]
        "Always 1; one series per kernel program: status is whether it is measuring, reason is why not.";
    PROBE_RUNS: Counter(Before) None "citadel_probe_runs_total" ["program"]
        "Runs of a kernel program, while the kernel's BPF statistics are on.";
    PROBE_SECONDS: Counter(Before) Seconds "citadel_probe_seconds_total" ["program"]
        "Time spent in a kernel program, while the kernel's BPF statistics are on.";
    PROBE_START: Gauge Seconds "citadel_probe_start_time_seconds" []
        "When the kernel programs started to count, in seconds since the epoch: before the start of the agent if it took them over from the process before it; the earliest time if families differ.";
    MAP_ENTRIES: Gauge None "citadel_map_entries" ["map"]
        "Entries in use in a kernel map.";
    MAP_CAPACITY: Gauge None "citadel_map_capacity" ["map"]
        "Entries that a kernel map can hold.";
    EVENTS_LOST: Counter(Programs) None "citadel_events_lost_total" ["reason"]
        "Events that could not be measured, by reason; 0 as long as every request was followed.";
    MODEL_EVENTS_LOST: Counter(Programs, beside EVENTS_LOST) None "citadel_model_events_lost_total" ["model", "port", "reason"]
        "The part of citadel_events_lost_total caused by a model that exceeds its share of a kernel map with its processes, threads, readers of requests or kinds of failing system calls. The shares of other models are not affected.";
    HTTP_DROPPED: Counter(Start) None "citadel_http_connections_dropped_total" ["listener", "reason"]
        "Connections that the listener closed early, by reason: connection_limit, memory_limit (slow readers of large responses), request_timeout or response_timeout.";
    HTTP_REFUSED: Counter(Start) None "citadel_http_requests_refused_total" ["listener", "reason"]
        "Requests that the listener refused, by reason: credentials (none or wrong ones), host (see local_collection.allowed_hosts), rate_limit or tls (the handshake failed).";
    REMOTE_WRITE_COLLECTED: Counter(Before) None "citadel_remote_write_collected_samples_total" ["destination"]
        "Samples collected for a destination since it was first configured, kept across restarts: the sum of acknowledged, rejected, dropped and pending samples. A histogram is one sample.";
    REMOTE_WRITE_SAMPLES: Counter(Before, beside REMOTE_WRITE_COLLECTED) None "citadel_remote_write_samples_total" ["destination", "outcome", "reason"]
        "Samples by outcome: acknowledged, rejected by the receiver, or dropped, with the reason.";
    REMOTE_WRITE_PENDING: Gauge None "citadel_remote_write_pending_samples" ["destination"]
        "Samples waiting to be sent to a destination.";
    REMOTE_WRITE_PENDING_BYTES: Gauge Bytes "citadel_remote_write_pending_bytes" ["destination"]
        "Size of the spool files that contain samples waiting to be sent to a destination.";
    REMOTE_WRITE_MEMORY: Gauge Bytes "citadel_remote_write_memory_bytes" ["destination"]
        "Size of the samples held in memory because writing to the spool failed; 0 while writes succeed.";
    REMOTE_WRITE_OLDEST: Gauge Seconds "citadel_remote_write_oldest_pending_seconds" ["destination"]
        "Age of the oldest sample waiting to be sent to a destination.";
    REMOTE_WRITE_REQUESTS: Counter(Start, beside REMOTE_WRITE_COLLECTED) None "citadel_remote_write_requests_total" ["destination", "code"]
        "Requests to a destination by HTTP status code; none if there was no response.";
    REMOTE_WRITE_PARKED: Gauge None "citadel_remote_write_parked" ["destination"]
        "1 while the destination is parked: it refused everything (401, 403, 404, a redirect) and is retried once a minute.";
    REMOTE_WRITE_TEST: Gauge None "citadel_remote_write_test" ["destination"]
        "Always 1; sent only by `citadel-agent remote-write test`, never scraped.";
    ALERTS_FIRING: Gauge None "citadel_alerts_firing" ["severity"]
        "Firing alerts of the agent's own rules, by severity; absent if no rules are evaluated.";
    ALERT_NOTIFICATIONS: Counter(Start) None "citadel_alert_notifications_total" ["peer", "outcome"]
        "Alert notifications to an Alertmanager by outcome: delivered, rejected (4xx response) or dropped (queue full).";
    ALERT_FAILURES: Counter(Start) None "citadel_alert_request_failures_total" ["peer"]
        "Requests to an Alertmanager that failed (no response, 5xx or 429); they are retried.";
    ALERT_PENDING: Gauge None "citadel_alert_notifications_pending" ["peer"]
        "Alerts waiting to be sent to an Alertmanager; only the newest notification of each alert is kept.";
    PROCESS_CPU: Counter(Start) Seconds "process_cpu_seconds_total" []
        "User and system CPU time of the agent.";
    PROCESS_RSS: Gauge Bytes "process_resident_memory_bytes" []
        "Resident memory of the agent.";
    PROCESS_VIRTUAL: Gauge Bytes "process_virtual_memory_bytes" []
        "Virtual memory of the agent.";
    PROCESS_OPEN_FDS: Gauge None "process_open_fds" []
        "Open file descriptors of the agent.";
    PROCESS_MAX_FDS: Gauge None "process_max_fds" []
        "Maximum number of open file descriptors of the agent.";
    PROCESS_START: Gauge Seconds "process_start_time_seconds" []
        "Start time of the agent, in seconds since the epoch.";
}
