//! What the agent's own commands ask of the running agent, over a Unix socket: one JSON object each way, a line each, as often
//! as the client likes.
//!
//! A client sends [`Request`]s, `{"version":1,"order":{"order":"history","from_ms":...}}`, and gets an [`Answer`] to each:
//! `{"done":"text"}`, `{"data":...}` or `{"failed":"why"}`. Root and the agent's own user may ask anything, members of the
//! group [`GROUP`] what changes nothing: the socket's mode says so, and the kernel tells who is at the other end.

mod client;
mod peer;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{Connection, ControlError, send};
pub use server::{Control, serve};

/// Version of the protocol: what a client sends and what it understands.
pub const VERSION: u32 = 1;

/// The group whose members may ask for what the agent knows.
pub const GROUP: &str = "citadel-agent";

/// Longest request.
const LONGEST_REQUEST: usize = 4096;

/// Longest answer: a day of all models in minutes.
const LONGEST_ANSWER: usize = 16 << 20;

/// Most of a text that is put into an answer; the rest is in the agent's log.
const LONGEST_TEXT: usize = 32 << 10;

/// Longest time for which the GPUs can be released: a day, so that a slip does not end their measurement for good.
pub const LONGEST_RELEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// A line from a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub order: Order,
}

/// What is asked.
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
    /// What happened: the data are a list of [`Series`](crate::history::window::Series).
    History {
        /// `host`, a model's port or `gpu:UUID`; all where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// From when, milliseconds since the epoch.
        from_ms: i64,
        /// Until when.
        to_ms: i64,
        /// Length of a window; one window over all where it is left out. At least 5 s, and so much that there are 1500 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_ms: Option<i64>,
    },
}

impl Order {
    /// How long the answer may take.
    const fn patience(&self) -> Duration {
        match self {
            // Closing NVML waits for a call under way.
            Self::GpuRelease { .. } | Self::GpuResume {} => Duration::from_secs(15),
            Self::History { .. } => Duration::from_secs(15),
            // The kernel may have to verify programs again, and another reload may be under way. systemd waits for 90 s.
            Self::Reload {} => Duration::from_secs(85),
        }
    }

    /// Whether it changes what the agent does.
    const fn changes(&self) -> bool {
        match self {
            Self::GpuRelease { .. } | Self::GpuResume {} | Self::Reload {} => true,
            Self::History { .. } => false,
        }
    }
}

/// What became of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done(String),
    /// What was asked for.
    Data(serde_json::Value),
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
            Self::Data(data) => Self::Data(data),
            Self::Failed(text) => Self::Failed(cut(text)),
        }
    }
}

/// Carries out orders. May block: called on a thread that may.
pub trait Orders: Send + Sync + 'static {
    /// Carries out one.
    fn carry_out(&self, order: &Order) -> Answer;
}
