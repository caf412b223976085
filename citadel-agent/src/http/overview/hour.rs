//! The last hour of each model from the history, one point per minute: the data of the page's plots.

use serde_json::{Map, Value as Json, json};

use crate::explain::{Against, Explanation, explain, parts};
use crate::history::window::{Distribution, Window};
use crate::history::{COARSE_MS, History, Millis, Subject};

/// Time range of the plots.
const SPAN_MS: Millis = 60 * 60 * 1000;

/// Time range of the verdicts.
const JUDGED_MS: Millis = 5 * 60 * 1000;

/// Native buckets per power of two (schema 3).
const OCTAVE: i16 = 8;

/// The last hour up to `now_ms`, by port: an array per curve, with `null` where there was nothing to observe, and what explains the last
/// minutes.
pub(in crate::http) fn last_hour(history: &History, now_ms: Millis) -> Json {
    let mut models = Map::new();
    for series in history.series(None, now_ms - SPAN_MS, now_ms, COARSE_MS) {
        let Some(Subject::Model(port)) = Subject::parse(&series.subject) else { continue };
        let windows: Vec<_> = series.windows.iter().filter(|window| window.covered_seconds > 0.0).collect();
        models.insert(port.to_string(), plots(&series.name, &windows));
    }
    for said in explain(history, None, now_ms - JUDGED_MS, now_ms, Against::Before) {
        if let Some(model) = models.get_mut(&said.port.to_string()).and_then(Json::as_object_mut) {
            model.insert("said".to_owned(), verdict(&said));
        }
    }
    json!({ "step_seconds": COARSE_MS / 1000, "to_seconds": now_ms / 1000, "models": models })
}

fn verdict(said: &Explanation) -> Json {
    let for_seconds = said.since_ms.map(|since| (said.to_ms - since) / 1000);
    json!({ "verdict": said.verdict, "word": said.verdict.word(), "text": said.first_sentences(), "for_seconds": for_seconds })
}

/// The parts of the time to first token, a curve each; those that are nothing in all of the hour are left out.
fn divided(windows: &[&Window]) -> Vec<Json> {
    let all: Vec<_> = windows.iter().map(|window| parts::of_window(window)).collect();
    let Some(names) = all.iter().flatten().next().map(|parts| parts.map(|(name, _)| name)) else { return Vec::new() };
    let curve = |at: usize| all.iter().map(move |parts| parts.as_ref().map(|parts| short(parts[at].1)));
    let parts = names.iter().enumerate().filter(|(at, _)| curve(*at).flatten().any(|seconds| seconds > 0.0));
    parts.map(|(at, name)| json!({ "name": name, "data": curve(at).collect::<Vec<_>>() })).collect()
}

fn plots(name: &str, windows: &[&Window]) -> Json {
    let curve = |value: &dyn Fn(&Window) -> Option<f64>| -> Vec<Option<f64>> {
        windows.iter().map(|window| value(window).map(short)).collect()
    };
    let quantile = |key: &'static str, quantile: f64| {
        curve(&move |window: &Window| window.histogram(key).and_then(|histogram| histogram.quantile(quantile)))
    };
    let per_second = |sum: fn(&Window) -> f64| curve(&move |window| Some(sum(window) / window.covered_seconds));
    json!({
        "model": name,
        "t": windows.iter().map(|window| window.to_ms / 1000).collect::<Vec<_>>(),
        "requests": per_second(Window::count_of_users),
        "failed": per_second(failed),
        "in_flight": curve(&|window| window.gauge("in_flight").map(|level| level.max)),
        "parts": divided(windows),
        "first_token": { "p50": quantile("first_token", 0.5), "p99": quantile("first_token", 0.99), "heat": heat(windows, "first_token") },
        "inter_token": { "p50": quantile("inter_token", 0.5), "p99": quantile("inter_token", 0.99), "heat": heat(windows, "inter_token") },
    })
}

