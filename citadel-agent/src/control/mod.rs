//! Requests to the running agent over a Unix socket: one line of JSON in each direction, any number of times.
//!
//! A client sends [`Request`]s, `{"version":1,"order":{"order":"history","from_ms":...}}`, and gets an [`Answer`] to
//! each: `{"done":"text"}`, `{"data":...}` or `{"failed":"why"}`. Root and the agent's own user may send any order,
//! members of the group [`GROUP`] only those that change nothing: this is enforced by the socket's mode and the
//! kernel's peer credentials.

mod client;
mod peer;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::explain::Against;
use crate::trace::Filter;

pub use client::{Connection, ControlError, send};
pub use server::{Control, serve};

/// Version of the protocol, for requests and answers.
pub const VERSION: u32 = 1;

/// The group whose members may query the agent.
pub const GROUP: &str = "citadel-agent";

/// Maximum length of a request in bytes.
const LONGEST_REQUEST: usize = 4096;

/// Maximum length of an answer in bytes: a day of all models in minutes.
const LONGEST_ANSWER: usize = 16 << 20;

/// Maximum length of a text in an answer; the rest is in the agent's log.
const LONGEST_TEXT: usize = 32 << 10;

/// Maximum time for which the GPUs can be released: a day, so that a typo does not stop measuring them for good.
pub const LONGEST_RELEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// A line from a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The order.
    pub order: Order,
}

/// An order to the agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Release the GPUs.
    GpuRelease {
        /// Duration in seconds.
        seconds: u64,
    },
    /// Resume measuring the GPUs.
    GpuResume {},
    /// Reload the configuration.
    Reload {},
    /// Query the history: the data are a list of [`SubjectHistory`](crate::history::window::SubjectHistory).
    History {
        /// `host`, a model's port or `gpu:UUID`; all if it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Start, in milliseconds since 1970.
        from_ms: i64,
        /// End, in milliseconds since 1970.
        to_ms: i64,
        /// Length of a window, in milliseconds; if it is missing, one window covers everything. At least 5 s, and large
        /// enough for at most 1500 windows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_ms: Option<i64>,
    },
    /// Why a model is slow, failing or silent: the data are a list of [`Explanation`](crate::explain::Explanation)s, the worst
    /// first.
    Explain {
        /// A model's name or port; all where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// From when, milliseconds since the epoch.
        from_ms: i64,
        /// Until when.
        to_ms: i64,
        /// What that is compared with.
        #[serde(default)]
        against: Against,
    },
    /// The oldest requests in flight and the slowest ones of the last hour: the data are a list of
    /// [`ModelRequests`](crate::trace::ModelRequests). Those in flight are read from the kernel for each order.
    Requests {
        /// A model's name or port; all where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// Finished requests: the data are [`Requests`](crate::trace::Requests). While it is sent at least every 10 s without `last`, all
    /// requests are recorded.
    Trace {
        /// A model's name or port; all where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Which requests.
        #[serde(default)]
        filter: Filter,
        /// `next` of the previous answer: those that ended since. If it is missing, there are none yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
        /// Instead: the newest ones, at most this many, of the slowest and the failed requests of the last hour.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<usize>,
    },
}

impl Order {
    /// Timeout for the answer.
    const fn patience(&self) -> Duration {
        match self {
            // Closing NVML waits for the current call.
            Self::GpuRelease { .. } | Self::GpuResume {} => Duration::from_secs(15),
            Self::History { .. } | Self::Explain { .. } | Self::Requests { .. } | Self::Trace { .. } => {
                Duration::from_secs(15)
            }
            // The kernel may have to verify programs again, and another reload may be in progress. systemd waits for 90
            // s.
            Self::Reload {} => Duration::from_secs(85),
        }
    }

    /// Whether the order changes what the agent does.
    const fn changes(&self) -> bool {
        match self {
            Self::GpuRelease { .. } | Self::GpuResume {} | Self::Reload {} => true,
            Self::History { .. } | Self::Explain { .. } | Self::Requests { .. } | Self::Trace { .. } => false,
        }
    }
}

/// The result of an order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done(String),
    /// The requested data.
    Data(serde_json::Value),
    /// Not done, with the reason.
    Failed(String),
}

impl Answer {
    /// Limits the length to what a client reads.
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

/// Executes orders. May block: called on a thread where that is allowed.
pub trait Orders: Send + Sync + 'static {
    /// Executes one order.
    fn carry_out(&self, order: &Order) -> Answer;
}
