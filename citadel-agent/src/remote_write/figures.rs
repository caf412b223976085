//! Metrics of remote write itself: samples collected for each destination, and their outcomes. Exported by the source
//! `remote_write`.

use std::time::Duration;

use crate::metrics::catalogue::agent::{
    REMOTE_WRITE_COLLECTED, REMOTE_WRITE_MEMORY, REMOTE_WRITE_OLDEST, REMOTE_WRITE_PARKED, REMOTE_WRITE_PENDING,
    REMOTE_WRITE_PENDING_BYTES, REMOTE_WRITE_REQUESTS, REMOTE_WRITE_SAMPLES,
};
use crate::metrics::family::{Page, Value};

/// Consistent counts of a destination: collected = acknowledged + rejected + dropped + pending.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct Numbers {
    /// The destination's name.
    pub destination: String,
    /// Samples collected for it since it was first configured.
    pub collected: u64,
    /// Acknowledged samples.
    pub acknowledged: u64,
    /// Permanently refused samples.
    pub rejected: u64,
    /// Dropped samples by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Pending samples.
    pub pending: u64,
    /// Size of the files that contain them.
    pub pending_bytes: u64,
    /// Size in memory because writing to disk failed.
    pub memory_bytes: u64,
    /// Age of the oldest pending sample, in seconds.
    pub oldest_seconds: f64,
    /// Requests of this process by status.
    pub requests: Vec<(String, u64)>,
    /// Whether the destination is parked.
    pub parked: bool,
}

/// The thread publishes every second; older figures are invalid.
pub const SILENT: Duration = Duration::from_secs(30);

impl Numbers {
    /// Adds the metrics to a page.
    pub fn add_to(&self, page: &mut Page) {
        let name = self.destination.as_str();
        let integer = Value::Integer;
        page.add(&REMOTE_WRITE_COLLECTED, [name], integer(self.collected));
        page.add(&REMOTE_WRITE_SAMPLES, [name, "acknowledged", ""], integer(self.acknowledged));
        page.add(&REMOTE_WRITE_SAMPLES, [name, "rejected", ""], integer(self.rejected));
        if self.dropped.is_empty() {
            page.add(&REMOTE_WRITE_SAMPLES, [name, "dropped", ""], integer(0));
        }
        for (reason, count) in &self.dropped {
            page.add(&REMOTE_WRITE_SAMPLES, [name, "dropped", reason], integer(*count));
        }
        page.add(&REMOTE_WRITE_PENDING, [name], integer(self.pending));
        page.add(&REMOTE_WRITE_PENDING_BYTES, [name], integer(self.pending_bytes));
        page.add(&REMOTE_WRITE_MEMORY, [name], integer(self.memory_bytes));
        page.add(&REMOTE_WRITE_OLDEST, [name], Value::Float(self.oldest_seconds));
        for (code, count) in &self.requests {
            page.add(&REMOTE_WRITE_REQUESTS, [name, code], integer(*count));
        }
        page.add(&REMOTE_WRITE_PARKED, [name], integer(u64::from(self.parked)));
    }
}
