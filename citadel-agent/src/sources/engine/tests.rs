//! Each engine's page, and what is read of it.

use std::collections::BTreeMap;

use super::page::{PageError, Report, parse};
use super::{Asked, Known, add, ollama};
use crate::discovery::engine::Engine;
use crate::metrics::family::{Page, Value};

/// The series of a page, as `name{label}` without the prefix, with their values.
fn read(page: &str) -> (Engine, BTreeMap<String, f64>) {
    let report = parse(page).unwrap().expect("an engine's page");
    (report.engine, shown(&report))
}

fn shown(report: &Report) -> BTreeMap<String, f64> {
    let name = |name: &str| name.strip_prefix("citadel_engine_").unwrap().to_owned();
    let series = report.series.iter().map(|series| {
        let label = series.label.as_ref().map_or(String::new(), |label| format!("{{{label}}}"));
        (name(series.desc.name) + &label, series.value)
    });
    let all: BTreeMap<_, _> = series.collect();
    assert_eq!(all.len(), report.series.len(), "a series twice");
    all
}

fn check(page: &str, engine: Engine, expected: &[(&str, f64)]) {
    let (found, series) = read(page);
    assert_eq!(found, engine);
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    assert_eq!(series, expected);
}

macro_rules! page {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/engines/", $name, ".txt"))
    };
}

#[test]
fn vllm() {
    check(
        page!("vllm-0.32.0"),
        Engine::Vllm,
        &[
            ("requests_running", 0.0),
            ("requests_waiting{capacity}", 0.0),
            ("requests_waiting{deferred}", 0.0),
            ("kv_cache_usage_ratio", 0.0),
            ("prefix_cache_queries_total", 1139.0),
            ("prefix_cache_hits_total", 0.0),
            ("preemptions_total", 0.0),
            ("tokens_total{prompt}", 1139.0),
            ("tokens_total{cached}", 0.0),
            ("tokens_total{generated}", 144.0),
            ("sleeping", 0.0),
            ("phase_seconds_total{queue}", 0.000_203_053_003_133_391_03),
            ("phases_total{queue}", 12.0),
            ("phase_seconds_total{prefill}", 11.919_393_439_998_203),
            ("phases_total{prefill}", 12.0),
            ("phase_seconds_total{decode}", 0.790_220_873_997_896),
            ("phases_total{decode}", 12.0),
            ("phase_seconds_total{first_token}", 11.991_774_559_020_996),
            ("phases_total{first_token}", 12.0),
            ("phase_seconds_total{inter_token}", 0.790_220_873_997_896),
            ("phases_total{inter_token}", 132.0),
        ],
    );
}

#[test]
fn vllm_of_before_v1() {
    check(
        page!("vllm-0.4.0"),
        Engine::Vllm,
        &[
            ("requests_running", 3.0),
            ("requests_waiting{}", 2.0),
            ("requests_swapped", 1.0),
            ("kv_cache_usage_ratio", 0.25),
            ("preemptions_total", 4.0),
            ("tokens_total{prompt}", 1000.0),
            ("tokens_total{generated}", 500.0),
            ("phase_seconds_total{first_token}", 2.5),
            ("phases_total{first_token}", 10.0),
            ("phase_seconds_total{inter_token}", 9.8),
            ("phases_total{inter_token}", 490.0),
        ],
    );
}

#[test]
fn a_sleeping_vllm() {
    let page = page!("vllm-0.32.0").replace("sleep_state=\"awake\"} 1.0", "sleep_state=\"awake\"} 0.0");
    assert_eq!(read(&page).1["sleeping"], 1.0);
}

