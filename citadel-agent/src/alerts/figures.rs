//! The agent's own metrics about alerts: how many are firing, and how many notifications were sent. The source `alerts`
//! exports them.

use serde::Serialize;

use super::state::Texts;
use crate::config::resolved::alerts::Severity;
use crate::metrics::catalogue::agent::{ALERT_FAILURES, ALERT_NOTIFICATIONS, ALERT_PENDING, ALERTS_FIRING};
use crate::metrics::family::{Page, Value};

/// Updated by the alerts task after each evaluation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Numbers {
    /// Firing alerts by severity; empty while no rules are evaluated.
    #[serde(skip)]
    pub firing: Vec<(Severity, u64)>,
    /// The alerts that are pending or firing.
    pub active: Vec<Active>,
    /// By peer.
    pub peers: Vec<PeerNumbers>,
}

/// One alert that is pending or firing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Active {
    /// `pending` or `firing`.
    pub state: &'static str,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// The labels that identify it.
    pub labels: Texts,
    /// Its rendered annotations.
    pub annotations: Texts,
}

/// Counters of one peer's notifications.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PeerNumbers {
    /// Value of the label `peer`.
    pub peer: String,
    /// Accepted by the peer.
    pub delivered: u64,
    /// Refused by the peer for good.
    pub rejected: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Failed requests.
    pub failures: u64,
    /// Waiting now.
    pub pending: u64,
}

impl PeerNumbers {
    /// All counters at 0.
    #[must_use]
    pub fn of(peer: &str) -> Self {
        Self { peer: peer.to_owned(), delivered: 0, rejected: 0, dropped: 0, failures: 0, pending: 0 }
    }
}

impl Numbers {
    /// Adds the metrics to a page. Returns false if no rules are evaluated, so that there are none.
    pub fn add_to(&self, page: &mut Page) -> bool {
        for (severity, firing) in &self.firing {
            page.add(&ALERTS_FIRING, [severity.name()], Value::Integer(*firing));
        }
        for numbers in &self.peers {
            let peer = numbers.peer.as_str();
            for (outcome, count) in
                [("delivered", numbers.delivered), ("rejected", numbers.rejected), ("dropped", numbers.dropped)]
            {
                page.add(&ALERT_NOTIFICATIONS, [peer, outcome], Value::Integer(count));
            }
            page.add(&ALERT_FAILURES, [peer], Value::Integer(numbers.failures));
            page.add(&ALERT_PENDING, [peer], Value::Integer(numbers.pending));
        }
        !self.firing.is_empty()
    }
}