/// Failed requests of users: errors and aborts.
fn failed(window: &Window) -> f64 {
    let code = |key: &str| key.rsplit('.').next().is_some_and(|code| !code.starts_with(['1', '2', '3']));
    let errors: f64 = window.requests_of_users().filter(|(key, _)| code(key)).map(|(_, count)| count).sum();
    errors + window.total_of("aborted")
}

/// Distribution of observations: for each minute, pairs of a power of two and a count; bucket `n` ends at 2^n seconds.
fn heat(windows: &[&Window], key: &str) -> Vec<Vec<(i16, u64)>> {
    windows.iter().map(|window| window.histogram(key).map(octaves).unwrap_or_default()).collect()
}

fn octaves(distribution: &Distribution) -> Vec<(i16, u64)> {
    let mut octaves: Vec<(i16, u64)> = Vec::new();
    for &(bucket, count) in &distribution.buckets {
        // The bucket ends at 2^(bucket/8) s.
        let octave = bucket.div_euclid(OCTAVE) + i16::from(bucket.rem_euclid(OCTAVE) != 0);
        match octaves.last_mut() {
            Some((last, sum)) if *last == octave => *sum += count,
            _ => octaves.push((octave, count)),
        }
    }
    octaves
}

/// Four digits: more than a plot shows, and half of what would be sent otherwise.
fn short(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::hist::Histogram;

    use super::*;
    use crate::metrics::catalogue::models::{REQUESTS, REQUESTS_ABORTED, REQUESTS_IN_FLIGHT, TIME_TO_FIRST_TOKEN};
    use crate::metrics::family::{Page, Value};

    #[test]
    fn a_minute_becomes_a_point_of_each_curve() {
        let history = History::default();
        let now = 1_800_000_000_000;
        for minute in 0..=3_u64 {
            let mut page = Page::default();
            page.add(&REQUESTS, ["phi3", "11403", "chat_completions", "200"], Value::Integer(60 * minute));
            page.add(&REQUESTS, ["phi3", "11403", "chat_completions", "503"], Value::Integer(6 * minute));
            page.add(
                &REQUESTS_ABORTED,
                ["phi3", "11403", "chat_completions", "client", "streaming"],
                Value::Integer(6 * minute),
            );
            page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11403"], Value::Integer(minute));
            let mut histogram = Histogram::EMPTY;
            (0..60 * minute).for_each(|_| histogram.observe(300_000_000));
            let labels = ["phi3", "11403", "chat_completions"];
            page.add(&TIME_TO_FIRST_TOKEN, labels, Value::Histogram(Box::new(histogram)));
            history.take(&page, now + i64::try_from(minute).unwrap() * COARSE_MS);
        }
        let hour = last_hour(&history, now + 3 * COARSE_MS);
        let phi3 = &hour["models"]["11403"];
        assert_eq!(phi3["model"], "phi3");
        assert_eq!(phi3["requests"], json!([1.1, 1.1, 1.1]), "{hour:#}");
        assert_eq!(phi3["failed"], json!([0.2, 0.2, 0.2]));
        assert_eq!(phi3["in_flight"], json!([1.0, 2.0, 3.0]));
        // 0.3 s lies between 2^-2 and 2^-1.
        assert_eq!(phi3["first_token"]["heat"], json!([[[-1, 60]], [[-1, 60]], [[-1, 60]]]));
        let p50 = phi3["first_token"]["p50"][0].as_f64().unwrap();
        assert!((0.25..0.35).contains(&p50), "{p50}");
        assert_eq!(phi3["inter_token"]["p50"], json!([null, null, null]));
        // Nothing is known but the whole.
        assert_eq!(phi3["parts"][0]["name"], "rest: the model itself");
        assert_eq!(phi3["parts"][0]["data"].as_array().map(Vec::len), Some(3));
        assert_eq!(phi3["parts"].as_array().map(Vec::len), Some(1));
        assert_eq!(phi3["said"]["verdict"], "failing");
        assert!(phi3["said"]["text"].as_str().unwrap().contains("requests failed"), "{}", phi3["said"]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 1.234_56, 0.001_234_56, 123_456.0].map(short), [0.0, 1.235, 0.001_235, 123_500.0]);
    }
}
