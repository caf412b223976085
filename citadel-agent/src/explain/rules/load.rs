//! The load: more requests, longer prompts, longer responses. And what remains: the model itself.

use super::super::case::{Case, Facts, What};
use super::super::words::{number, percent, time};
use super::{Finding, explains};

/// From this ratio on, it is more.
const MORE: f64 = 1.5;

/// Minimum growth of a prompt in bytes: about the size of the headers.
const BYTES: f64 = 500.0;

/// Prompt tokens per request if the engine reports them, otherwise bytes per request.
fn prompt(facts: &Facts<'_>) -> (f64, &'static str, f64) {
    let tokens = facts.each(facts.window.sum("tokens.prompt"));
    if tokens > 0.0 { (tokens, "tokens", 20.0) } else { (facts.each(facts.window.sum("bytes_in")), "bytes", BYTES) }
}

fn answer(facts: &Facts<'_>) -> (f64, &'static str, f64) {
    let tokens = facts.each(facts.window.sum("tokens.generated"));
    if tokens > 0.0 {
        (tokens, "tokens", 10.0)
    } else if facts.chunks() > 0.0 {
        (facts.chunks(), "chunks", 5.0)
    } else {
        (facts.each(facts.window.sum("bytes_out")), "bytes", BYTES)
    }
}

fn longer(case: &Case<'_>, of: impl Fn(&Facts<'_>) -> (f64, &'static str, f64)) -> Option<(f64, f64, &'static str)> {
    let ((now, unit, least), (before, unit_before, _)) = (of(&case.now), of(&case.before));
    (case.compared() && unit == unit_before && now >= MORE * before && now - before >= least)
        .then_some((now, before, unit))
}

pub(super) fn prompts(case: &Case<'_>) -> Finding {
    let Some((now, before, unit)) = longer(case, prompt) else {
        return match case.compared() {
            true => Finding::RuledOut(format!(
                "A prompt has {} {}, about as before.",
                number(prompt(&case.now).0),
                prompt(&case.now).1
            )),
            false => Finding::Silent,
        };
    };
    let explained = case
        .slow
        .is_some_and(|slow| slow.what != What::InterToken && slow.now / slow.before.max(1e-9) <= 2.0 * now / before);
    Finding::Cause {
        weight: if explained { 0.8 } else { 0.4 },
        share: None,
        sentence: format!("Prompts are longer: {} {unit} per request, {} before.", number(now), number(before)),
    }
}

pub(super) fn answers(case: &Case<'_>) -> Finding {
    let Some((now, before, unit)) = longer(case, answer) else { return Finding::Silent };
    let explained = case.slow.is_some_and(|slow| slow.what == What::Duration);
    Finding::Cause {
        weight: if explained { 0.9 } else { 0.2 },
        share: None,
        sentence: format!("Responses are longer: {} {unit} per request, {} before.", number(now), number(before)),
    }
}

pub(super) fn more(case: &Case<'_>) -> Finding {
    let (now, before) = (case.now.per_second(), case.before.per_second());
    let minute = |per_second: f64| number(per_second * 60.0);
    if !case.compared() || before <= 0.0 {
        return Finding::Silent;
    }
    if now < MORE * before {
        return Finding::RuledOut(format!(
            "{} requests per minute, {} before: the load is not higher.",
            minute(now),
            minute(before)
        ));
    }
    Finding::Cause {
        weight: 0.45 + 0.1 * (now / before / 10.0).min(1.0),
        share: None,
        sentence: format!("There are more requests: {} per minute, {} before.", minute(now), minute(before)),
    }
}

/// The time that is neither before the server reads a request, nor on the run queue, nor in a system call, nor in the
/// engine's queue.
pub(super) fn model_itself(case: &Case<'_>) -> Finding {
    let Some(slow) = case.slow else { return Finding::Silent };
    let known = case.excess(Facts::receive_queue)
        + case.excess(Facts::run_queue)
        + case.excess(|facts| facts.calls().map(|(_, seconds)| seconds).sum())
        + case.excess(|facts| facts.phase("queue").unwrap_or(0.0));
    let rest = (slow.excess - known).max(0.0);
    let sentence = || {
        let prefill = match (case.now.phase("prefill"), case.before.phase("prefill")) {
            (Some(now), Some(before)) => format!("; prefill takes {}, {} before", time(now), time(before)),
            _ => String::new(),
        };
        let cpu = format!(
            "it uses {} of CPU time per request, {} before",
            time(case.now.on_cpu()),
            time(case.before.on_cpu())
        );
        format!(
            "The model itself takes longer: of the {1} more, {0} ({2}) are spent after the server has read the request, neither on the run queue \
             nor in a system call; {cpu}{prefill}.",
            time(rest),
            time(slow.excess),
            percent(rest / slow.excess),
        )
    };
    explains(case, rest, 0.5, 0.0, sentence).unwrap_or(Finding::Silent)
}
