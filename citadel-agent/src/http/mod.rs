//! The two HTTP listeners: metrics pages, and health.
//!
//! [`bind()`] first, so that the agent can say that it is ready and then be right; then [`Listener::serve`] until its shutdown
//! future is done. They know the rest of the agent only as [`App`]. A page is made in memory and answered whole, or not at all.
//!
//! ```text
//! bind -> server (accept) -> connection (TLS, hyper) -> guard (who may) -> router (axum: path -> handler) -> pages -> App
//!             |                       | notes its activity                                                     | bytes held
//!         connections (who goes) <--------------------------------------------------------------------------- budget
//! ```

mod activity;
mod bind;
mod budget;
mod client;
mod coding;
mod connection;
mod connections;
mod dropped;
mod guard;
mod limits;
mod overview;
mod pages;
mod router;
mod server;

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::resolved::Config;
use crate::history::History;
use crate::metrics::catalogue::Section;
use crate::metrics::family::Page;
use crate::trace::ModelRequests;

use budget::Budget;
use connections::Connections;
use guard::Gate;
use router::Site;

pub use bind::{BindError, Holder, bind, bind_beside};
pub use dropped::Dropped;
pub use guard::{Guard, GuardError, Prepared, TlsError};
pub use limits::Limits;

/// The listeners' view of the agent. Called on the runtime's only thread: must not block.
pub trait App: Send + Sync + 'static {
    /// The current configuration; a reload can change the paths of the pages.
    fn config(&self) -> Arc<Config>;

    /// Reads the slow sources of a page; completes when they are done, or when `within` has passed. Sources that are
    /// late are then missing on the page. Returns the number of the reading, which increases with each source that is
    /// read.
    fn refresh(&self, section: Option<Section>, within: Duration) -> Pin<Box<dyn Future<Output = u64> + Send>>;

    /// The families of a page: of everything (`None`), or of a section, always with [`Section::Agent`].
    ///
    /// # Errors
    /// What the page is about cannot be read. A missing source is not an error, but absent.
    fn collect(&self, section: Option<Section>) -> Result<Page, CollectError>;

    /// The history of the last day.
    fn history(&self) -> History;

    /// Single requests of each model, without anything that identifies clients. May block, unlike the others: called on another thread.
    fn requests(&self) -> Vec<ModelRequests>;

    /// The pending and firing alerts, a list; as `alerts.active` in `/status`.
    fn active_alerts(&self) -> serde_json::Value;

    /// The content of `/status`: families, programs, verdicts and reasons.
    fn status(&self) -> serde_json::Value;

    /// Whether the first read is complete.
    ///
    /// # Errors
    /// Why it is not, for a person.
    fn ready(&self) -> Result<(), String>;
}

/// Why a page could not be collected.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}: {cause}")]
pub struct CollectError {
    /// What was read.
    pub what: &'static str,
    /// What went wrong with it.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// What a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The metrics pages and the index.
    Metrics,
    /// `/health`, `/ready` and `/status`.
    Health,
}

impl Content {
    /// Value of the label `listener`.
    const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Health => "health",
        }
    }
}

/// A listener's content and clients.
pub struct Listener {
    /// Its content.
    pub content: Content,
    /// The agent.
    pub app: Arc<dyn App>,
    /// Its access control.
    pub guard: Arc<Guard>,
    /// Limits on its clients.
    pub limits: Limits,
    /// Counts connections that were closed early and requests that were refused.
    pub dropped: Arc<Dropped>,
}

impl Listener {
    /// Serves on `socket` until `shutdown` completes and open responses are sent.
    ///
    /// # Errors
    /// The runtime cannot use the socket. Errors on a connection end only that connection.
    pub async fn serve(self, socket: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { content, app, guard, limits, dropped } = self;
        let budget = Budget::new(limits.response_bytes);
        let site = Site::new(Gate { guard, content, dropped }, app, Arc::clone(&budget));
        let connections = Connections::new(site, limits, Arc::clone(&budget));
        server::serve(socket, connections, &budget, shutdown).await
    }
}
