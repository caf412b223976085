//! Remote write's own figures: what was collected for each destination, and what became of it.

use std::time::Duration;

use super::{Origin, Outcome, Reading};
use crate::metrics::catalogue::agent::{
    REMOTE_WRITE_COLLECTED, REMOTE_WRITE_MEMORY, REMOTE_WRITE_OLDEST, REMOTE_WRITE_PARKED, REMOTE_WRITE_PENDING,
    REMOTE_WRITE_PENDING_BYTES, REMOTE_WRITE_REQUESTS, REMOTE_WRITE_SAMPLES,
};
use crate::metrics::family::{Page, Value};

/// One destination's figures, all of one moment: collected = acknowledged + rejected + dropped + pending.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct Numbers {
    /// The destination's name.
    pub destination: String,
    /// Samples collected for it since it was first configured.
    pub collected: u64,
    /// Samples that it acknowledged.
    pub acknowledged: u64,
    /// Samples that it refused for good.
    pub rejected: u64,
    /// Samples that were lost, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Samples that wait.
    pub pending: u64,
    /// Bytes of the files that hold them.
    pub pending_bytes: u64,
    /// Bytes in memory because the disk refuses them.
    pub memory_bytes: u64,
    /// Age of the oldest sample that waits, in seconds.
    pub oldest_seconds: f64,
    /// Requests of this process, by status.
    pub requests: Vec<(String, u64)>,
    /// Whether the receiver lets nothing in.
    pub parked: bool,
}

/// The thread publishes each second; after so long without a word its figures are no longer true.
const SILENT: Duration = Duration::from_secs(30);

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(newest) = origin.remote_write.newest().filter(|newest| !newest.value.is_empty()) else {
        return Ok(Outcome::Absent);
    };
    if newest.age() > SILENT {
        let seconds = newest.age().as_secs();
        return Err(
            format!("the remote-write thread has said nothing for {seconds} s: its disk hangs, or it ended").into()
        );
    }
    for numbers in newest.value.iter() {
        let name = numbers.destination.as_str();
        let integer = Value::Integer;
        page.add(&REMOTE_WRITE_COLLECTED, [name], integer(numbers.collected));
        page.add(&REMOTE_WRITE_SAMPLES, [name, "acknowledged", ""], integer(numbers.acknowledged));
        page.add(&REMOTE_WRITE_SAMPLES, [name, "rejected", ""], integer(numbers.rejected));
        if numbers.dropped.is_empty() {
            page.add(&REMOTE_WRITE_SAMPLES, [name, "dropped", ""], integer(0));
        }
        for (reason, count) in &numbers.dropped {
            page.add(&REMOTE_WRITE_SAMPLES, [name, "dropped", reason], integer(*count));
        }
        page.add(&REMOTE_WRITE_PENDING, [name], integer(numbers.pending));
        page.add(&REMOTE_WRITE_PENDING_BYTES, [name], integer(numbers.pending_bytes));
        page.add(&REMOTE_WRITE_MEMORY, [name], integer(numbers.memory_bytes));
        page.add(&REMOTE_WRITE_OLDEST, [name], Value::Float(numbers.oldest_seconds));
        for (code, count) in &numbers.requests {
            page.add(&REMOTE_WRITE_REQUESTS, [name, code], integer(*count));
        }
        page.add(&REMOTE_WRITE_PARKED, [name], integer(u64::from(numbers.parked)));
    }
    Ok(Outcome::Read)
}
