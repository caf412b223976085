//! What is wrong, if anything.

use super::Verdict;
use super::case::{Case, ENOUGH};
use super::rules::{clients, hanging, network};
use super::words::{number, percent, time};

/// From this fraction of failed requests on the model is failing, if at most half of it failed before.
const FAILING: f64 = 0.05;

/// Below this fraction of the previous request rate the model is starved.
const STARVED: f64 = 0.2;

pub(super) fn verdict(case: &Case<'_>) -> (Verdict, String) {
    let (now, before) = (&case.now, &case.before);
    if now.window.covered_seconds == 0.0 {
        return (Verdict::Failing, "The model is not there: nothing listens on its port.".to_owned());
    }
    if case.gpus.iter().any(|gpu| gpu.now.gauge("up").is_some_and(|up| up.last == 0.0)) {
        return (Verdict::Failing, "A GPU of the model is lost.".to_owned());
    }
    if let Some(hanging) = hanging::hanging(case) {
        return (Verdict::Stalled, hanging.summary);
    }
    let failed = |facts: &super::case::Facts<'_>| facts.each(facts.server_errors + facts.aborted);
    let (part, part_before) = (failed(now), failed(before));
    let count = now.server_errors + now.aborted;
    let new = !case.compared() || part >= 2.0 * part_before;
    if count >= 3.0 && part >= FAILING && (new || clients::always_fails(now)) {
        let before = if case.compared() { format!(", {} before", percent(part_before)) } else { String::new() };
        let summary = format!(
            "{} of {} requests failed ({} with a server error, {} aborted){before}.",
            percent(part),
            number(now.requests()),
            number(now.server_errors),
            number(now.aborted),
        );
        return (Verdict::Failing, summary);
    }
    if now.window.gauge("up").is_some_and(|up| up.last == 0.0) && now.requests() == 0.0 {
        return (Verdict::Failing, "The model does not answer its health check.".to_owned());
    }
    let expected = before.per_second() * now.window.covered_seconds;
    if case.compared() && expected >= 2.0 * ENOUGH && now.requests() <= STARVED * expected && !waiting(case) {
        let minute = |facts: &super::case::Facts<'_>| number(facts.per_second() * 60.0);
        let summary = format!("{} requests per minute, {} before.", minute(now), minute(before));
        return (Verdict::Starved, summary);
    }
    if !now.enough() {
        let seconds = time(now.window.covered_seconds);
        return (Verdict::Unknown, format!("Too few requests to tell: {} in {seconds}.", number(now.requests())));
    }
    if let Some(slow) = case.slow {
        let what = slow.what.words();
        let summary = format!(
            "The {what} is {}, {} before ({} requests, {} before).",
            time(slow.now),
            time(slow.before),
            number(now.requests()),
            number(before.requests()),
        );
        return (Verdict::Slow, summary);
    }
    if let Some(text) = network::clients_notice(case) {
        return (Verdict::Slow, text);
    }
    let first = now.first().and_then(|(what, first)| Some((what, first.mean()?)));
    let (what, mean) = first.map_or(("time of a request", 0.0), |(what, mean)| (what.words(), mean));
    let compared = if case.compared() { "as before" } else { "with nothing to compare to" };
    (Verdict::Well, format!("The {what} is {}, {compared} ({} requests).", time(mean), number(now.requests())))
}

/// Whether requests are waiting: then few finished requests do not mean few arriving ones.
fn waiting(case: &Case<'_>) -> bool {
    case.now.gauge_mean("in_flight").unwrap_or(0.0) > case.before.gauge_mean("in_flight").unwrap_or(0.0) + 0.5
}
