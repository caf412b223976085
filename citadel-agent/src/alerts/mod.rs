//! Alerts: rules evaluated on the pages that the agent exports, and what is true sent to every Alertmanager.
//!
//! ```text
//! page --evaluate--> what is true --state--> pending, firing, resolved --engine--> what is due --outbox--> each peer
//! ```
//!
//! All but `command`, `delivery`, `saved` and `service` is pure: pages and times come in, alerts come out.

mod annotation;
pub mod command;
mod delivery;
mod engine;
mod evaluate;
mod figures;
pub(crate) mod histogram;
mod increase;
mod notification;
mod outbox;
mod peers;
mod prometheus;
mod saved;
mod service;
mod state;
mod window;

use crate::config::Config;
use crate::remote_write;

pub use engine::{Engine, Settings};
pub use figures::{Active, Numbers, PeerNumbers};
pub use notification::Notification;
pub use peers::{Peer, peers};
pub use prometheus::rule_file;
pub use saved::{Saved, SavedError, parse_saved, read_saved, write_saved};
pub use service::{PrepareError, Prepared, Running, differs, prepare};
pub use state::{Alert, Phase, Texts};

/// The labels that every alert gets, the same as those of the series that remote write sends.
fn identity(config: &Config) -> Texts {
    remote_write::identity(config).labels.into_iter().collect()
}
