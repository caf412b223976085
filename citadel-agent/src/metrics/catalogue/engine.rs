//! What the models' engines report of themselves, under one name for all: on `/metrics/models`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Models;

    INFO: Gauge None "citadel_engine_info" ["model", "port", "engine", "version"]
        "Always 1, once the agent knows which engine serves the model; version is empty where the engine does not say.";
    REQUESTS_RUNNING: Gauge None "citadel_engine_requests_running" ["model", "port", "engine"]
        "Requests that the engine is working on.";
    REQUESTS_WAITING: Gauge None "citadel_engine_requests_waiting" ["model", "port", "engine", "reason"]
        "Requests in the engine's queues; reason is what they wait for where the engine distinguishes it, else empty. The sum over reasons is all that wait.";
    REQUESTS_SWAPPED: Gauge None "citadel_engine_requests_swapped" ["model", "port", "engine"]
        "Requests whose KV cache is swapped out to CPU memory.";
    KV_CACHE_USAGE: Gauge Ratio "citadel_engine_kv_cache_usage_ratio" ["model", "port", "engine"]
        "Used part of the KV cache; of several ranks, the fullest.";
    PREFIX_CACHE_QUERIES: Counter(Before) None "citadel_engine_prefix_cache_queries_total" ["model", "port", "engine"]
        "Prompt tokens looked up in the prefix cache.";
    PREFIX_CACHE_HITS: Counter(Before) None "citadel_engine_prefix_cache_hits_total" ["model", "port", "engine"]
        "Prompt tokens found in the prefix cache.";
    PREEMPTIONS: Counter(Before) None "citadel_engine_preemptions_total" ["model", "port", "engine"]
        "Running requests put back into the queue because the KV cache was full.";
    TOKENS: Counter(Before) None "citadel_engine_tokens_total" ["model", "port", "engine", "kind"]
        "Tokens by kind: prompt (all tokens of the prompts), cached (those of them that came from the cache), generated.";
    PHASE_SECONDS: Counter(Before) Seconds "citadel_engine_phase_seconds_total" ["model", "port", "engine", "phase"]
        "Time in the phases of requests, by the engine's own clock: queue, prefill, decode, first_token (from when the engine took the request to its first token), inter_token (between two tokens). Divided by citadel_engine_phases_total: the mean.";
    PHASES: Counter(Before) None "citadel_engine_phases_total" ["model", "port", "engine", "phase"]
        "How many of each phase citadel_engine_phase_seconds_total adds up; absent where the engine does not count them.";
    SPECULATIVE_TOKENS: Counter(Before) None "citadel_engine_speculative_tokens_total" ["model", "port", "engine", "outcome"]
        "Tokens of speculative decoding: proposed by the draft, and those of them that were accepted.";
    SLEEPING: Gauge None "citadel_engine_sleeping" ["model", "port", "engine"]
        "1 while the engine holds no model ready: vLLM asleep, Ollama with no model loaded; else 0.";
    LOADED_MODELS: Gauge None "citadel_engine_loaded_models" ["model", "port", "engine"]
        "Models in memory, of an engine that loads and unloads them by itself (Ollama).";
    LOADED_BYTES: Gauge Bytes "citadel_engine_loaded_bytes" ["model", "port", "engine", "memory"]
        "Size of the models in memory, by where they are: gpu or host.";
    PAGE_SUCCESS: Gauge None "citadel_engine_page_success" ["model", "port"]
        "1 if the last page of an engine's metrics was read, else 0; absent where the server has no such page.";
    PAGE_SIZE: Gauge Bytes "citadel_engine_page_bytes" ["model", "port"]
        "Size of the engine's last metrics page.";
    PAGE_PARSE: Gauge Seconds "citadel_engine_page_parse_seconds" ["model", "port"]
        "Time that the agent took to read the engine's last metrics page. The request itself is in citadel_model_probe_duration_seconds.";
}
