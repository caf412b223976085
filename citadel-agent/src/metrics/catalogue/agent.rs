//! The agent itself: on every page.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Agent;

    BUILD_INFO: Gauge None "citadel_agent_build_info" ["version", "commit", "rustc"]
        "Always 1; the labels say what is running.";
    SOURCE_SUCCESS: Gauge None "citadel_source_success" ["source"]
        "1 if the source's last read succeeded, else 0.";
    SOURCE_DURATION: Gauge Seconds "citadel_source_duration_seconds" ["source"]
        "How long the source's last read took.";
    SOURCE_SKIPPED: Counter(Start) None "citadel_source_skipped_total" ["source"]
        "Lines, fields and files of the source's input that could not be read and were skipped, each time that it was read; the rest is exported.";
    PROBE_STATUS: Gauge None "citadel_probe_status" ["family", "program", "status", "reason"]
        "Always 1; one series a kernel program, its labels say whether it measures and if not, why.";
    PROBE_RUNS: Counter(Before) None "citadel_probe_runs_total" ["program"]
        "Runs of a kernel program, while the kernel's BPF statistics are on.";
    PROBE_SECONDS: Counter(Before) Seconds "citadel_probe_seconds_total" ["program"]
        "Time spent in a kernel program, while the kernel's BPF statistics are on.";
    MAP_ENTRIES: Gauge None "citadel_map_entries" ["map"]
        "Entries in use of a kernel map.";
    MAP_CAPACITY: Gauge None "citadel_map_capacity" ["map"]
        "Entries that a kernel map can hold.";
    EVENTS_LOST: Counter(Start) None "citadel_events_lost_total" ["reason"]
        "What could not be measured, by reason; 0 as long as every request was followed.";
    MODEL_EVENTS_LOST: Counter(Start, beside EVENTS_LOST) None "citadel_model_events_lost_total" ["model", "port", "reason"]
        "Part of citadel_events_lost_total: what found no room because the model has more processes, threads, readers of requests or kinds of failing system calls than its share of a kernel map. No other model takes that share.";
    HTTP_DROPPED: Counter(Start) None "citadel_http_connections_dropped_total" ["listener", "reason"]
        "Connections that the listener closed before the client was done, by reason: connection_limit, memory_limit (slow readers of large responses), request_timeout or response_timeout.";
    REMOTE_WRITE_COLLECTED: Counter(Before) None "citadel_remote_write_collected_samples_total" ["destination"]
        "Samples collected for a destination since it was first configured, restarts included: acknowledged, rejected, dropped and pending ones together. A histogram is one sample.";
    REMOTE_WRITE_SAMPLES: Counter(Before, beside REMOTE_WRITE_COLLECTED) None "citadel_remote_write_samples_total" ["destination", "outcome", "reason"]
        "What became of them: acknowledged, rejected by the receiver, or dropped, with the reason.";
    REMOTE_WRITE_PENDING: Gauge None "citadel_remote_write_pending_samples" ["destination"]
        "Samples that wait for a destination.";
    REMOTE_WRITE_PENDING_BYTES: Gauge Bytes "citadel_remote_write_pending_bytes" ["destination"]
        "Size of the files that hold samples that wait for a destination.";
    REMOTE_WRITE_MEMORY: Gauge Bytes "citadel_remote_write_memory_bytes" ["destination"]
        "Samples in memory because the spool's disk refuses them; 0 while it takes them.";
    REMOTE_WRITE_OLDEST: Gauge Seconds "citadel_remote_write_oldest_pending_seconds" ["destination"]
        "Age of the oldest sample that waits for a destination.";
    REMOTE_WRITE_REQUESTS: Counter(Start, beside REMOTE_WRITE_COLLECTED) None "citadel_remote_write_requests_total" ["destination", "code"]
        "Requests by HTTP status; none where there was no answer.";
    REMOTE_WRITE_PARKED: Gauge None "citadel_remote_write_parked" ["destination"]
        "1 while the destination lets nothing in (401, 403, 404, a redirect) and is tried once a minute.";
    REMOTE_WRITE_TEST: Gauge None "citadel_remote_write_test" ["destination"]
        "Always 1; sent by `citadel-agent remote-write test` alone, never scraped.";
    ALERTS_FIRING: Gauge None "citadel_alerts_firing" ["severity"]
        "Alerts of the agent's own rules that fire, by severity; absent where none are evaluated.";
    ALERT_NOTIFICATIONS: Counter(Start) None "citadel_alert_notifications_total" ["peer", "outcome"]
        "Alerts sent to an Alertmanager, each time that one was sent: delivered, rejected (it answered 4xx) or dropped (too many waited).";
    ALERT_FAILURES: Counter(Start) None "citadel_alert_request_failures_total" ["peer"]
        "Requests to an Alertmanager that got no answer, or a 5xx or 429; they are made again.";
    ALERT_PENDING: Gauge None "citadel_alert_notifications_pending" ["peer"]
        "Alerts that wait for an Alertmanager, of each only the newest.";
    PROCESS_CPU: Counter(Start) Seconds "process_cpu_seconds_total" []
        "User and system CPU time of the agent.";
    PROCESS_RSS: Gauge Bytes "process_resident_memory_bytes" []
        "Resident memory of the agent.";
    PROCESS_VIRTUAL: Gauge Bytes "process_virtual_memory_bytes" []
        "Virtual memory of the agent.";
    PROCESS_OPEN_FDS: Gauge None "process_open_fds" []
        "Open file descriptors of the agent.";
    PROCESS_MAX_FDS: Gauge None "process_max_fds" []
        "Most file descriptors that the agent may open.";
    PROCESS_START: Gauge Seconds "process_start_time_seconds" []
        "When the agent started, in seconds since the epoch.";
}
