//! The agent's own metrics about logs.

use std::collections::BTreeMap;

use super::known::Label;
use super::severity::Severity;

/// All metrics at one time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Numbers {
    /// By destination.
    pub destinations: Vec<DestinationNumbers>,
    /// Counts from the journal since the agent's start.
    pub counts: Counts,
    /// Why nothing is counted, if so.
    pub problem: Option<String>,
}

/// A destination's metrics: collected = acknowledged + rejected + limited + pending.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct DestinationNumbers {
    /// Its name.
    pub destination: String,
    /// Entries accepted by the receiver.
    pub acknowledged: u64,
    /// Entries rejected by the receiver.
    pub rejected: u64,
    /// Entries dropped because their unit exceeded its rate limit.
    pub limited: u64,
    /// Entries of which a part was too long.
    pub truncated: u64,
    /// Journal entries that were deleted before they were read.
    pub lost_entries: u64,
    /// Duration of these gaps in seconds.
    pub lost_seconds: f64,
    /// Entries that are being sent.
    pub pending: u64,
    /// Time of the oldest of them, in microseconds since 1970.
    pub oldest_us: Option<u64>,
    /// Requests by status.
    pub requests: BTreeMap<String, u64>,
    /// Whether the receiver accepts nothing.
    pub closed: bool,
    /// Why the journal cannot be read, if so.
    pub problem: Option<String>,
}

/// Counts by model; without a model: kernel messages about the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Entries of models.
    pub messages: BTreeMap<(Label, Severity), u64>,
    /// Events.
    pub events: BTreeMap<(Option<Label>, String), u64>,
}
