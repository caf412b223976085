//! Wiring: configuration -> kernel programs -> sources -> pages. Only this module depends on all others.

mod listeners;
mod measure;
mod orders;
mod service_manager;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

pub use self::measure::{Examined, Measured, examine, find_models, measure, read_once};

use self::listeners::Listeners;
use self::orders::Desk;
use self::service_manager::ServiceManager;
use self::state::Agent;
use crate::collector::Collector;
use crate::config::watch::{Trigger, Watch};
use crate::config::{self, Config};
use crate::control::{self, Control};
use crate::ebpf::handover::Handover;
use crate::history::{self, History};
use crate::http::{App as _, Guard};
use crate::logging::LogHandle;
use crate::{alerts, logs, remote_write};

/// How often discovery results are passed to the kernel programs.
const TICK: Duration = Duration::from_secs(2);

/// Interval at which the history records a page.
const RECORDED: Duration = Duration::from_millis(history::FINE_MS.unsigned_abs());

/// Runs the agent until SIGTERM or SIGINT. `path` is the file of `config`, which is watched; `log` gets its level at a
/// reload.
///
/// # Errors
/// The agent cannot start: a port is in use, or the operating system refuses something that it needs.
pub fn run(config: &Config, path: Option<&Path>, log: &LogHandle) -> anyhow::Result<()> {
    runtime()?.block_on(serve(config, path, log))
}

/// One thread for everything that waits for sockets and signals; anything that can hang has its own thread.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the async runtime")
}

async fn serve(config: &Config, path: Option<&Path>, log: &LogHandle) -> anyhow::Result<()> {
    // Before anything else: until the handler is installed, SIGHUP would end the process.
    let mut watch = Watch::new(path).context("cannot watch for reloads")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot install the SIGTERM handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot install the SIGINT handler")?;
    let mut listeners = Listeners::bind(config)?;
    let (destinations, peers) = (remote_write::prepare(config)?, alerts::prepare(config)?);
    let journal = logs::prepare(config)?;
    let history = History::default();
    let agent =
        Arc::new(Agent::start(config.clone(), history.clone(), Handover::open()).context("cannot start discovery")?);
    // The first reading, so that the agent is ready as soon as it answers.
    agent.state().page(None);
    listeners.serve(&agent);
    let mut sinks = Sinks::new(&agent, &history);
    sinks.remote_write.replace(destinations, sinks.collector.pages()).await;
    sinks.alerts.replace(peers, sinks.collector.pages()).await;
    sinks.logs.replace(journal).await;
    let recorded = history::Running::start(history.clone(), sinks.collector.subscribe_live(RECORDED));
    let (gpu, tracer) = agent.state().asked();
    let (desk, mut reloads) = Desk::new(gpu, history, tracer);
    let _control = take_orders(config, desk);
    info!(
        metrics = %listeners.metrics.address, health = %listeners.health.address,
        "ready: metrics are at /metrics, the status is at /status on the health port"
    );
    let mut manager = ServiceManager::new();
    manager.ready(agent.state().summary());
    let mut refused = false;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let (trigger, request) = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {
                drop(agent.state().follow());
                manager.alive();
                if !refused {
                    manager.status(agent.state().summary());
                }
                continue;
            }
            trigger = watch.next_reload() => (trigger, None),
            Some(request) = reloads.recv() => (watch.ordered(), Some(request)),
        };
        let outcome = reload(&agent, &mut listeners, &mut sinks, path, log, trigger).await;
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        refused = outcome.is_err();
        match &outcome {
            Ok(()) => info!(?trigger, "configuration reloaded"),
            Err(error) => {
                agent.state().refused();
                error!(?trigger, "configuration not reloaded, keeping the current one: {error}");
                // systemd shows only one line.
                let first = error.lines().next().unwrap_or_default();
                manager.status(format!("configuration not reloaded, keeping the current one: {first}"));
            }
        }
        if let Some(request) = request {
            // The client may have disconnected.
            _ = request.send(outcome);
        }
    }
    info!("stopping");
    manager.stopping();
    tokio::join!(listeners.stop(), sinks.remote_write.stop(), sinks.alerts.stop(), sinks.logs.stop(), recorded.stop());
    Ok(())
}

/// Components that send: they take a page per interval, or logs.
struct Sinks {
    collector: Collector,
    remote_write: remote_write::Running,
    alerts: alerts::Running,
    logs: logs::Running,
}

impl Sinks {
    fn new(agent: &Arc<Agent>, history: &History) -> Self {
        let state = agent.state();
        Self {
            collector: Collector::start(Arc::clone(agent) as _),
            remote_write: remote_write::Running::new(state.remote_write.clone()),
            alerts: alerts::Running::new(state.alerts.clone()).explained_by(history.clone()),
            logs: logs::Running::new(state.logs.clone(), state.known.clone()),
        }
    }
}

/// Starts the control socket, which serves until the result is dropped.
fn take_orders(config: &Config, desk: Desk) -> Option<Control> {
    let path = &config.local.control_socket;
    let refused = |error| {
        warn!(%error, path = %path.display(), "cannot create the control socket; `citadel-agent reload`, `gpu`, `top`, `trace` and `explain` are unavailable");
    };
    control::serve(path, Arc::new(desk)).map_err(refused).ok()
}

/// Reloads the configuration as a transaction: everything that can fail is done first, and if it fails, nothing
/// changes.
async fn reload(
    agent: &Arc<Agent>,
    listeners: &mut Listeners,
    sinks: &mut Sinks,
    path: Option<&Path>,
    log: &LogHandle,
    trigger: Trigger,
) -> anyhow::Result<()> {
    debug!(?trigger, "reloading the configuration");
    let config = config::reload(path)?;
    let old = agent.config();
    let web = Guard::prepare(config.local.web_config_file.as_deref())?;
    let moved = listeners.bind_changed(&old, &config)?;
    let (destinations, peers) = (remote_write::prepare(&config)?, alerts::prepare(&config)?);
    let journal = logs::prepare(&config)?;
    let prepared = agent.state().prepare(&config)?;
    agent.state().commit(prepared)?;
    agent.state().discovery.configure(&config);
    if !log.set_level(config.local.log_level) && old.local.log_level != config.local.log_level {
        warn!("RUST_LOG is set and overrides the configured log level");
    }
    agent.state().configure(config);
    let config = agent.config();
    listeners.demand(web);
    listeners.replace(moved, agent).await;
    if remote_write::differs(&old, &config) {
        sinks.remote_write.replace(destinations, sinks.collector.pages()).await;
    }
    if alerts::differs(&old, &config) {
        sinks.alerts.replace(peers, sinks.collector.pages()).await;
    }
    if logs::differs(&old, &config) {
        sinks.logs.replace(journal).await;
    }
    Ok(())
}
