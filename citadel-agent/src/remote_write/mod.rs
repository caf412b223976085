//! Remote write: what the pages hold goes to every destination, once, in order, and waits on disk until it has arrived.
//!
//! ```text
//! page -> collector (time, what ended) -> spool (disk) -> a destination each: sender (pure) + client (HTTP) -> ledger
//! ```
//!
//! A record is neither protocol's: `encode` makes a request of it when it goes out. One thread does all of it, apart from
//! the one that answers scrapes, because disks hang. What remote write exports of itself is in `figures`.
//!
//! At every moment, for each destination: collected = acknowledged + rejected + dropped + pending (see `ledger.rs`).

pub mod client;
mod collector;
pub mod command;
mod dead_letter;
mod destination;
pub mod encode;
mod figures;
pub mod ledger;
mod queue;
pub mod record;
pub mod refused;
mod relayed;
pub mod sender;
pub mod series;
mod service;
pub mod spool;
pub mod stale;
pub mod wire;

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tracing::{error, warn};

use crate::collector::Pages;
use crate::config::Config;
use crate::slot::Slot;
use crate::{state_file, threads};
use client::{Client, UrlError};
pub use collector::Told;
pub use figures::{Numbers, SILENT};
use record::Identity;
use sender::Settings;

/// Why samples cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A destination cannot be spoken to.
    #[error("remote write to {name}: {error}")]
    Destination {
        /// Its name.
        name: String,
        /// Why.
        error: UrlError,
    },
    /// The thread cannot be started.
    #[error("cannot start the remote-write thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running remote write. Dropping it without [`Handle::stop`] ends it as well, at some time.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Option<Told>>>,
}

/// What must be configured for remote write to run, and the clients for it.
pub struct Prepared {
    config: Config,
    clients: Vec<(String, Client, Settings)>,
    told: Option<Told>,
}

impl Prepared {
    /// Goes on from what another one, which has ended, told: series that are gone since, or that have other labels from now
    /// on, are marked as ended.
    #[must_use]
    pub fn following(self, told: Option<Told>) -> Self {
        Self { told, ..self }
    }
}

/// All that can fail of a start. `None`: there is no destination.
///
/// # Errors
/// See [`StartError`].
pub fn prepare(config: &Config) -> Result<Option<Prepared>, StartError> {
    let mut clients = Vec::new();
    for (name, destination) in config.destinations() {
        let client =
            Client::new(&destination).map_err(|error| StartError::Destination { name: name.clone(), error })?;
        let settings = Settings::of(&destination);
        clients.push((name, client, settings));
    }
    Ok((!clients.is_empty()).then(|| Prepared { config: config.clone(), clients, told: None }))
}

/// Starts sending. `pages` subscribes to pages at the interval that it gets; `numbers` is where the figures are published.
///
/// # Errors
/// See [`StartError`].
pub fn start<P: Pages>(
    prepared: Prepared,
    numbers: Slot<Vec<Numbers>>,
    pages: impl FnOnce(Duration) -> P + Send + 'static,
) -> Result<Handle, StartError> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("remote-write".to_owned()).spawn(move || {
        let run = service::run(prepared, numbers, pages, stopped);
        let told = LocalSet::new().block_on(&runtime, run);
        // Look-ups of names have threads of their own, which may hang.
        runtime.shutdown_background();
        told
    })?;
    Ok(Handle { stop: Some(stop), thread: Some(thread) })
}

impl Handle {
    /// Ends it: what is in flight goes out again at the next start, and no series is marked as ended. Says what was told last,
    /// for [`Prepared::following`].
    pub async fn stop(mut self) -> Option<Told> {
        drop(self.stop.take());
        let thread = self.thread.take()?;
        if threads::ends(&thread).await {
            return thread.join().ok().flatten();
        }
        warn!("the disk of the spool hangs: left behind");
        None
    }
}

/// Remote write as the agent holds it: what runs, if anything does.
#[derive(Debug, Default)]
pub struct Running {
    numbers: Slot<Vec<Numbers>>,
    handle: Option<Handle>,
}

impl Running {
    /// Nothing yet, and where its figures will be.
    #[must_use]
    pub fn new(numbers: Slot<Vec<Numbers>>) -> Self {
        Self { numbers, handle: None }
    }

    /// Ends what runs and starts what was prepared, if anything was; it goes on from there, see [`Prepared::following`].
    pub async fn replace<P: Pages>(
        &mut self,
        prepared: Option<Prepared>,
        pages: impl FnOnce(Duration) -> P + Send + 'static,
    ) {
        let told = match self.handle.take() {
            Some(handle) => handle.stop().await,
            None => None,
        };
        self.numbers.publish(Vec::new());
        self.handle = prepared.and_then(|prepared| {
            let started = start(prepared.following(told), self.numbers.clone(), pages);
            started.map_err(|error| error!(%error, "nothing is sent")).ok()
        });
    }

    /// Ends it.
    pub async fn stop(self) {
        if let Some(handle) = self.handle {
            handle.stop().await;
        }
    }
}

/// Whether remote write has to be started anew to go from one configuration to the other.
#[must_use]
pub fn differs(old: &Config, new: &Config) -> bool {
    old.remote_write != new.remote_write
        || old.destinations() != new.destinations()
        || old.write_interval() != new.write_interval()
}

/// Where the spool is.
#[must_use]
pub fn folder(config: &Config) -> PathBuf {
    config.remote_write.directory.clone().unwrap_or_else(|| state_file::folder().join("remote-write"))
}

/// This host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The labels that every series gets.
#[must_use]
pub fn identity(config: &Config) -> Identity {
    let remote_write = &config.remote_write;
    let mut labels = vec![
        ("job".to_owned(), remote_write.job.clone()),
        ("instance".to_owned(), remote_write.instance.clone().unwrap_or_else(host_name)),
    ];
    labels.extend(remote_write.external_labels.clone());
    Identity { labels }
}
