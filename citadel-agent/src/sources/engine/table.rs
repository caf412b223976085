//! Mapping of engine metrics to exported ones: one row per engine.
//!
//! Only metrics with the same meaning are mapped. Engine metrics with a different one (a mean per request instead of
//! the time between tokens, the time of a batch instead of a request) are omitted: absent is better than approximately
//! right.

use crate::discovery::engine::Engine;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::engine::{
    KV_CACHE_USAGE, PHASE_SECONDS, PREEMPTIONS, PREFIX_CACHE_HITS, PREFIX_CACHE_QUERIES, REQUESTS_RUNNING,
    REQUESTS_SWAPPED, REQUESTS_WAITING, SLEEPING, SPECULATIVE_TOKENS, TOKENS,
};

/// The row of an engine.
pub(super) struct Row {
    pub(super) engine: Engine,
    /// Labels that distinguish copies of the same value: ranks that each count the same requests. The largest copy is
    /// used.
    pub(super) copies: &'static [&'static str],
    pub(super) takes: &'static [Take],
    /// Phases of requests, each with its histogram or summary: the first of these on the page.
    pub(super) phases: &'static [(&'static str, &'static [&'static str])],
}

/// An exported series and its sources: the first of these on the page.
pub(super) struct Take {
    pub(super) desc: &'static Desc,
    /// Value of the label besides model, port and engine.
    pub(super) label: Option<&'static str>,
    pub(super) from: &'static [From],
}

