//! Remote write: sends the samples of all pages to every destination, once and in order, and keeps them on disk until
//! they are acknowledged.
//!
//! ```text
//! page -> collector (timestamps, ended series) -> spool (disk) -> per destination: sender (pure) + client (HTTP) -> ledger
//! ```
//!
//! Records are independent of the protocol: `encode` turns them into requests when they are sent. Everything runs on
//! one thread, separate from the one that answers scrapes, because disks hang. Metrics of remote write itself are in
//! `figures`.
//!
//! At all times, for each destination: collected = acknowledged + rejected + dropped + pending (see `ledger.rs`).

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
use sender::SenderSettings;

/// Why remote write cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A destination is invalid.
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

/// The running remote write. Dropping it without [`Handle::stop`] ends it eventually.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Option<Told>>>,
}

/// Configured remote write, ready to start, with its clients.
pub struct Prepared {
    config: Config,
    clients: Vec<(String, Client, SenderSettings)>,
    told: Option<Told>,
}

impl Prepared {
    /// Continues from the state of a previous instance: series that have ended since, or that now have other labels,
    /// get stale markers.
    #[must_use]
    pub fn following(self, told: Option<Told>) -> Self {
        Self { told, ..self }
    }
}

/// Does everything that can fail at a start. `None` if there is no destination.
///
/// # Errors
/// See [`StartError`].
pub fn prepare(config: &Config) -> Result<Option<Prepared>, StartError> {
    let mut clients = Vec::new();
    for (name, destination) in config.destinations() {
        let client =
            Client::new(&destination).map_err(|error| StartError::Destination { name: name.clone(), error })?;
        let settings = SenderSettings::of(&destination);
        clients.push((name, client, settings));
    }
    Ok((!clients.is_empty()).then(|| Prepared { config: config.clone(), clients, told: None }))
}

/// Starts sending. `pages` subscribes to pages at the given interval; figures are published to `numbers`.
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
        // Name resolution uses separate threads, which can hang.
        runtime.shutdown_background();
        told
    })?;
    Ok(Handle { stop: Some(stop), thread: Some(thread) })
}

impl Handle {
    /// Stops: requests in flight are resent at the next start, and no stale markers are sent. Returns the state for
    /// [`Prepared::following`].
    pub async fn stop(mut self) -> Option<Told> {
        drop(self.stop.take());
        let thread = self.thread.take()?;
        if threads::ends(&thread).await {
            return thread.join().ok().flatten();
        }
        warn!("the disk of the spool hangs; leaving its thread behind");
        None
    }
}

/// Remote write as held by the agent; it may not be running.
#[derive(Debug, Default)]
pub struct Running {
    numbers: Slot<Vec<Numbers>>,
    handle: Option<Handle>,
}

impl Running {
    /// Not running; figures will be published to `numbers`.
    #[must_use]
    pub fn new(numbers: Slot<Vec<Numbers>>) -> Self {
        Self { numbers, handle: None }
    }

    /// Stops the running instance and starts the prepared one, if any, with its state; see [`Prepared::following`].
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
            started.map_err(|error| error!(%error, "cannot start remote write; nothing is sent")).ok()
        });
    }

    /// Stops it.
    pub async fn stop(self) {
        if let Some(handle) = self.handle {
            handle.stop().await;
        }
    }
}

/// Whether remote write must be restarted to apply a new configuration.
#[must_use]
pub fn differs(old: &Config, new: &Config) -> bool {
    old.remote_write != new.remote_write
        || old.destinations() != new.destinations()
        || old.write_interval() != new.write_interval()
}

/// Directory of the spool.
#[must_use]
pub fn folder(config: &Config) -> PathBuf {
    config.remote_write.directory.clone().unwrap_or_else(|| state_file::folder().join("remote-write"))
}

/// Name of this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The labels added to every series.
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
