//! The parts of the mean time to first token. They add up to it.

use super::Part;
use super::case::{Case, Facts};
use crate::history::window::Window;

/// Names of the parts, in the order in which they are subtracted from the total.
const NAMES: [&str; 6] =
    ["accept and receive queue", "run queue", "system calls", "engine's queue", "prefill", "rest: the model itself"];

pub(super) fn parts(case: &Case<'_>) -> Vec<Part> {
    let Some(now) = divided(&case.now) else { return Vec::new() };
    let before = divided(&case.before).filter(|_| case.compared());
    let part = |(at, name): (usize, &&str)| Part {
        part: (*name).to_owned(),
        now: now[at],
        before: before.map(|before| before[at]),
    };
    NAMES.iter().enumerate().map(part).collect()
}

/// The parts of the mean time to first token of a window, in seconds; `None` without requests.
#[must_use]
pub fn of_window(window: &Window) -> Option<[(&'static str, f64); 6]> {
    let parts = divided(&Facts::of(window))?;
    Some(std::array::from_fn(|at| (NAMES[at], parts[at])))
}

/// Run queue and system calls are those of whole requests and of all threads, so each is limited to the time that remains.
fn divided(facts: &Facts<'_>) -> Option<[f64; 6]> {
    let (_, first) = facts.first()?;
    let mut rest = first.mean()?;
    let mut take = |seconds: f64| {
        let taken = seconds.clamp(0.0, rest);
        rest -= taken;
        taken
    };
    let parts = [
        take(facts.receive_queue()),
        take(facts.run_queue()),
        take(facts.calls().map(|(_, seconds)| seconds).sum()),
        take(facts.phase("queue").unwrap_or(0.0)),
        take(facts.phase("prefill").unwrap_or(0.0)),
    ];
    let [a, b, c, d, e] = parts;
    Some([a, b, c, d, e, rest])
}
