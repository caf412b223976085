//! Wiring: configuration -> probes -> sources -> pages. Only this module knows all the others.

mod listeners;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use self::listeners::Listeners;
use crate::alerts;
use crate::config::watch::{Trigger, Watch};
use crate::config::{self, Config};
use crate::control::{self, Control};
use crate::discovery::inventory::Inventory;
use crate::discovery::watch::{Discovered, Discovery};
use crate::ebpf::error::ProbeError;
use crate::ebpf::families::Families;
use crate::ebpf::own::OwnConnections;
use crate::ebpf::plan::{Decision, decide};
use crate::ebpf::readers::RequestReaders;
use crate::ebpf::status::{FamilyStatus, Verdict};
use crate::ebpf::support::Support;
use crate::gpu::{self, Gpu};
use crate::host::Roots;
use crate::http::{App, CollectError};
use crate::logging::LogHandle;
use crate::metrics::catalogue::Section;
use crate::metrics::family::Page;
use crate::remote_write;
use crate::slot::Slot;
use crate::sources::apart::{Context, Readers};
use crate::sources::health::{Announce, Probes};
use crate::sources::services::Services;
use crate::sources::{self, Health, Memory, Origin};

/// How long open answers may take after the agent was told to stop.
const GRACE: Duration = Duration::from_secs(4);

/// How often the kernel programs are told what discovery found, and what handshakes left behind is swept.
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
    let agent = Arc::new(Agent::start(config.clone()).context("cannot start discovery")?);
    // The first read, so that ready is true from the first moment in which anyone can ask.
    agent.state().page(None);
    listeners.serve(&agent);
    let mut sinks = Sinks::new(&agent);
    sinks.remote_write.replace(destinations, agent.pages()).await;
    sinks.alerts.replace(peers, agent.pages()).await;
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
            _ = ticks.tick() => agent.state().tick(),
            trigger = watch.next_reload() => reload(&agent, &mut listeners, &mut sinks, path, log, trigger).await,
        }
    }
    info!("stopping");
    tokio::join!(listeners.stop(), sinks.remote_write.stop(), sinks.alerts.stop());
    Ok(())
}

/// Those who collect pages by themselves and send them on.
struct Sinks {
    remote_write: remote_write::Running,
    alerts: alerts::Running,
}

impl Sinks {
    fn new(agent: &Agent) -> Self {
        let state = agent.state();
        Self {
            remote_write: remote_write::Running::new(state.remote_write.clone()),
            alerts: alerts::Running::new(state.alerts.clone()),
        }
    }
}

/// Loads the configuration anew and applies it as one transaction: whatever can fail is done first, and where it fails,
/// everything stays as it was.
async fn reload(
    agent: &Arc<Agent>,
    listeners: &mut Listeners,
    sinks: &mut Sinks,
    path: Option<&Path>,
    log: &LogHandle,
    why: Trigger,
) {
    let result: anyhow::Result<()> = async {
        let config = config::load(path)?;
        let old = agent.config();
        let moved = listeners.bind_changed(&old, &config)?;
        let (destinations, peers) = (remote_write::prepare(&config)?, alerts::prepare(&config)?);
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
            sinks.remote_write.replace(destinations, agent.pages()).await;
        }
        if alerts::differs(&old, &config) {
            sinks.alerts.replace(peers, agent.pages()).await;
        }
        Ok(())
    }
    .await;
    match result {
        Ok(()) => info!(trigger = ?why, "configuration reloaded"),
        Err(error) => error!(trigger = ?why, "configuration not reloaded, the old one stays in force: {error:#}"),
    }
}

