//! Metrics reported by the models' engines, with one name for all engines: on `/metrics/models`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Models;

    INFO: Gauge None "citadel_engine_info" ["model", "port", "engine", "version"]
        "Always 1 once the agent has identified the engine that serves the model; version is empty if the engine does not report it.";
    REQUESTS_RUNNING: Gauge None "citadel_engine_requests_running" ["model", "port", "engine"]
        "Requests that the engine is processing.";
    REQUESTS_WAITING: Gauge None "citadel_engine_requests_waiting" ["model", "port", "engine", "reason"]
        "Requests in the engine's queues, by what they wait for; reason is empty if the engine does not distinguish. The sum over reasons is the number of waiting requests.";
    REQUESTS_SWAPPED: Gauge None "citadel_engine_requests_swapped" ["model", "port", "engine"]
        "Requests whose KV cache is swapped out to CPU memory.";
    KV_CACHE_USAGE: Gauge Ratio "citadel_engine_kv_cache_usage_ratio" ["model", "port", "engine"]
        "Fraction of the KV cache in use; with several ranks, that of the fullest.";
    PREFIX_CACHE_QUERIES: Counter(Before) None "citadel_engine_prefix_cache_queries_total" ["model", "port", "engine"]
        "Prompt tokens looked up in the prefix cache.";
    PREFIX_CACHE_HITS: Counter(Before) None "citadel_engine_prefix_cache_hits_total" ["model", "port", "engine"]
        "Prompt tokens found in the prefix cache.";
    PREEMPTIONS: Counter(Before) None "citadel_engine_preemptions_total" ["model", "port", "engine"]
        "Running requests preempted (returned to the queue) because the KV cache was full.";
    TOKENS: Counter(Before) None "citadel_engine_tokens_total" ["model", "port", "engine", "kind"]
        "Tokens by kind: prompt (all prompt tokens), cached (prompt tokens served from the cache), generated.";
    PHASE_SECONDS: Counter(Before) Seconds "citadel_engine_phase_seconds_total" ["model", "port", "engine", "phase"]
        "Time spent in each phase of requests, as measured by the engine: queue, prefill, decode, first_token (from accepting the request to its first token), inter_token (between two tokens). Divide by citadel_engine_phases_total for the mean.";
    PHASES: Counter(Before) None "citadel_engine_phases_total" ["model", "port", "engine", "phase"]
        "Number of observations in citadel_engine_phase_seconds_total, by phase; absent if the engine does not count them.";
    SPECULATIVE_TOKENS: Counter(Before) None "citadel_engine_speculative_tokens_total" ["model", "port", "engine", "outcome"]
        "Tokens of speculative decoding: proposed by the draft model, and accepted.";
    SLEEPING: Gauge None "citadel_engine_sleeping" ["model", "port", "engine"]
        "1 while the engine has no model ready (vLLM in sleep mode, Ollama with no model loaded), else 0.";
    LOADED_MODELS: Gauge None "citadel_engine_loaded_models" ["model", "port", "engine"]
        "Models in memory, for engines that load and unload models on demand (Ollama).";
    LOADED_BYTES: Gauge Bytes "citadel_engine_loaded_bytes" ["model", "port", "engine", "memory"]
        "Size of the loaded models, by memory: gpu or host.";
    PAGE_SUCCESS: Gauge None "citadel_engine_page_success" ["model", "port"]
        "1 if the engine's metrics page was read successfully the last time, else 0; absent if the server has no such page.";
    PAGE_SIZE: Gauge Bytes "citadel_engine_page_bytes" ["model", "port"]
        "Size of the engine's last metrics page.";
    PAGE_PARSE: Gauge Seconds "citadel_engine_page_parse_seconds" ["model", "port"]
        "Time the agent took to parse the engine's last metrics page. The duration of the request is in citadel_model_probe_duration_seconds.";
}