/// The source of a value. All listed names must be on the page.
pub(super) enum From {
    /// The sum of all of these over all label sets.
    Sum(&'static [Pick]),
    /// The maximum over all label sets.
    Max(Pick),
    /// The quotient of two sums.
    Ratio(Pick, Pick),
    /// 1 unless every label set is 1.
    NotAll(Pick),
    /// A series for each value of this label, which becomes the label besides model, port and engine.
    By(Pick, &'static str),
}

/// Samples with a name, optionally only those with a label value.
#[derive(Clone, Copy)]
pub(super) struct Pick {
    pub(super) name: &'static str,
    pub(super) only: Option<(&'static str, &'static str)>,
}

const fn all(name: &'static str) -> Pick {
    Pick { name, only: None }
}

const fn only(name: &'static str, label: &'static str, value: &'static str) -> Pick {
    Pick { name, only: Some((label, value)) }
}

macro_rules! take {
    ($desc:ident, $($name:literal)|+) => {
        Take { desc: &$desc, label: None, from: &[$(From::Sum(&[all($name)])),+] }
    };
    ($desc:ident = $label:literal, $($name:literal)|+) => {
        Take { desc: &$desc, label: Some($label), from: &[$(From::Sum(&[all($name)])),+] }
    };
}

/// The engines with a metrics page. Names are those of vLLM 0.4 to 0.32, llama.cpp up to b11669, SGLang 0.4 to 0.5.23,
/// TGI 3, Triton 23.11 and later, TensorRT-LLM 1, LMDeploy 0.9 to 0.18 and litellm 1.
pub(super) const ROWS: &[Row] = &[
    Row {
        engine: Engine::Vllm,
        copies: &[],
        takes: &[
            take!(REQUESTS_RUNNING, "vllm:num_requests_running"),
            Take {
                desc: &REQUESTS_WAITING,
                label: Some(""),
                from: &[
                    From::By(all("vllm:num_requests_waiting_by_reason"), "reason"),
                    From::Sum(&[all("vllm:num_requests_waiting")]),
                ],
            },
            take!(REQUESTS_SWAPPED, "vllm:num_requests_swapped"),
            Take {
                desc: &KV_CACHE_USAGE,
                label: None,
                from: &[From::Max(all("vllm:kv_cache_usage_perc")), From::Max(all("vllm:gpu_cache_usage_perc"))],
            },
            take!(PREFIX_CACHE_QUERIES, "vllm:prefix_cache_queries_total" | "vllm:gpu_prefix_cache_queries_total"),
            take!(PREFIX_CACHE_HITS, "vllm:prefix_cache_hits_total" | "vllm:gpu_prefix_cache_hits_total"),
            take!(PREEMPTIONS, "vllm:num_preemptions_total"),
            take!(TOKENS = "prompt", "vllm:prompt_tokens_total"),
            take!(TOKENS = "cached", "vllm:prompt_tokens_cached_total"),
            take!(TOKENS = "generated", "vllm:generation_tokens_total"),
            take!(SPECULATIVE_TOKENS = "proposed", "vllm:spec_decode_num_draft_tokens_total"),
            take!(SPECULATIVE_TOKENS = "accepted", "vllm:spec_decode_num_accepted_tokens_total"),
            Take {
                desc: &SLEEPING,
                label: None,
                from: &[From::NotAll(only("vllm:engine_sleep_state", "sleep_state", "awake"))],
            },
        ],
        phases: &[
            ("queue", &["vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"]),
            ("prefill", &["vllm:request_prefill_time_seconds"]),
            ("decode", &["vllm:request_decode_time_seconds"]),
            ("first_token", &["vllm:time_to_first_token_seconds"]),
            ("inter_token", &["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"]),
        ],
    },
    Row {
        engine: Engine::LlamaCpp,
        copies: &[],
        takes: &[
            take!(REQUESTS_RUNNING, "llamacpp:requests_processing"),
            take!(REQUESTS_WAITING = "", "llamacpp:requests_deferred"),
            take!(KV_CACHE_USAGE, "llamacpp:kv_cache_usage_ratio"),
            Take {
                desc: &PREFIX_CACHE_QUERIES,
                label: None,
                from: &[From::Sum(&[all("llamacpp:prompt_tokens_total"), all("llamacpp:prompt_tokens_cached_total")])],
            },
            take!(PREFIX_CACHE_HITS, "llamacpp:prompt_tokens_cached_total"),
            // Its own count excludes cached tokens; a version that does not report them has no total.
            Take {
                desc: &TOKENS,
                label: Some("prompt"),
                from: &[From::Sum(&[all("llamacpp:prompt_tokens_total"), all("llamacpp:prompt_tokens_cached_total")])],
            },
            take!(TOKENS = "cached", "llamacpp:prompt_tokens_cached_total"),
            take!(TOKENS = "generated", "llamacpp:tokens_predicted_total"),
            take!(PHASE_SECONDS = "prefill", "llamacpp:prompt_seconds_total"),
            take!(PHASE_SECONDS = "decode", "llamacpp:tokens_predicted_seconds_total"),
            take!(SPECULATIVE_TOKENS = "proposed", "llamacpp:spec_decode_num_draft_tokens_total"),
            take!(SPECULATIVE_TOKENS = "accepted", "llamacpp:spec_decode_num_accepted_tokens_total"),
        ],
        phases: &[],
    },
    Row {
        engine: Engine::SgLang,
        // With --enable-metrics-for-all-schedulers each rank of a tensor- or pipeline-parallel group counts the same
        // requests.
        copies: &["tp_rank", "pp_rank", "moe_ep_rank"],
        takes: &[
            take!(REQUESTS_RUNNING, "sglang:num_running_reqs"),
            take!(REQUESTS_WAITING = "", "sglang:num_queue_reqs"),
            take!(REQUESTS_WAITING = "grammar", "sglang:num_grammar_queue_reqs"),
            take!(
                REQUESTS_WAITING = "prefill_bootstrap",
                "sglang:num_prefill_bootstrap_queue_reqs" | "sglang:num_prefill_prealloc_queue_reqs"
            ),
            take!(REQUESTS_WAITING = "prefill_inflight", "sglang:num_prefill_inflight_queue_reqs"),
            take!(REQUESTS_WAITING = "decode_prealloc", "sglang:num_decode_prealloc_queue_reqs"),
            take!(REQUESTS_WAITING = "decode_transfer", "sglang:num_decode_transfer_queue_reqs"),
            Take { desc: &KV_CACHE_USAGE, label: None, from: &[From::Max(all("sglang:token_usage"))] },
            take!(PREFIX_CACHE_QUERIES, "sglang:prompt_tokens_total"),
            take!(PREFIX_CACHE_HITS, "sglang:cached_tokens_total"),
            take!(PREEMPTIONS, "sglang:num_retracted_requests_total"),
            take!(TOKENS = "prompt", "sglang:prompt_tokens_total"),
            take!(TOKENS = "cached", "sglang:cached_tokens_total"),
            take!(TOKENS = "generated", "sglang:generation_tokens_total"),
        ],
        phases: &[
            ("queue", &["sglang:queue_time_seconds"]),
            ("first_token", &["sglang:time_to_first_token_seconds"]),
            ("inter_token", &["sglang:inter_token_latency_seconds"]),
        ],
    },
    Row {
        engine: Engine::Tgi,
        copies: &[],
        takes: &[
            take!(REQUESTS_RUNNING, "tgi_batch_current_size"),
            take!(REQUESTS_WAITING = "", "tgi_queue_size"),
            take!(TOKENS = "prompt", "tgi_request_input_length_sum"),
            take!(TOKENS = "generated", "tgi_request_generated_tokens_sum"),
            take!(SPECULATIVE_TOKENS = "accepted", "tgi_request_skipped_tokens_sum"),
        ],
        phases: &[("queue", &["tgi_request_queue_duration"])],
    },
    Row {
        engine: Engine::TensorRtLlm,
        copies: &[],
        takes: &[
            take!(REQUESTS_RUNNING, "trtllm_num_requests_running"),
            take!(REQUESTS_WAITING = "", "trtllm_num_requests_waiting"),
            Take { desc: &KV_CACHE_USAGE, label: None, from: &[From::Max(all("trtllm_kv_cache_utilization"))] },
            take!(TOKENS = "prompt", "trtllm_prompt_tokens_total"),
            take!(TOKENS = "cached", "trtllm_prompt_cached_tokens_total"),
            take!(TOKENS = "generated", "trtllm_generation_tokens_total"),
            take!(
                SPECULATIVE_TOKENS = "proposed",
                "trtllm_spec_decode_drafted_tokens_total" | "trtllm_spec_decode_num_draft_tokens_total"
            ),
            take!(
                SPECULATIVE_TOKENS = "accepted",
                "trtllm_spec_decode_accepted_tokens_total" | "trtllm_spec_decode_num_accepted_tokens_total"
            ),
        ],
        phases: &[
            ("queue", &["trtllm_request_queue_time_seconds"]),
            ("prefill", &["trtllm_request_prefill_time_seconds"]),
            ("decode", &["trtllm_request_decode_time_seconds"]),
            ("first_token", &["trtllm_time_to_first_token_seconds"]),
        ],
    },
    Row {
        engine: Engine::Triton,
        copies: &[],
        takes: &[
            Take {
                desc: &REQUESTS_RUNNING,
                label: None,
                from: &[From::Sum(&[only("nv_trt_llm_request_metrics", "request_type", "scheduled")])],
            },
            Take {
                desc: &REQUESTS_WAITING,
                label: Some(""),
                from: &[From::Sum(&[only("nv_trt_llm_request_metrics", "request_type", "waiting")])],
            },
            Take {
                desc: &KV_CACHE_USAGE,
                label: None,
                from: &[
                    From::Max(only("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction")),
                    From::Ratio(
                        only("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "used"),
                        only("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "max"),
                    ),
                ],
            },
            take!(TOKENS = "prompt", "nv_llm_input_token_len_sum"),
            take!(TOKENS = "generated", "nv_llm_output_token_len_sum"),
        ],
        phases: &[],
    },
    Row {
        engine: Engine::LmDeploy,
        copies: &[],
        takes: &[
            take!(REQUESTS_RUNNING, "lmdeploy:num_requests_running"),
            take!(REQUESTS_WAITING = "", "lmdeploy:num_requests_waiting"),
            Take { desc: &KV_CACHE_USAGE, label: None, from: &[From::Max(all("lmdeploy:gpu_cache_usage_perc"))] },
            take!(TOKENS = "prompt", "lmdeploy:prompt_tokens_total"),
            take!(TOKENS = "cached", "lmdeploy:cached_tokens_total"),
            take!(TOKENS = "generated", "lmdeploy:generation_tokens_total"),
            take!(SPECULATIVE_TOKENS = "proposed", "lmdeploy:spec_decode_num_draft_tokens_total"),
            take!(SPECULATIVE_TOKENS = "accepted", "lmdeploy:spec_decode_num_accepted_tokens_total"),
        ],
        phases: &[
            ("queue", &["lmdeploy:request_queue_time_seconds"]),
            ("prefill", &["lmdeploy:request_prefill_time_seconds"]),
            ("decode", &["lmdeploy:request_decode_time_seconds"]),
            ("first_token", &["lmdeploy:time_to_first_token_seconds"]),
            ("inter_token", &["lmdeploy:iter_token_latency", "lmdeploy:time_per_output_token_seconds"]),
        ],
    },
    Row {
        // Its gauge of requests in flight includes the request that reads it, so it is omitted.
        engine: Engine::LiteLlm,
        copies: &[],
        takes: &[
            take!(TOKENS = "prompt", "litellm_input_tokens_metric_total"),
            take!(TOKENS = "cached", "litellm_input_cached_tokens_metric_total"),
            take!(TOKENS = "generated", "litellm_output_tokens_metric_total"),
        ],
        phases: &[("first_token", &["litellm_llm_api_time_to_first_token_metric"])],
    },
];