/// Prints what would run on this host under `config`, as text or as JSON. False when something that is configured cannot.
///
/// # Errors
/// The output cannot be written.
pub fn check(config: &Config, json: bool) -> anyhow::Result<bool> {
    let planned = decide(&config.ebpf, &Support::gather(&Roots::default()));
    let statuses: Vec<_> = planned.iter().map(|(family, decision)| FamilyStatus::planned(*family, decision)).collect();
    let gpus = gpu::pci::read_gpus(&Roots::default().sys);
    let mut out = io::stdout().lock();
    if json {
        let families: serde_json::Map<_, _> =
            statuses.iter().map(|status| (status.family.to_owned(), serde_json::json!(status))).collect();
        writeln!(out, "{:#}", serde_json::json!({ "families": families, "gpu": { "pci": gpus } }))?;
    } else {
        for ((family, decision), status) in planned.iter().zip(&statuses) {
            write!(out, "{}: {}", status.family, status.status.name())?;
            match decision {
                Decision::AttachTo { cgroup } => writeln!(out, ", attaches to {}", cgroup.display())?,
                Decision::Trace => writeln!(out, ", attaches to tracepoints")?,
                Decision::TraceCalls(variant) => {
                    writeln!(out, ", attaches by {}: {}", variant.form.name(), variant.reason)?;
                }
                Decision::Skip(_) => writeln!(out, ", {}\n  to mend it: {}", status.reason, status.remedy)?,
            }
            for program in family.programs() {
                writeln!(out, "  {} ({})", program.name, program.hook)?;
            }
        }
        let found = match gpus.join(", ") {
            none if none.is_empty() => "no NVIDIA GPU on the PCI bus".to_owned(),
            gpus => format!("NVIDIA at {gpus}, sampled every {:?}", config.gpu.sampling_interval),
        };
        writeln!(out, "gpu: {found}")?;
        writeln!(
            out,
            "models: {} configured, {} ports measured",
            config.models.ports.len(),
            config.models.measured_ports().len()
        )?;
    }
    Ok(statuses.iter().all(|status| matches!(status.status, Verdict::Ok | Verdict::Disabled)))
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

/// The running agent, as the listeners see it.
struct Agent {
    state: Mutex<State>,
}

/// Everything that a read or a reload changes. The lock is never held across an await.
struct State {
    config: Arc<Config>,
    roots: Roots,
    families: Families,
    health: Health,
    remote_write: Slot<Vec<sources::remote_write::Numbers>>,
    readers: Readers,
    context: Context,
    services: Services,
    probes: Probes,
    memory: Memory,
    /// The agent's own connections to models.
    own: OwnConnections,
    /// Who reads the models' requests.
    request_readers: RequestReaders,
    discovery: Discovery,
    inventory: Inventory,
    /// What the kernel programs were told of last.
    followed: Option<Arc<Discovered>>,
    alerts: Slot<sources::alerts::Numbers>,
    gpu: Option<Gpu>,
    read_once: bool,
}

/// A reload that can be committed.
enum Prepared {
    /// The programs stay; they are to measure these ports.
    Measure(BTreeSet<u16>),
    /// The programs are attached anew, switched off or given up.
    Replace(Box<Families>),
}

impl Agent {
    fn start(config: Config) -> io::Result<Self> {
        let roots = Roots::default();
        let mut families = Families::attach(&config, &roots);
        let (own, request_readers) = (OwnConnections::default(), RequestReaders::default());
        families.introduce(&own, &request_readers);
        let discovery = Discovery::start(&config, &roots, own.clone(), request_readers.clone())?;
        let gpu = Gpu::start(&config.gpu, &roots).map_err(|error| warn!(%error, "GPUs are not measured")).ok();
        let config = Arc::new(config);
        let services = Services::start(config.services.units.clone(), None);
        let probes = Probes::new(&config.models, announcing(&own));
        let state = State {
            context: Context::new(Arc::clone(&config), roots.clone()),
            config,
            roots,
            families,
            health: Health::default(),
            remote_write: Slot::default(),
            readers: Readers::default(),
            services,
            probes,
            memory: Memory::default(),
            own,
            request_readers,
            discovery,
            inventory: Inventory::default(),
            followed: None,
            alerts: Slot::default(),
            gpu,
            read_once: false,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    /// The page of everything, at each call, for those who collect by themselves.
    fn pages(self: &Arc<Self>) -> impl FnMut() -> Option<Page> + Send + 'static {
        let agent = Arc::clone(self);
        move || {
            let mut state = agent.state();
            // Whoever takes pages cannot wait: the sources that may take long begin to read, and the page has what they read
            // last, an interval ago.
            drop(state.readers.refresh(None, &state.context, Duration::ZERO));
            Some(state.page(None))
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn page(&mut self, section: Option<Section>) -> Page {
        if let Some(net) = &mut self.families.net {
            net.refresh_older_connections();
        }
        let discovered = self.follow();
        let mut origin = Origin {
            config: &self.config,
            roots: &self.roots,
            inventory: &self.inventory,
            discovered: &discovered,
            alerts: &self.alerts,
            families: &mut self.families,
            remote_write: &self.remote_write,
            gpu: self.gpu.as_ref(),
            readers: &self.readers,
            services: Some(&self.services),
            probes: Some(&self.probes),
            memory: &mut self.memory,
        };
        let page = sources::collect(section, &mut origin, &mut self.health);
        self.read_once = true;
        page
    }

    /// Takes orders from the command line, for as long as what this gives is held.
    fn take_orders(&self) -> Option<Control> {
        let gpu = self.gpu.as_ref()?.handle();
        let path = &self.config.local.control_socket;
        let refused =
            |error| warn!(%error, path = %path.display(), "no control socket, so `citadel-agent gpu` cannot be used");
        control::serve(path, Arc::new(gpu)).map_err(refused).ok()
    }

    /// Takes what cannot fail of a configuration.
    fn configure(&mut self, config: Config) {
        if let Some(gpu) = &mut self.gpu {
            gpu.configure(&config.gpu);
        }
        self.config = Arc::new(config);
        self.context.config = Arc::clone(&self.config);
        self.services.set_patterns(&self.config.services.units);
        self.probes.set_config(&self.config.models);
    }

    /// Takes what discovery found: into the inventory, and, once for each time that it looked, to
    /// whoever goes by it on its own.
    fn follow(&mut self) -> Arc<Discovered> {
        let discovered = self.discovery.newest();
        self.inventory = Inventory::of(&self.config.models, &discovered.servers);
        if !self.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, &discovered)) {
            self.families.follow(&self.inventory);
            if let Some(gpu) = &mut self.gpu {
                gpu.know(&self.inventory);
            }
            self.services.set_models(self.inventory.models.iter().filter_map(|model| model.unit.as_deref()));
            self.probes.set_ports(&self.inventory.models.iter().map(|model| model.port).collect());
            self.followed = Some(Arc::clone(&discovered));
        }
        discovered
    }

    fn tick(&mut self) {
        self.follow();
        self.families.sweep();
    }

    /// Does what can fail of a reload, without changing what runs.
    fn prepare(&self, config: &Config) -> Result<Prepared, ProbeError> {
        let ports = config.models.measured_ports();
        if config.ebpf == self.config.ebpf {
            self.families.can_measure(&ports)?;
            return Ok(Prepared::Measure(ports));
        }
        let families = Families::attach(config, &self.roots);
        if let Some(broken) = families.broken()
            && self.families.broken().is_none()
        {
            return Err(ProbeError::Family { family: broken.family, reason: broken.reason.clone() });
        }
        Ok(Prepared::Replace(Box::new(families)))
    }

    fn commit(&mut self, prepared: Prepared) -> Result<(), ProbeError> {
        match prepared {
            Prepared::Measure(ports) => {
                let old = self.config.models.measured_ports();
                if let Err(error) = self.families.measure(&ports) {
                    self.families.measure(&old)?;
                    return Err(error);
                }
            }
            Prepared::Replace(families) => {
                self.families = *families;
                self.followed = None;
                self.families.introduce(&self.own, &self.request_readers);
            }
        }
        Ok(())
    }
}

impl App for Agent {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    fn refresh(&self, section: Option<Section>, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let state = self.state();
        Box::pin(state.readers.refresh(section, &state.context, within))
    }

    fn collect(&self, section: Option<Section>) -> Result<Page, CollectError> {
        Ok(self.state().page(section))
    }

    fn status(&self) -> serde_json::Value {
        let state = self.state();
        let statuses = state.families.statuses.iter();
        let families: serde_json::Map<_, _> =
            statuses.map(|status| (status.family.to_owned(), serde_json::json!(status))).collect();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("CITADEL_COMMIT"),
            "families": families,
            "events_lost": state.families.lost(),
            "remote_write": state.remote_write.newest().map(|newest| serde_json::json!(*newest.value)),
            "alerts": state.alerts.newest().map(|newest| serde_json::json!(*newest.value)),
            "gpu": state.gpu.as_ref().map(Gpu::status),
            "models": state.inventory.models.iter().map(|model| (model.port.to_string(), model.name.as_str()))
                .collect::<std::collections::BTreeMap<_, _>>(),
        })
    }

    fn ready(&self) -> Result<(), String> {
        if self.state().read_once { Ok(()) } else { Err("the first read is not done".to_owned()) }
    }
}

/// Announces the probes' connections, so that no program measures them.
fn announcing(own: &OwnConnections) -> Announce {
    let own = own.clone();
    Arc::new(move |client, server| Ok(Box::new(own.announce(client, server)?)))
}
