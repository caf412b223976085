//! Runs the alerts: takes a page per interval, evaluates it, saves the state, and sends to the peers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::cause::explained;
use super::delivery::{Delivery, TIMEOUT};
use super::engine::{Engine, Settings};
use super::figures::{Active, Numbers};
use super::peers::{Peer, peers};
use super::saved::{Saved, read_saved, write_saved};
use super::state::{Alert, Phase};
use super::window::Millis;
use crate::collector::{Pages, wall_ms};
use crate::config::resolved::Config;
use crate::history::History;
use crate::metrics::family::Page;
use crate::outbound::{Client, UrlError};
use crate::slot::Slot;
use crate::state_file;

/// Name of the file in the state directory.
const FILE: &str = "alerts.json";

/// Maximum age of the file while there are alerts: a crash loses at most this much of a pending alert's time.
const SAVE_PERIOD: Duration = Duration::from_secs(60);

/// The clock was set if it moved by more than this against the monotonic clock.
const CLOCK_STEP: Millis = 1000;

/// Why alerts cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("alerts to {url}: {error}")]
pub struct PrepareError {
    url: String,
    error: UrlError,
}

/// Rules and peers: everything about a start that can fail.
pub struct Prepared {
    settings: Settings,
    peers: Vec<(Peer, Client)>,
    notes: Vec<String>,
}

/// Prepares what `config` asks for; `None` if there are no rules or no peers.
///
/// # Errors
/// No client can be created for a peer.
pub fn prepare(config: &Config) -> Result<Option<Prepared>, PrepareError> {
    let Some(remote) = config.remote.as_ref().filter(|_| config.alerts.enabled) else { return Ok(None) };
    let (peers, notes) = peers(remote);
    let client = |peer: Peer| match Client::new(&peer.url, &remote.alerting_access, TIMEOUT) {
        Ok(client) => Ok((peer, client)),
        Err(error) => Err(PrepareError { url: peer.url, error }),
    };
    let peers = peers.into_iter().map(client).collect::<Result<Vec<_>, _>>()?;
    let settings = Settings {
        rules: config.alerts.rules.clone(),
        interval: remote.evaluation_interval,
        settling: 2 * config.local.collection_interval,
        labels: super::identity(config),
        generator_url: super::generator_url(config),
    };
    Ok((!peers.is_empty()).then_some(Prepared { settings, peers, notes }))
}

/// The agent's alerts, running or not.
#[derive(Debug)]
pub struct Running {
    numbers: Slot<Numbers>,
    folder: PathBuf,
    history: History,
    task: Option<(oneshot::Sender<()>, JoinHandle<Saved>)>,
}

impl Running {
    /// Not running yet; metrics will be stored in `numbers`.
    #[must_use]
    pub fn new(numbers: Slot<Numbers>) -> Self {
        Self { numbers, folder: state_file::folder(), history: History::default(), task: None }
    }

    /// Keeps state in this folder instead of the unit's state directory.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self }
    }

    /// Explains alerts about models by this history.
    #[must_use]
    pub fn explained_by(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// Stops the running alerts and starts `prepared`, if any; existing alerts continue. `pages` subscribes to pages at
    /// the given interval.
    pub async fn replace<P: Pages>(&mut self, prepared: Option<Prepared>, pages: impl FnOnce(Duration) -> P) {
        let before = self.end().await;
        let counted = self.numbers.newest().map(|newest| newest.value.peers.clone()).unwrap_or_default();
        self.numbers.publish(Numbers::default());
        let Some(Prepared { settings, peers, notes }) = prepared else { return };
        notes.iter().for_each(|note| info!("{note}"));
        let names: Vec<_> = peers.iter().map(|(peer, _)| peer.name.as_str()).collect();
        info!(rules = settings.rules.len(), peers = names.join(", "), "evaluating alert rules");
        let path = self.folder.join(FILE);
        let before = before.unwrap_or_else(|| load(&path));
        let pages = pages(settings.interval);
        let delivery = |peer: Peer| {
            let before = counted.iter().find(|numbers| numbers.peer == peer.name).cloned();
            Arc::new(Delivery::new(peer, before))
        };
        let (peers, clients) = peers.into_iter().map(|(peer, client)| (delivery(peer), client)).unzip();
        let engine = Engine::new(settings, before.alerts, before.at, wall_ms());
        let history = self.history.clone();
        let service = Service { engine, peers, path, saved: None, numbers: self.numbers.clone(), history };
        let (stop, stopped) = oneshot::channel();
        self.task = Some((stop, tokio::spawn(service.run(clients, pages, stopped))));
    }

    /// Stops. This resolves nothing: firing alerts continue after the restart.
    pub async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) -> Option<Saved> {
        let (stop, task) = self.task.take()?;
        drop(stop);
        task.await.ok()
    }
}

/// Whether alerts must be restarted to switch from one configuration to the other.
#[must_use]
pub fn differs(old: &Config, new: &Config) -> bool {
    old.alerts != new.alerts
        || old.remote != new.remote
        || super::identity(old) != super::identity(new)
        || super::generator_url(old) != super::generator_url(new)
        || old.local.collection_interval != new.local.collection_interval
}

