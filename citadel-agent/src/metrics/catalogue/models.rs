//! The models: `/metrics/models`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Models;

    REQUESTS: Counter(Start, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_total" ["model", "port", "endpoint", "code"]
        "Requests whose response ended, by HTTP status code, or invalid for one outside of 100 to 599.";
    REQUESTS_IN_FLIGHT: Gauge None "citadel_model_requests_in_flight" ["model", "port"]
        "Requests that began and whose response has not ended.";
    REQUESTS_ABORTED: Counter(Start, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_aborted_total" ["model", "port", "endpoint", "side", "phase"]
        "Requests whose connection was closed or reset before the response ended, by the side that ended it first and by what was under way: request (still arriving), waiting (no response byte yet), headers (header out, no body yet), streaming, body.";
    REQUEST_DURATION: Histogram<Requests> Seconds "citadel_model_request_duration_seconds" ["model", "port", "endpoint"]
        "First request byte in the server's TCP to last response byte handed down by the server.";
    TIME_TO_FIRST_BYTE: Histogram<Requests> Seconds "citadel_model_time_to_first_byte_seconds" ["model", "port", "endpoint"]
        "Last request byte in to first response byte out; 1xx responses are left out.";
    TIME_TO_FIRST_TOKEN: Histogram<Requests> Seconds "citadel_model_time_to_first_token_seconds" ["model", "port", "endpoint"]
        "Last request byte in to first body byte out, streamed responses only (text/event-stream, application/x-ndjson). The first chunk of an OpenAI stream may be a role chunk without text.";
    INTER_TOKEN_LATENCY: Histogram<Requests> Seconds "citadel_model_inter_token_latency_seconds" ["model", "port", "endpoint"]
        "Time between consecutive body chunks of a streamed response. A chunk can hold several tokens.";
    STREAM_CHUNKS: Counter(Start, beside REQUESTS_IN_FLIGHT) None "citadel_model_stream_chunks_total" ["model", "port", "endpoint"]
        "HTTP body chunks of streamed responses, the empty last chunk excluded.";
    RECEIVE_QUEUE: Histogram<Queues> Seconds "citadel_model_receive_queue_seconds" ["model", "port"]
        "First request byte in the kernel to the first read of it by the server: accept, event loop and thread pool in one.";
    REQUEST_BYTES: Counter(Start) Bytes "citadel_model_request_bytes_total" ["model", "port"]
        "TCP payload received from clients, each byte once.";
    RESPONSE_BYTES: Counter(Start) Bytes "citadel_model_response_bytes_total" ["model", "port"]
        "TCP payload sent to clients, each byte once.";
    CONNECTIONS_OPEN: Gauge None "citadel_model_connections_open" ["model", "port"]
        "Established TCP connections to the model's port.";
    CONNECTIONS: Counter(Start) None "citadel_model_connections_total" ["model", "port", "protocol"]
        "Connections by what their first bytes were: http1, http2, tls, or other (also: closed without a byte).";
    TCP_RTT: Histogram<RoundTrips> Seconds "citadel_model_tcp_rtt_seconds" ["model", "port"]
        "Smoothed TCP round-trip time of the model's connections, one sample a response.";
    TCP_RETRANSMITS: Counter(Start) None "citadel_model_tcp_retransmits_total" ["model", "port"]
        "TCP segments that the host sent again on the model's connections.";
    MODEL_UP: Gauge None "citadel_model_up" ["model", "port"]
        "1 if the model's path for health answers 2xx, or where it has none any other probed path; else 0. Absent while the server wants a key that the probes have not (401, 403): then neither is known, see citadel_model_state.";
    MODEL_STATE: Gauge None "citadel_model_state" ["model", "port", "state"]
        "1 for the state that the model's probes show, 0 for the others: up, down, unauthorised (401 or 403: set api_key_file).";
    PROBE_SUCCESS: Gauge None "citadel_model_probe_success" ["model", "port", "path"]
        "1 if the last probe of the path was answered with a status from 200 to 299, else 0. Redirects are not followed.";
    PROBE_DURATION: Gauge Seconds "citadel_model_probe_duration_seconds" ["model", "port", "path"]
        "How long the last probe of the path took, connection included.";
    PROBE_STATUS_CODE: Gauge None "citadel_model_probe_status_code" ["model", "port", "path"]
        "HTTP status of the last probe of the path; absent where there was no answer.";
    SERVED_MODEL: Gauge None "citadel_model_served_info" ["model", "port", "served_model"]
        "Always 1; the model that the server itself names at /v1/models.";
    RELAY_DROPPED: Gauge None "citadel_model_relay_dropped_families" ["model", "port", "reason"]
        "Families of the model's own metrics that are not passed on: more samples, memory, labels or text than is passed on, a duplicate series, a name or label that is the agent's or Prometheus' own.";
    RELAY_SUCCESS: Gauge None "citadel_model_relay_success" ["model", "port"]
        "1 if the model's own metrics are passed on, 0 if they cannot be; absent where that is not configured.";
    INFO: Gauge None "citadel_model_info" ["model", "port", "unit", "pid", "exe", "served_model", "protocol"]
        "Always 1, while the model listens; the labels say who serves it: systemd unit, the process that has listened longest, what the server itself calls its model, what most of its connections speak. Empty where it is not known.";
    CPU: Counter(Before) Seconds "citadel_model_cpu_seconds_total" ["model", "port", "mode"]
        "CPU time of the model's processes: by the cgroup of its unit where that holds nothing else, else of the listening processes and all below them. Processes that have ended count on; a process that listens on two ports counts for both.";
    MEMORY: Gauge Bytes "citadel_model_memory_bytes" ["model", "port", "kind"]
        "Memory of the model's processes: rss, in RAM, what several processes share counted for each; pss, in RAM, what n processes of the host share counted 1/n for each; swap, swapped out.";
    RUN_QUEUE: Histogram<Queues> Seconds "citadel_model_runqueue_latency_seconds" ["model", "port"]
        "Runnable to running: how long threads of the model's processes waited for a CPU, each time.";
    ON_CPU: Counter(Before) Seconds "citadel_model_on_cpu_seconds_total" ["model", "port"]
        "Time that threads of the model's processes had a CPU, by the kernel's account, each up to the last time it left one.";
    SYSCALL_DURATION: Histogram<Calls> Seconds "citadel_model_syscall_duration_seconds" ["model", "port", "syscall"]
        "How long system calls of the model's processes took, each as it ended. Waiting calls (poll, futex, epoll_wait, epoll_pwait, epoll_pwait2, accept4, io_uring_enter; where configured also select, connect, accept, ppoll) are idleness as much as stall; and so is any call that reads from a blocking socket or pipe.";
    SYSCALL_ERRORS: Counter(Start, beside REQUESTS_IN_FLIGHT) None "citadel_model_syscall_errors_total" ["model", "port", "syscall", "errno"]
        "System calls of the model's processes that failed, by what the kernel's function returned: a call that a signal interrupts shows as ERESTARTSYS, ERESTARTNOHAND or the like, whether the process then gets EINTR or the call is restarted. EAGAIN is what a socket says that has nothing to read.";

    GPU_MEMORY: Gauge Bytes "citadel_model_gpu_memory_bytes" ["model", "port", "gpu"]
        "Device memory of the model's processes. Without a model: all the rest of what the GPU has allocated.";
    GPU_SM: Gauge Ratio "citadel_model_gpu_sm_ratio" ["model", "port", "gpu"]
        "Part of the SMs' time that the model's processes had in the last sampling interval. Without a model: other processes.";
    GPU_ENERGY: Counter(Before) Joules "citadel_model_gpu_energy_joules_total" ["model", "port", "gpu"]
        "The GPU's energy counter, attributed: each sampling interval's energy is split by the processes' part of the SMs' time. Without a model: idle time, other processes, and all before the agent started; the sum over models is the GPU's counter.";
}