#[test]
fn llama_cpp() {
    check(
        page!("llama.cpp-b11669"),
        Engine::LlamaCpp,
        &[
            ("requests_running", 0.0),
            ("requests_waiting{}", 0.0),
            // 100 processed and 163 from the cache.
            ("prefix_cache_queries_total", 263.0),
            ("prefix_cache_hits_total", 163.0),
            ("tokens_total{prompt}", 263.0),
            ("tokens_total{cached}", 163.0),
            ("tokens_total{generated}", 84.0),
            ("phase_seconds_total{prefill}", 0.166_467),
            ("phase_seconds_total{decode}", 0.302_927),
            ("speculative_tokens_total{proposed}", 0.0),
            ("speculative_tokens_total{accepted}", 0.0),
        ],
    );
}

#[test]
fn sglang_whose_ranks_count_the_same_requests() {
    check(
        page!("sglang-0.5.23"),
        Engine::SgLang,
        &[
            // Two ranks of one group.
            ("requests_running", 5.0),
            // Two groups, each with its own queue.
            ("requests_waiting{}", 11.0),
            ("requests_waiting{grammar}", 1.0),
            ("requests_waiting{prefill_bootstrap}", 0.0),
            ("kv_cache_usage_ratio", 0.62),
            ("prefix_cache_queries_total", 10_000.0),
            ("prefix_cache_hits_total", 3500.0),
            ("preemptions_total", 3.0),
            ("tokens_total{prompt}", 10_000.0),
            ("tokens_total{cached}", 3500.0),
            ("tokens_total{generated}", 2000.0),
            ("phase_seconds_total{queue}", 8.0),
            ("phases_total{queue}", 40.0),
            ("phase_seconds_total{first_token}", 12.0),
            ("phases_total{first_token}", 40.0),
            ("phase_seconds_total{inter_token}", 39.2),
            ("phases_total{inter_token}", 1960.0),
        ],
    );
}

#[test]
fn tgi() {
    check(
        page!("tgi-3"),
        Engine::Tgi,
        &[
            ("requests_running", 6.0),
            ("requests_waiting{}", 2.0),
            ("tokens_total{prompt}", 5000.0),
            ("tokens_total{generated}", 900.0),
            ("speculative_tokens_total{accepted}", 90.0),
            ("phase_seconds_total{queue}", 1.2),
            ("phases_total{queue}", 10.0),
        ],
    );
}

#[test]
fn triton() {
    check(
        page!("triton-24.07"),
        Engine::Triton,
        &[
            ("requests_running", 4.0),
            ("requests_waiting{}", 3.0),
            ("kv_cache_usage_ratio", 0.25),
            ("tokens_total{prompt}", 700.0),
            ("tokens_total{generated}", 300.0),
        ],
    );
}

#[test]
fn tensorrt_llm() {
    check(
        page!("tensorrt-llm-1"),
        Engine::TensorRtLlm,
        &[
            ("requests_running", 3.0),
            ("requests_waiting{}", 1.0),
            ("kv_cache_usage_ratio", 0.42),
            ("tokens_total{prompt}", 800.0),
            ("tokens_total{cached}", 200.0),
            ("tokens_total{generated}", 400.0),
            ("speculative_tokens_total{proposed}", 90.0),
            ("speculative_tokens_total{accepted}", 60.0),
            ("phase_seconds_total{queue}", 0.5),
            ("phases_total{queue}", 20.0),
            ("phase_seconds_total{prefill}", 3.0),
            ("phases_total{prefill}", 20.0),
            ("phase_seconds_total{decode}", 16.0),
            ("phases_total{decode}", 20.0),
            ("phase_seconds_total{first_token}", 4.0),
            ("phases_total{first_token}", 20.0),
        ],
    );
}

#[test]
fn lmdeploy_whose_fullest_rank_counts() {
    check(
        page!("lmdeploy-0.18.0"),
        Engine::LmDeploy,
        &[
            ("requests_running", 5.0),
            ("requests_waiting{}", 1.0),
            ("kv_cache_usage_ratio", 0.9),
            ("tokens_total{prompt}", 100.0),
            ("tokens_total{cached}", 20.0),
            ("tokens_total{generated}", 50.0),
            ("phase_seconds_total{first_token}", 0.3),
            ("phases_total{first_token}", 2.0),
            ("phase_seconds_total{inter_token}", 0.96),
            ("phases_total{inter_token}", 48.0),
        ],
    );
}