struct Service {
    engine: Engine,
    peers: Vec<Arc<Delivery>>,
    path: PathBuf,
    /// When the file was last written, and whether that succeeded; `None`: not yet.
    saved: Option<(Instant, bool)>,
    numbers: Slot<Numbers>,
    history: History,
}

impl Service {
    async fn run(mut self, clients: Vec<Client>, mut pages: impl Pages, mut stopped: oneshot::Receiver<()>) -> Saved {
        let tell = |(peer, client): (&Arc<Delivery>, Client)| tokio::spawn(Arc::clone(peer).run(client));
        let deliveries: Vec<_> = self.peers.iter().zip(clients).map(tell).collect();
        let mut clock = Clock::start();
        loop {
            let collected = tokio::select! {
                _ = &mut stopped => break,
                Some(collected) = pages.next() => collected,
            };
            self.follow(&mut clock);
            // Not the time of the collection: the clock may have been set since.
            self.evaluate(&collected.page, wall_ms());
        }
        deliveries.iter().for_each(JoinHandle::abort);
        self.follow(&mut clock);
        let saved = Saved::new(self.engine.alerts().cloned().collect(), wall_ms());
        self.save(&saved);
        saved
    }

    /// Shifts all times if the clock was set.
    fn follow(&mut self, clock: &mut Clock) {
        if let Some(step) = clock.step() {
            info!(milliseconds = step, "the system clock was changed; adjusting the times of alerts");
            self.engine.clock_was_set(step);
        }
    }

    fn evaluate(&mut self, page: &Page, now: Millis) {
        let before = phases(&self.engine);
        let changed = self.engine.evaluate(page, now);
        if changed {
            log_changes(&before, &self.engine);
        }
        let due = self.engine.due(now).into_iter().map(|alert| explained(&self.history, alert, now));
        let due: Vec<_> = due.collect();
        if !due.is_empty() {
            self.peers.iter().for_each(|peer| peer.push(&due));
        }
        let old = self.saved.is_none_or(|(at, _)| at.elapsed() >= SAVE_PERIOD);
        if changed || (old && self.engine.alerts().next().is_some()) {
            self.save(&Saved::new(self.engine.alerts().cloned().collect(), now));
        }
        let peers = self.peers.iter().map(|peer| peer.numbers()).collect();
        let active = self.engine.alerts().filter_map(active).collect();
        self.numbers.publish(Numbers { firing: self.engine.firing().into(), active, peers });
    }

    /// Writes the file; a failure is logged once.
    fn save(&mut self, saved: &Saved) {
        let result = write_saved(&self.path, saved);
        if let Err(error) = &result
            && self.saved.is_none_or(|(_, well)| well)
        {
            let path = self.path.display();
            warn!(%path, %error, "cannot save the state of alerts; it would be lost in a restart");
        }
        self.saved = Some((Instant::now(), result.is_ok()));
    }
}

/// The fields shown for a pending or firing alert.
fn active(alert: &Alert) -> Option<Active> {
    let (state, since_ms) = match alert.phase {
        Phase::Pending { since } => ("pending", since),
        Phase::Firing { since, .. } => ("firing", since),
        Phase::Resolved { .. } => return None,
    };
    Some(Active { state, since_ms, labels: alert.labels.clone(), annotations: alert.annotations.clone() })
}

/// Loads what an earlier run saved. An unreadable file is renamed, so that it can be examined.
fn load(path: &Path) -> Saved {
    match read_saved(path) {
        Ok(saved) => saved,
        Err(error) => {
            let kept = state_file::put_aside(path, "unreadable").is_ok();
            warn!(path = %path.display(), %error, kept, "cannot read the saved state of alerts; starting without it");
            Saved::nothing()
        }
    }
}

/// The state of alerts as it is logged.
fn phases(engine: &Engine) -> Vec<(super::Texts, bool)> {
    let firing = |alert: &Alert| (alert.labels.clone(), matches!(alert.phase, Phase::Firing { .. }));
    engine.alerts().map(firing).filter(|(_, firing)| *firing).collect()
}

fn log_changes(before: &[(super::Texts, bool)], engine: &Engine) {
    let fired_before = |alert: &Alert| before.iter().any(|(labels, _)| *labels == alert.labels);
    for alert in engine.alerts() {
        let (name, labels) = (alert.name(), serde_json::json!(alert.labels).to_string());
        match (alert.phase, fired_before(alert)) {
            (Phase::Firing { .. }, false) => warn!(alert = name, labels, "alert firing"),
            (Phase::Resolved { .. }, true) => info!(alert = name, labels, "alert resolved"),
            _ => {}
        }
    }
}

/// Detects when the wall clock is set, by comparison with the monotonic clock.
struct Clock {
    wall: Millis,
    monotonic: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { wall: wall_ms(), monotonic: Instant::now() }
    }

    /// By how much the wall clock was set since the last call, if it was.
    fn step(&mut self) -> Option<Millis> {
        let new = Self::start();
        let passed = Millis::try_from((new.monotonic - self.monotonic).as_millis()).unwrap_or(Millis::MAX);
        let step = new.wall - self.wall - passed;
        *self = new;
        (step.abs() > CLOCK_STEP).then_some(step)
    }
}
