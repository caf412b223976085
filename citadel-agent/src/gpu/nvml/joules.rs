//! What a GPU's energy counter can be: it is what models are charged by, so one impossible value would be charged to them.

use std::time::Instant;

use super::calls::Calls;
use super::limits::energy_growth;

/// The energy counter of a GPU, and what it can be next.
#[derive(Debug, Default)]
pub(super) struct Energy {
    /// The last value that was accepted, and the last that was not.
    accepted: Option<(Instant, u64)>,
    suspect: Option<(Instant, u64)>,
    /// Passes in a row that had a value.
    row: u32,
}

impl Energy {
    /// Whether this pass and the one before it had a value.
    pub(super) fn consecutive(&self) -> bool {
        self.row > 1
    }

    /// Refuses a value that no GPU can have come to since the last one, unless the next agrees with it: then the counter
    /// was set, by a reset say.
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