#[test]
fn litellm_over_all_its_users() {
    check(
        page!("litellm-1.108"),
        Engine::LiteLlm,
        &[
            ("tokens_total{prompt}", 42.0),
            ("tokens_total{cached}", 10.0),
            ("tokens_total{generated}", 8.0),
            ("phase_seconds_total{first_token}", 1.0),
            ("phases_total{first_token}", 4.0),
        ],
    );
}

#[test]
fn ollama_by_what_it_has_in_memory() {
    // One model wholly on the GPU, one of which a quarter is in the host's memory.
    let body = br#"{"models":[{"name":"a","size":4000,"size_vram":4000},{"name":"b","size":1000,"size_vram":750}]}"#;
    let loaded = shown(&ollama::parse(body).unwrap());
    let expected =
        [("sleeping", 0.0), ("loaded_models", 2.0), ("loaded_bytes{gpu}", 4750.0), ("loaded_bytes{host}", 250.0)];
    assert_eq!(loaded, expected.map(|(name, value)| (name.to_owned(), value)).into());
    assert_eq!(shown(&ollama::parse(br#"{"models":[]}"#).unwrap())["sleeping"], 1.0);
    assert!(ollama::parse(b"404 page not found").is_none());
}

/// `transformers serve` 5.19 has no metrics page: that it is this engine is all there is.
#[test]
fn an_engine_without_a_page_is_named_and_no_number_is_made_up() {
    let mut page = Page::default();
    let known = Known { engine: Some(Engine::Transformers), ..Known::default() };
    add(&mut page, ["m", "11400"], &known);
    let names: Vec<_> = page.families.iter().map(|family| family.desc.name).collect();
    assert_eq!(names, ["citadel_engine_info"]);
    // And one whose page could not be read has no numbers, not old ones.
    let asked = Asked { report: Err(()), size: 7, parse: std::time::Duration::ZERO };
    let known = Known { engine: Some(Engine::Vllm), version: Some("0.32.0".to_owned()), page: Some(asked) };
    let mut page = Page::default();
    add(&mut page, ["m", "11400"], &known);
    page.sort().unwrap();
    let success = page.families.iter().find(|family| family.desc.name == "citadel_engine_page_success").unwrap();
    assert!(matches!(success.samples[0].value, Value::Integer(0)));
    assert!(page.families.iter().all(|family| !family.desc.name.contains("requests")));
}

#[test]
fn what_is_no_engines_page_is_not_read_and_what_is_broken_is_an_error() {
    assert!(parse("").unwrap().is_none());
    assert!(parse("process_open_fds 3\n").unwrap().is_none());
    assert!(parse("<html>not metrics</html>").unwrap().is_none());
    let broken = "vllm:num_requests_running 1\nvllm:prompt_tokens_total{model_name=\"m\" 7\n";
    assert_eq!(parse(broken).unwrap_err(), PageError::Syntax { line: 2 });
    // A line that does not matter does not, and what is no number is no value.
    let page = "vllm:num_requests_running NaN\nvllm:num_preemptions_total -1\nvllm:prompt_tokens_total 7\nnonsense\n";
    assert_eq!(read(page).1, [("tokens_total{prompt}".to_owned(), 7.0)].into());
    let many: String = (0..17).map(|i| format!("vllm:num_requests_waiting_by_reason{{reason=\"{i}\"}} 1\n")).collect();
    assert!(matches!(parse(&many).unwrap_err(), PageError::TooMuch { limit: 16, .. }));
    // Triton with vLLM's backend has names of both.
    let both = "nv_inference_request_success 1\nvllm:num_requests_running 2\n";
    assert_eq!(read(both).0, Engine::Vllm);
}
