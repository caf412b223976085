//! Orders to the running agent from its own command line, over a Unix socket: one JSON object each way, a line each.
//!
//! Only root and the agent's own user get through: the socket's mode says so, and the kernel tells who is at the other end.

mod client;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{ControlError, send};
pub use server::{Control, serve};

/// Longest order.
const LONGEST_ORDER: usize = 4096;

/// Longest answer: a configuration may have many mistakes.
const LONGEST_ANSWER: usize = 256 << 10;

/// Most of a text that is put into an answer; the rest is in the agent's log.
const LONGEST_TEXT: usize = 32 << 10;

/// Longest time for which the GPUs can be released: a day, so that a slip does not end their measurement for good.
pub const LONGEST_RELEASE: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Load the configuration again.
    Reload {},
}

impl Order {
    /// How long the answer may take.
    const fn patience(&self) -> Duration {
        match self {
            // Closing NVML waits for a call under way.
            Self::GpuRelease { .. } | Self::GpuResume {} => Duration::from_secs(15),
            // The kernel may have to verify programs again, and another reload may be under way. systemd waits for 90 s.
            Self::Reload {} => Duration::from_secs(85),
        }
    }
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

impl Answer {
    /// Not longer than a client reads.
    fn bounded(self) -> Self {
        let cut = |mut text: String| {
            if text.len() > LONGEST_TEXT {
                text.truncate(text.floor_char_boundary(LONGEST_TEXT));
                text.push_str("... (the rest is in the agent's log)");
            }
            text
        };
        match self {
            Self::Done(text) => Self::Done(cut(text)),
            Self::Failed(text) => Self::Failed(cut(text)),
        }
    }
}

/// Carries out orders. May block: called on a thread that may.
pub trait Orders: Send + Sync + 'static {
    /// Carries out one.
    fn carry_out(&self, order: &Order) -> Answer;
}
