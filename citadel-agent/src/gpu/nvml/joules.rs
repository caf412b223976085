//! Validates a GPU's energy counter: models are charged by it, so an impossible value would be charged to them.

use std::time::Instant;

use super::calls::Calls;
use super::limits::energy_growth;

/// The energy counter of a GPU, and the limits of its next value.
#[derive(Debug, Default)]
pub(super) struct Energy {
    /// The last accepted value, and the last rejected one.
    accepted: Option<(Instant, u64)>,
    suspect: Option<(Instant, u64)>,
    /// Consecutive passes with a value.
    row: u32,
}

impl Energy {
    /// Whether this pass and the previous one had a value.
    pub(super) fn consecutive(&self) -> bool {
        self.row > 1
    }

    /// Rejects a value that is impossible after the last one, unless the next one confirms it: then the counter was
    /// set, for example by a reset.
    pub(super) fn accept(&mut self, calls: &mut Calls, call: &'static str, value: Option<u64>) -> Option<u64> {
        let now = Instant::now();
        let accepted = value.and_then(|value| {
            let follows = |before: &Option<(Instant, u64)>| {
                before.map(|(at, before)| before..=before + energy_growth((now - at).as_secs_f64()))
            };
            let Some(range) = follows(&self.accepted) else { return Some(value) };
            if range.contains(&value) || follows(&self.suspect).is_some_and(|range| range.contains(&value)) {
                return Some(value);
            }
            self.suspect = Some((now, value));
            calls.sane(call, "growth", Some(value), &range)
        });
        self.row = if accepted.is_some() { self.row + 1 } else { 0 };
        if let Some(value) = accepted {
            (self.accepted, self.suspect) = (Some((now, value)), None);
        }
        accepted
    }
}
