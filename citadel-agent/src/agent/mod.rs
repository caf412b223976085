//! Wiring: configuration -> probes -> sources -> pages. Only this module knows all the others.

mod listeners;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use self::listeners::Listeners;
use self::state::Agent;
use crate::collector::Collector;
use crate::config::watch::{Trigger, Watch};
use crate::config::{self, Config};
use crate::http::App as _;
use crate::logging::LogHandle;
use crate::metrics::family::Page;
use crate::{alerts, logs, remote_write};

/// How long open answers may take after the agent was told to stop.
const GRACE: Duration = Duration::from_secs(4);

/// How often the kernel programs learn what discovery found.
const TICK: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT. `path` is the file that `config` came from, to be watched; `log` takes the level
/// at a reload.
///
/// # Errors
/// The agent cannot start: a port is taken, or the operating system refuses what it needs.
pub fn run(config: &Config, path: Option<&Path>, log: &LogHandle) -> anyhow::Result<()> {
    // One thread for everything that waits for sockets and signals; what may hang has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve(config, path, log))
}

async fn serve(config: &Config, path: Option<&Path>, log: &LogHandle) -> anyhow::Result<()> {
    // First of all: before it exists, SIGHUP would end the process.
    let mut watch = Watch::new(path).context("cannot watch for reloads")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut listeners = Listeners::bind(config)?;
    let (destinations, peers) = (remote_write::prepare(config)?, alerts::prepare(config)?);
    let journal = logs::prepare(config)?;
    let agent = Arc::new(Agent::start(config.clone()).context("cannot start discovery")?);
    // The first read, so that ready is true from the first moment in which anyone can ask.
    agent.state().page(None);
    listeners.serve(&agent);
    let mut sinks = Sinks::new(&agent);
    sinks.remote_write.replace(destinations, sinks.collector.pages()).await;
    sinks.alerts.replace(peers, sinks.collector.pages()).await;
    sinks.logs.replace(journal).await;
    let _control = agent.state().take_orders();
    info!(
        metrics = %listeners.metrics.address, health = %listeners.health.address,
        "ready: scrape /metrics, see /status on the health port"
    );
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => drop(agent.state().follow()),
            trigger = watch.next_reload() => reload(&agent, &mut listeners, &mut sinks, path, log, trigger).await,
        }
    }
    info!("stopping");
    tokio::join!(listeners.stop(), sinks.remote_write.stop(), sinks.alerts.stop(), sinks.logs.stop());
    Ok(())
}

/// What sends something on: what takes a page at each of its intervals, and logs.
struct Sinks {
    collector: Collector,
    remote_write: remote_write::Running,
    alerts: alerts::Running,
    logs: logs::Running,
}

impl Sinks {
    fn new(agent: &Arc<Agent>) -> Self {
        let state = agent.state();
        Self {
            collector: Collector::start(Arc::clone(agent) as _),
            remote_write: remote_write::Running::new(state.remote_write.clone()),
            alerts: alerts::Running::new(state.alerts.clone()),
            logs: logs::Running::new(state.logs.clone(), state.known.clone()),
        }
    }
}

/// Loads the configuration again and applies it as one transaction: what can fail is done first, and if it fails, nothing
/// changes.
async fn reload(
    agent: &Arc<Agent>,
    listeners: &mut Listeners,
    sinks: &mut Sinks,
    path: Option<&Path>,
    log: &LogHandle,
    why: Trigger,
) {
    let result: anyhow::Result<()> = async {
        let config = config::reload(path)?;
        let old = agent.config();
        let moved = listeners.bind_changed(&old, &config)?;
        let (destinations, peers) = (remote_write::prepare(&config)?, alerts::prepare(&config)?);
        let journal = logs::prepare(&config)?;
        let prepared = agent.state().prepare(&config)?;
        agent.state().commit(prepared)?;
        agent.state().discovery.configure(&config);
        if !log.set_level(config.local.log_level) && old.local.log_level != config.local.log_level {
            warn!("RUST_LOG is set, so the configured log level changes nothing");
        }
        agent.state().configure(config);
        let config = agent.config();
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
    .await;
    match result {
        Ok(()) => info!(trigger = ?why, "configuration reloaded"),
        Err(error) => error!(trigger = ?why, "configuration not reloaded; the old one stays in force: {error:#}"),
    }
}

/// Reads every source once, without kernel programs: what those count begins when they are attached, so one reading of
/// them says nothing.
///
/// # Errors
/// Discovery cannot be started.
pub fn read_once(config: &Config) -> anyhow::Result<Page> {
    let mut config = config.clone();
    let ebpf = &mut config.ebpf;
    (ebpf.net, ebpf.recvq, ebpf.sched, ebpf.syscalls) = (false, false, false, false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let agent = Agent::start(config).context("cannot start discovery")?;
        agent.refresh(None, GRACE).await;
        Ok(agent.state().page(None))
    })
}
