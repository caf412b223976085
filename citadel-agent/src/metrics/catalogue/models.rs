//! The models: `/metrics/models`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Models;

    REQUESTS: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_total" ["model", "port", "endpoint", "code"]
        "Completed requests by HTTP status code; invalid if the code is outside 100 to 599.";
    REQUESTS_IN_FLIGHT: Gauge None "citadel_model_requests_in_flight" ["model", "port"]
        "Requests that have started and whose response is not complete.";
    OLDEST_REQUEST: Gauge Seconds "citadel_model_oldest_request_seconds" ["model", "port"]
        "Age of the oldest request in flight, from its first byte; 0 if there is none.";
    LONGEST_WAIT: Gauge Seconds "citadel_model_longest_wait_seconds" ["model", "port"]
        "Longest time for which a request in flight has been waiting for the next byte of its response, from the last byte of the request or of the response so far; 0 if there is none. A hung engine shows here even if its health endpoint answers; so does a client that does not read: see citadel_model_connections_held_back.";
    REQUESTS_ABORTED: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_aborted_total" ["model", "port", "endpoint", "side", "phase"]
        "Requests whose connection was closed or reset before the response was complete, by the side that closed first and the phase: request (still arriving), waiting (no response byte sent), headers (headers sent, no body yet), streaming, body. Also streamed responses in which the server reported an error (phase error): citadel_model_requests_total does not count these, whatever their status code.";
    REQUEST_DURATION: Histogram<Requests> Seconds "citadel_model_request_duration_seconds" ["model", "port", "endpoint", "outcome"]
        "Time from the first request byte reaching the server's TCP socket to its TCP sending the last response byte, by outcome: success, client_error (status 400 to 499), server_error (500 and above). A client that reads slowly delays that.";
    TIME_TO_FIRST_BYTE: Histogram<Requests> Seconds "citadel_model_time_to_first_byte_seconds" ["model", "port", "endpoint", "response"]
        "Time from the last request byte received to the first response byte sent, by response: plain, or stream, whose header is often sent before any work is done. 1xx responses are not counted. Failed requests are included: the time is taken before the status code is read. citadel_model_request_duration_seconds has them apart.";
    TIME_TO_FIRST_TOKEN: Histogram<Requests> Seconds "citadel_model_time_to_first_token_seconds" ["model", "port", "endpoint"]
        "Time from the last request byte received to the first event with output sent (text, reasoning, arguments of a tool call, audio or image data), for streamed responses only (text/event-stream, application/x-ndjson). Where events cannot be read, to the first chunk: see citadel_model_streams_unread_total.";
    TIME_TO_FIRST_CHUNK: Histogram<Requests> Seconds "citadel_model_time_to_first_chunk_seconds" ["model", "port", "endpoint"]
        "Time from the last request byte received to the first body byte sent, for streamed responses only. The first chunk may carry only the role or other events without output.";
    INTER_TOKEN_LATENCY: Histogram<Requests> Seconds "citadel_model_inter_token_latency_seconds" ["model", "port", "endpoint"]
        "Time between consecutive events with output of a streamed response. An event can contain several tokens.";
    LONGEST_TOKEN_GAP: Gauge Seconds "citadel_model_longest_token_gap_seconds" ["model", "port"]
        "Longest time between two consecutive events with output of a stream within the last minute: the upper bound of its native bucket, so up to 9 % too long. Absent without such events.";
    STREAM_CHUNKS: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_stream_chunks_total" ["model", "port", "endpoint"]
        "HTTP body chunks of streamed responses, excluding the empty last chunk.";
    STREAM_EVENTS: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_stream_events_total" ["model", "port", "endpoint", "kind"]
        "Events of streamed responses, by kind: content (with output), other (roles, starts and ends of parts, usage, errors, the end marker).";
    STREAMS_UNREAD: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_streams_unread_total" ["model", "port", "endpoint"]
        "Streamed responses whose events cannot be read (compressed, of an unknown form, too long before the output, or not seen completely): each of their chunks counts as an event with output.";
    STREAM_UNSEEN_BYTES: Counter(Programs, beside REQUESTS_IN_FLIGHT) Bytes "citadel_model_stream_unseen_bytes_total" ["model", "port", "endpoint"]
        "Bytes of streamed responses whose chunks and events were not counted, because a packet contained more than the kernel programs can parse, or was missed. The requests are counted.";
    TOKENS: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_tokens_total" ["model", "port", "kind"]
        "Tokens as stated in the model's responses (usage, or llama.cpp's timings), by kind: prompt (including cached), completion, cached (prompt tokens found in a cache). Requests without such a statement and aborted requests are missing: see citadel_model_requests_without_usage_total. The engine's own count is citadel_engine_tokens_total.";
    REQUEST_PROMPT_TOKENS: Histogram<Tokens> None "citadel_model_request_prompt_tokens" ["model", "port"]
        "Prompt tokens by request, including cached ones, as stated in the response.";
    REQUEST_COMPLETION_TOKENS: Histogram<Tokens> None "citadel_model_request_completion_tokens" ["model", "port"]
        "Completion tokens by request, as stated in the response.";
    REQUESTS_WITH_USAGE: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_with_usage_total" ["model", "port"]
        "Completed requests whose response stated its tokens.";
    REQUESTS_WITHOUT_USAGE: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_requests_without_usage_total" ["model", "port"]
        "Completed requests with status 2xx whose response could have stated its tokens but did not, or in which they cannot be read (compressed): most engines state the usage of streamed responses only if the request asks for it (stream_options.include_usage).";
    RECEIVE_QUEUE: Histogram<Queues> Seconds "citadel_model_receive_queue_seconds" ["model", "port"]
        "Time from the first request byte reaching the kernel to the server's first read of it: delay of accept, event loop and thread pool together.";
    REQUEST_BYTES: Counter(Programs) Bytes "citadel_model_request_bytes_total" ["model", "port"]
        "TCP payload received from clients, excluding retransmissions.";
    RESPONSE_BYTES: Counter(Programs) Bytes "citadel_model_response_bytes_total" ["model", "port"]
        "TCP payload sent to clients, excluding retransmissions.";
    CONNECTIONS_OPEN: Gauge None "citadel_model_connections_open" ["model", "port"]
        "Established TCP connections to the model's port.";
    CONNECTIONS_HELD_BACK: Gauge None "citadel_model_connections_held_back" ["model", "port"]
        "Connections with data that wait for the client to read: its receive window is full, or has been for most of the time in which there was something to send.";
    ACCEPT_QUEUE: Gauge None "citadel_model_accept_queue_connections" ["model", "port"]
        "Connections that the server has not accepted yet; of several listening sockets, the fullest.";
    ACCEPT_QUEUE_LIMIT: Gauge None "citadel_model_accept_queue_limit" ["model", "port"]
        "Connections that may wait to be accepted (the backlog of that listening socket); more are turned away.";
    CONNECTIONS: Counter(Programs) None "citadel_model_connections_total" ["model", "port", "protocol"]
        "Connections by the protocol detected from their first bytes: http1, http2, tls, or other (including connections closed without sending a byte). upgraded: HTTP/1 connections that a response switched to another protocol or made a tunnel (101, CONNECT); these are also counted as http1.";
    TCP_RTT: Histogram<RoundTrips> Seconds "citadel_model_tcp_rtt_seconds" ["model", "port"]
        "Smoothed TCP round-trip time of the model's connections, sampled once per response.";
    TCP_RETRANSMITS: Counter(Programs) None "citadel_model_tcp_retransmits_total" ["model", "port"]
        "TCP segments retransmitted by the host on the model's connections.";
    MODEL_UP: Gauge None "citadel_model_up" ["model", "port"]
        "1 if the model's health endpoint answers 2xx, or any other probed path if it has no health endpoint; else 0. Absent while the server requires an API key that the probes do not have (401, 403), because then neither is known; see citadel_model_state.";
    MODEL_STATE: Gauge None "citadel_model_state" ["model", "port", "state"]
        "1 for the current state of the model according to its probes, 0 for the others: up, down, unauthorised (401 or 403: set api_key_file).";
    PROBE_SUCCESS: Gauge None "citadel_model_probe_success" ["model", "port", "path"]
        "1 if the last probe of the path returned a status from 200 to 299, else 0. Redirects are not followed.";
    PROBE_DURATION: Gauge Seconds "citadel_model_probe_duration_seconds" ["model", "port", "path"]
        "Duration of the last probe of the path, including connecting.";
    PROBE_STATUS_CODE: Gauge None "citadel_model_probe_status_code" ["model", "port", "path"]
        "HTTP status code of the last probe of the path; absent if there was no response.";
    SERVED_MODEL: Gauge None "citadel_model_served_info" ["model", "port", "served_model"]
        "Always 1; served_model is the name that the server reports at /v1/models.";
    RELAY_DROPPED: Gauge None "citadel_model_relay_dropped_families" ["model", "port", "reason"]
        "Metric families of the model's own metrics that are not relayed, by reason: too many samples or labels, too much memory or text, a duplicate series, or a name or label reserved by the agent or Prometheus.";
    RELAY_SUCCESS: Gauge None "citadel_model_relay_success" ["model", "port"]
        "1 if the model's own metrics are relayed, 0 if relaying them failed; absent if the relay is not configured.";
    INFO: Gauge None "citadel_model_info" ["model", "port", "unit", "pid", "exe", "served_model", "protocol"]
        "Always 1 while the model is listening; the labels identify its server: systemd unit, PID and executable of the process that has been listening longest, model name reported by the server, most common protocol of its connections. Unknown labels are empty.";
    BUSIEST_PROCESS: Gauge None "citadel_busiest_process_cpus" ["command", "pid"]
        "CPUs used by a process that belongs to no model, between the last two readings of the process table: the at most five processes that used the most, and at least 0.1 each. The command is what the process calls itself.";
    SLOWDOWN: Gauge None "citadel_model_slowdown" ["model", "port", "latency"]
        "Mean of a latency (first_token, inter_token, receive_queue) over the last five minutes, relative to the model's usual one: that of the hour before without the times that were slow or failing themselves. 1 if the difference is too small to matter or can be chance; absent without enough requests in both.";
    GONE: Gauge None "citadel_model_gone" ["model", "port"]
        "1 if something has listened on the model's port in the last day (restarts of the agent included) and nothing does now, unless its unit was stopped; else 0. Absent of a model that was not there in that time.";
    STOPPED_ON_REQUEST: Gauge None "citadel_model_stopped_on_request" ["model", "port"]
        "1 if systemd stopped the model's unit, or started it within the last ten minutes, on request and not because it failed; else 0, also if the model has no unit.";
    CPU: Counter(Before) Seconds "citadel_model_cpu_seconds_total" ["model", "port", "mode"]
        "CPU time of the model's processes: from the unit's cgroup if it contains nothing else, else summed over the listening processes and their descendants. CPU time of exited processes is kept; a process that listens on two ports counts for both.";
    CPU_THROTTLED: Counter(Before) Seconds "citadel_model_cpu_throttled_seconds_total" ["model", "port"]
        "Time for which the CPU quota of the model's cgroup held its threads back, since the cgroup was made; absent where the model has no cgroup of its own, or that no CPU controller.";
    MAJOR_FAULTS: Counter(Before) None "citadel_model_major_page_faults_total" ["model", "port"]
        "Page faults of the model's cgroup that had to read from a disk or swap, since the cgroup was made; absent where the model has no cgroup of its own, or that no memory controller.";
    MEMORY: Gauge Bytes "citadel_model_memory_bytes" ["model", "port", "kind"]
        "Memory of the model's processes: rss (resident set size, shared pages counted once per process), pss (proportional set size, each shared page divided by the number of processes sharing it), swap (swapped out).";
    RUN_QUEUE: Histogram<Queues> Seconds "citadel_model_runqueue_latency_seconds" ["model", "port"]
        "Time that threads of the model's processes waited for a CPU, from runnable to running.";
    ON_CPU: Counter(Before) Seconds "citadel_model_on_cpu_seconds_total" ["model", "port"]
        "Time that threads of the model's processes ran on a CPU, as accounted by the kernel. Updated at each context switch.";
    SYSCALL_DURATION: Histogram<Calls> Seconds "citadel_model_syscall_duration_seconds" ["model", "port", "syscall"]
        "Duration of system calls of the model's processes, observed when each call returns. Time in calls that wait (poll, futex, epoll_wait, epoll_pwait, epoll_pwait2, accept4, io_uring_enter; if configured also select, connect, accept, ppoll) can mean idle as well as stalled; so can a read from a blocking socket or pipe.";
    SYSCALL_ERRORS: Counter(Programs, beside REQUESTS_IN_FLIGHT) None "citadel_model_syscall_errors_total" ["model", "port", "syscall", "errno"]
        "System calls of the model's processes that failed, by the error that the kernel function returned. A call interrupted by a signal counts as ERESTARTSYS, ERESTARTNOHAND or similar, whether the process gets EINTR or the call is restarted. EAGAIN is normal for a non-blocking socket with nothing to read.";

    GPU_MEMORY: Gauge Bytes "citadel_model_gpu_memory_bytes" ["model", "port", "gpu"]
        "Device memory used by the model's processes. The series without a model is the rest of the GPU's allocated memory.";
    GPU_SM: Gauge Ratio "citadel_model_gpu_sm_ratio" ["model", "port", "gpu"]
        "Fraction of the GPU's SM time used by the model's processes in the last sampling interval. The series without a model covers other processes.";
    GPU_ENERGY: Counter(Before) Joules "citadel_model_gpu_energy_joules_total" ["model", "port", "gpu"]
        "The GPU's energy counter, attributed to models: the energy of each sampling interval is split by the processes' share of SM time. The series without a model covers idle time, other processes, and everything before the agent started; the sum over models equals the GPU's counter.";
}
