//! What logs say of themselves, for the page.

use std::collections::BTreeMap;

use super::known::Label;
use super::severity::Severity;

/// All figures of one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Numbers {
    /// By destination.
    pub destinations: Vec<DestinationNumbers>,
    /// What was counted in the journal since the agent's start.
    pub counts: Counts,
    /// Why nothing is counted, if that is so.
    pub problem: Option<String>,
}

/// A destination's figures: collected = acknowledged + rejected + limited + pending.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct DestinationNumbers {
    /// Its name.
    pub destination: String,
    /// Entries that the receiver has.
    pub acknowledged: u64,
    /// Entries that the receiver does not want.
    pub rejected: u64,
    /// Entries that were left out because their unit logged more than it may.
    pub limited: u64,
    /// Entries of which a part was too long.
    pub truncated: u64,
    /// Entries of the journal that were gone before they were read.
    pub lost_entries: u64,
    /// The time of such gaps.
    pub lost_seconds: f64,
    /// Entries in hand.
    pub pending: u64,
    /// The time of the oldest of them, in microseconds since the epoch.
    pub oldest_us: Option<u64>,
    /// Requests by status.
    pub requests: BTreeMap<String, u64>,
    /// Whether the receiver lets nothing in.
    pub closed: bool,
    /// Why the journal cannot be read, if so.
    pub problem: Option<String>,
}

/// What was counted; without a model: what the kernel says of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Entries of models.
    pub messages: BTreeMap<(Label, Severity), u64>,
    /// Events.
    pub events: BTreeMap<(Option<Label>, String), u64>,
}
