//! Names of the metrics under test, written out: dashboards and rules know these very names, so a rename must fail here.

/// Requests whose response ended.
pub const REQUESTS: &str = "citadel_model_requests_total";
/// Requests begun whose response has not ended.
pub const IN_FLIGHT: &str = "citadel_model_requests_in_flight";
/// Age of the oldest request in flight.
pub const OLDEST_REQUEST: &str = "citadel_model_oldest_request_seconds";
/// Longest time for which a request in flight has been waiting for the next byte.
pub const LONGEST_WAIT: &str = "citadel_model_longest_wait_seconds";
/// Requests whose connection ended before their response did.
pub const ABORTED: &str = "citadel_model_requests_aborted_total";
/// First request byte in to last response byte out.
pub const DURATION: &str = "citadel_model_request_duration_seconds";
/// Last request byte in to first response byte out.
pub const TTFB: &str = "citadel_model_time_to_first_byte_seconds";
/// Last request byte in to the first event with output, of streamed responses.
pub const TTFT: &str = "citadel_model_time_to_first_token_seconds";
/// Last request byte in to first body byte out, of streamed responses.
pub const TTFC: &str = "citadel_model_time_to_first_chunk_seconds";
/// Between consecutive events with output of a streamed response.
pub const INTER_TOKEN: &str = "citadel_model_inter_token_latency_seconds";
/// Chunks of streamed responses.
pub const CHUNKS: &str = "citadel_model_stream_chunks_total";
/// Events of streamed responses.
pub const STREAM_EVENTS: &str = "citadel_model_stream_events_total";
/// Tokens as stated in responses, by kind.
pub const TOKENS: &str = "citadel_model_tokens_total";
/// Prompt tokens by request.
pub const PROMPT_TOKENS: &str = "citadel_model_request_prompt_tokens";
/// Generated tokens by request.
pub const COMPLETION_TOKENS: &str = "citadel_model_request_completion_tokens";
/// Completed requests whose response stated its tokens.
pub const WITH_USAGE: &str = "citadel_model_requests_with_usage_total";
/// Completed requests whose response could have.
pub const WITHOUT_USAGE: &str = "citadel_model_requests_without_usage_total";
/// Streamed responses whose events cannot be read.
pub const STREAMS_UNREAD: &str = "citadel_model_streams_unread_total";
/// Bytes of streamed responses whose chunks and events were not counted.
pub const STREAM_UNSEEN_BYTES: &str = "citadel_model_stream_unseen_bytes_total";
/// TCP payload from clients.
pub const REQUEST_BYTES: &str = "citadel_model_request_bytes_total";
/// TCP payload to clients.
pub const RESPONSE_BYTES: &str = "citadel_model_response_bytes_total";
/// Established connections.
pub const OPEN: &str = "citadel_model_connections_open";
/// Connections by protocol.
pub const CONNECTIONS: &str = "citadel_model_connections_total";
/// Smoothed round-trip times.
pub const RTT: &str = "citadel_model_tcp_rtt_seconds";
/// Segments that the server's host sent again.
pub const RETRANSMITS: &str = "citadel_model_tcp_retransmits_total";
/// First request byte in to its first read by the server.
pub const RECEIVE_QUEUE: &str = "citadel_model_receive_queue_seconds";
/// Time that threads waited for a CPU.
pub const RUN_QUEUE: &str = "citadel_model_runqueue_latency_seconds";
/// Time that threads had a CPU.
pub const ON_CPU: &str = "citadel_model_on_cpu_seconds_total";
/// CPU time of a model's processes.
pub const CPU: &str = "citadel_model_cpu_seconds_total";
/// Memory of a model's processes.
pub const MEMORY: &str = "citadel_model_memory_bytes";
/// Who serves a model.
pub const INFO: &str = "citadel_model_info";
/// How long system calls took.
pub const SYSCALL_DURATION: &str = "citadel_model_syscall_duration_seconds";
/// System calls that failed.
pub const SYSCALL_ERRORS: &str = "citadel_model_syscall_errors_total";
/// Entries of the kernel programs' maps.
pub const MAP_ENTRIES: &str = "citadel_map_entries";
/// Entries that they can hold.
pub const MAP_CAPACITY: &str = "citadel_map_capacity";
/// What found no room in a map that models share.
pub const MODEL_EVENTS_LOST: &str = "citadel_model_events_lost_total";
/// Runs of kernel programs.
pub const PROBE_RUNS: &str = "citadel_probe_runs_total";
/// Time in them.
pub const PROBE_SECONDS: &str = "citadel_probe_seconds_total";
/// What the agent itself says that it could not measure.
pub const LOST: &str = "citadel_events_lost_total";
