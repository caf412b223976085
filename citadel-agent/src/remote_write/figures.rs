//! What remote write exports of itself: what was collected for each destination, and what became of it. The source
//! `remote_write` puts it on the page.

use std::time::Duration;

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

/// The thread publishes each second; figures that are older than this are no longer true.
pub const SILENT: Duration = Duration::from_secs(30);

impl Numbers {
    /// Adds the figures to a page.
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
