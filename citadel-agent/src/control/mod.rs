//! Orders to the running agent from its own command line, over a Unix socket: one JSON object each way, a line each.
//!
//! Only root and the agent's own user get through: the socket's mode says so, and the kernel tells who is at the other end.

mod client;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{ControlError, send};
pub use server::{Control, serve};

/// Longest line that either side takes.
const LONGEST_LINE: usize = 4096;

/// Longest time for which the GPUs can be released: a day, so that a slip does not end their measurement for good.
pub const LONGEST_RELEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an answer may take: closing NVML waits for a call under way.
const PATIENCE: Duration = Duration::from_secs(15);

/// An order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Let go of the GPUs.
    GpuRelease {
        /// For so many seconds.
        seconds: u64,
    },
    /// Take the GPUs back.
    GpuResume {},
}

/// What became of it, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done(String),
    /// Not done, and why.
    Failed(String),
}

/// Carries out orders. May block: called on a thread that may.
pub trait Orders: Send + Sync + 'static {
    /// Carries out one.
    fn carry_out(&self, order: &Order) -> Answer;
}
