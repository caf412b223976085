//! What the engine itself reports.

use super::super::case::{Case, Facts};
use super::super::words::{number, percent, time};
use super::{Finding, explains};

pub(super) fn queue(case: &Case<'_>) -> Finding {
    if !case.now.has("engine_waiting") && !case.now.has("phase_seconds.queue") {
        return Finding::NotMeasured(
            "the engine's own queue, cache and phases (it has no metrics page that the agent can read)".to_owned(),
        );
    }
    let waiting = |facts: &Facts<'_>| facts.gauge_mean("engine_waiting").unwrap_or(0.0);
    let (now, before) = (waiting(&case.now), waiting(&case.before));
    let running = case.now.gauge_mean("engine_running").unwrap_or(0.0);
    let seconds = case.excess(|facts| facts.phase("queue").unwrap_or(0.0));
    let sentence = || {
        let times = match (case.now.phase("queue"), case.before.phase("queue")) {
            (Some(now), Some(before)) => format!(" for {}, {} before", time(now), time(before)),
            (Some(now), None) => format!(" for {}", time(now)),
            _ => String::new(),
        };
        format!(
            "Requests wait in the engine's queue{times}: {} wait ({} before) while {} run, so the engine is at capacity.",
            number(now),
            number(before),
            number(running),
        )
    };
    if let Some(finding) = explains(case, seconds, 1.0, 0.2, sentence) {
        return finding;
    }
    if now >= 1.0 && now >= 2.0 * before && case.slow.is_some() {
        return Finding::Cause { weight: 0.85, share: None, sentence: sentence() };
    }
    Finding::RuledOut(format!("{} requests wait in the engine's queue.", number(now)))
}

pub(super) fn kv_cache(case: &Case<'_>) -> Finding {
    let Some(now) = case.now.window.gauge("kv_cache_ratio") else { return Finding::Silent };
    let before = case.before.gauge_mean("kv_cache_ratio").unwrap_or(0.0);
    if now.mean < 0.9 || before >= 0.9 {
        return Finding::RuledOut(format!("The KV cache is {} full.", percent(now.mean)));
    }
    Finding::Cause {
        weight: 0.9,
        share: None,
        sentence: format!(
            "The KV cache is {} full, {} before: requests wait for room in it.",
            percent(now.mean),
            percent(before)
        ),
    }
}

pub(super) fn preemptions(case: &Case<'_>) -> Finding {
    let each = |facts: &Facts<'_>| facts.each(facts.window.sum("preemptions"));
    let (now, before) = (each(&case.now), each(&case.before));
    if case.now.window.sum("preemptions") < 3.0 || now < 0.02 || now < 2.0 * before {
        return Finding::Silent;
    }
    Finding::Cause {
        weight: 0.95,
        share: None,
        sentence: format!(
            "The engine preempts running requests because the KV cache is full, and restarts them: {} preemptions per request, {} before.",
            number(now),
            number(before)
        ),
    }
}

pub(super) fn prefix_cache(case: &Case<'_>) -> Finding {
    let ratio = |facts: &Facts<'_>| {
        let queries = facts.window.sum("prefix_queries");
        (queries > 0.0).then(|| facts.window.sum("prefix_hits") / queries)
    };
    let (Some(now), Some(before)) = (ratio(&case.now), ratio(&case.before)) else { return Finding::Silent };
    if before - now < 0.2 {
        return Finding::RuledOut(format!("{} of the prompt tokens come from the prefix cache.", percent(now)));
    }
    Finding::Cause {
        weight: 0.7,
        share: None,
        sentence: format!(
            "The prefix cache has gone cold: {} of the prompt tokens come from it, {} before, so prompts have to be recomputed.",
            percent(now),
            percent(before)
        ),
    }
}
