//! The state of the running agent, and reading a page from it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tracing::warn;

use super::Examined;
use crate::collector::Collect;
use crate::config::Config;
use crate::config::watch::Loaded;
use crate::discovery::inventory::Inventory;
use crate::discovery::watch::{Discovered, Discovery};
use crate::ebpf::error::ProbeError;
use crate::ebpf::families::{Families, Update};
use crate::ebpf::handover::Handover;
use crate::ebpf::own::OwnConnections;
use crate::ebpf::readers::RequestReaders;
use crate::ebpf::status::Verdict;
use crate::gpu::Gpu;
use crate::history::History;
use crate::host::Roots;
use crate::http::{self, App, CollectError};
use crate::logs::known::Known;
use crate::metrics::catalogue::Section;
use crate::metrics::family::Page;
use crate::remote_write;
use crate::slot::Slot;
use crate::sources::background::{Context, Readers};
use crate::sources::health::{Announce, Probes};
use crate::sources::services::Services;
use crate::sources::{self, CarryOver, Health, Origin};
use crate::trace::{ModelRequests, Tracer};

/// The running agent, as seen by the listeners.
pub(super) struct Agent {
    state: Mutex<AgentState>,
}

/// Everything that a reading or a reload changes. The lock is never held across an await.
pub(super) struct AgentState {
    config: Arc<Config>,
    loaded: Loaded,
    roots: Roots,
    families: Families,
    health: Health,
    pub(super) remote_write: Slot<Vec<remote_write::Numbers>>,
    pub(super) logs: Slot<crate::logs::numbers::Numbers>,
    pub(super) known: Known,
    readers: Readers,
    context: Context,
    services: Services,
    probes: Probes,
    carry_over: CarryOver,
    /// The agent's own connections to models.
    own: OwnConnections,
    /// The processes that read the models' requests.
    request_readers: RequestReaders,
    /// Single requests.
    pub(super) tracer: Tracer,
    pub(super) discovery: Discovery,
    inventory: Inventory,
    /// The discovery result last passed to the kernel programs.
    followed: Option<Arc<Discovered>>,
    pub(super) alerts: Slot<crate::alerts::Numbers>,
    pub(super) http_dropped: Arc<http::Dropped>,
    /// The last day; fed by a task of its own.
    pub(super) history: History,
    gpu: Option<Gpu>,
    read_once: bool,
}

impl Agent {
    pub(super) fn start(config: Config, history: History, handover: Handover) -> io::Result<Self> {
        let roots = Roots::default();
        let mut families = Families::attach(&config, &roots, handover);
        let (own, request_readers) = (OwnConnections::default(), RequestReaders::default());
        let tracer = Tracer::start(config.ebpf.client_addresses)?;
        families.introduce(&own, &request_readers, tracer.records());
        let discovery = Discovery::start(&config, &roots, request_readers.clone())?;
        let gpu = Gpu::start(&config.gpu, &roots).map_err(|error| warn!(%error, "GPUs are not monitored")).ok();
        let config = Arc::new(config);
        let services = Services::start(config.services.units.clone(), None);
        let probes = Probes::new(&config.models, announcing(&own));
        let state = AgentState {
            context: Context::new(Arc::clone(&config), roots.clone()),
            config,
            loaded: Loaded::now(),
            roots,
            families,
            health: Health::default(),
            remote_write: Slot::default(),
            logs: Slot::default(),
            known: Known::default(),
            readers: Readers::default(),
            services,
            probes,
            carry_over: CarryOver::new(history.clone()),
            own,
            request_readers,
            tracer,
            discovery,
            inventory: Inventory::default(),
            followed: None,
            alerts: Slot::default(),
            http_dropped: Arc::default(),
            history,
            gpu,
            read_once: false,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, AgentState> {
        // The state is consistent between statements, so a panic elsewhere does not corrupt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentState {
    /// Reads the page for a scrape.
    pub(super) fn page(&mut self, section: Option<Section>) -> Page {
        let readers = self.readers.clone();
        self.page_from(section, &readers)
    }

    fn page_from(&mut self, section: Option<Section>, readers: &Readers) -> Page {
        if let Some(net) = &mut self.families.net {
            net.refresh_older_connections();
        }
        let discovered = self.follow();
        let mut origin = Origin {
            config: &self.config,
            loaded: self.loaded,
            roots: &self.roots,
            inventory: &self.inventory,
            discovered: &discovered,
            alerts: &self.alerts,
            http_dropped: &self.http_dropped,
            families: &mut self.families,
            logs: &self.logs,
            remote_write: &self.remote_write,
            gpu: self.gpu.as_ref(),
            readers,
            services: Some(&self.services),
            probes: Some(&self.probes),
            carry_over: &mut self.carry_over,
        };
        let page = sources::collect(section, &mut origin, &mut self.health);
        self.read_once = true;
        page
    }

    /// What control requests are passed to: the GPUs, and the records of single requests.
    pub(super) fn asked(&self) -> (Option<crate::gpu::Handle>, Tracer) {
        (self.gpu.as_ref().map(Gpu::handle), self.tracer.clone())
    }

    /// The results together with the page that was just read.
    pub(super) fn examined(&self, page: Page) -> Examined {
        Examined {
            page,
            families: self.families.statuses.clone(),
            gpu: self.gpu.as_ref().map_or(serde_json::Value::Null, Gpu::status),
            models: self.inventory.models.clone(),
        }
    }

    /// A one-line summary of what is measured and what is not.
    pub(super) fn summary(&self) -> String {
        let with = |wanted: &[Verdict]| {
            let families = self.families.statuses.iter().filter(|status| wanted.contains(&status.status));
            families.map(|status| status.family).collect::<Vec<_>>().join(", ")
        };
        let models = self.inventory.models.len();
        let (runs, lacks) = (with(&[Verdict::Ok]), with(&[Verdict::Unsupported, Verdict::Broken]));
        let runs = if runs.is_empty() { "none".to_owned() } else { runs };
        let lacks =
            if lacks.is_empty() { String::new() } else { format!("; not measured: {lacks} (see citadel-agent check)") };
        format!("{models} models; probes: {runs}{lacks}")
    }

    /// Notes that a later configuration was refused.
    pub(super) fn refused(&mut self) {
        self.loaded.later_refused = true;
    }

    /// Applies the parts of a configuration that cannot fail.
    pub(super) fn configure(&mut self, config: Config) {
        if let Some(gpu) = &mut self.gpu {
            gpu.configure(&config.gpu);
        }
        self.tracer.show_addresses(config.ebpf.client_addresses);
        self.config = Arc::new(config);
        self.loaded = Loaded::now();
        self.context.config = Arc::clone(&self.config);
        self.services.set_patterns(&self.config.services.units);
        self.probes.set_config(&self.config.models);
    }

    /// Passes the newest discovery result and names on: to the inventory, and if something has changed, to the kernel
    /// programs, the GPU sampler, the followed units and the probes.
    pub(super) fn follow(&mut self) -> Arc<Discovered> {
        let discovered = self.discovery.newest();
        let inventory = Inventory::of(&self.config.models, &discovered.servers, |port| self.probes.name(port));
        let changed = inventory != self.inventory;
        self.inventory = inventory;
        if changed || !self.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, &discovered)) {
            self.families.follow(&self.inventory);
            if let Some(gpu) = &mut self.gpu {
                gpu.know(&self.inventory);
            }
            self.services.set_models(self.inventory.models.iter().filter_map(|model| model.unit.as_deref()));
            self.known.learn(&self.inventory);
            self.tracer.know(self.inventory.models.iter().map(|model| (model.port, model.name.to_string())));
            self.probes.set_models(&self.inventory);
            self.followed = Some(Arc::clone(&discovered));
        }
        if let Some(gpu) = self.gpu.as_ref().filter(|_| self.config.logs.enabled)
            && let Some(sample) = gpu.view().pass()
        {
            self.known.learn_gpus(sample, &gpu.owners());
        }
        discovered
    }

    /// Does the parts of a reload that can fail, without changing what is running.
    pub(super) fn prepare(&self, config: &Config) -> Result<Update, ProbeError> {
        self.families.prepare(&self.config, config, &self.roots)
    }

    pub(super) fn commit(&mut self, update: Update) -> Result<(), ProbeError> {
        if self.families.commit(update, &self.config.models.measured_ports(), &self.roots)? {
            // New components need everything again.
            self.followed = None;
            self.families.introduce(&self.own, &self.request_readers, self.tracer.records());
        }
        Ok(())
    }
}

impl Collect for Agent {
    fn refresh(&self, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let refreshed = App::refresh(self, None, within);
        Box::pin(async move { _ = refreshed.await })
    }

    fn collect(&self) -> Page {
        let mut state = self.state();
        let readers = state.readers.steady();
        state.page_from(None, &readers)
    }
}

impl App for Agent {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    fn refresh(&self, section: Option<Section>, within: Duration) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        let state = self.state();
        Box::pin(state.readers.refresh(section, &state.context, within))
    }

    fn collect(&self, section: Option<Section>) -> Result<Page, CollectError> {
        Ok(self.state().page(section))
    }

    fn history(&self) -> History {
        self.state().history.clone()
    }

    fn requests(&self) -> Vec<ModelRequests> {
        let tracer = self.state().tracer.clone();
        tracer.for_the_page()
    }

    fn active_alerts(&self) -> serde_json::Value {
        self.state().alerts.newest().map_or_else(|| json!([]), |newest| json!(newest.value.active))
    }

    fn status(&self) -> serde_json::Value {
        let state = self.state();
        let statuses = state.families.statuses.iter();
        let families: serde_json::Map<_, _> =
            statuses.map(|status| (status.family.to_owned(), json!(status))).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("CITADEL_COMMIT"),
            "families": families,
            "events_lost": state.families.lost(),
            "remote_write": state.remote_write.newest().map(|newest| json!(*newest.value)),
            "logs": state.logs.newest().map(|newest| json!(newest.value.destinations)),
            "alerts": state.alerts.newest().map(|newest| json!(*newest.value)),
            "gpu": state.gpu.as_ref().map(Gpu::status),
            // Ports with connections whose requests the programs cannot parse: docs/tls.md.
            "encrypted": sources::processes::unread(&state.inventory, &state.families),
            "models": state.inventory.models.iter().map(|model| (model.port.to_string(), model.name.as_str()))
                .collect::<std::collections::BTreeMap<_, _>>(),
        })
    }

    fn ready(&self) -> Result<(), String> {
        if self.state().read_once { Ok(()) } else { Err("the first read of the sources is not complete".to_owned()) }
    }
}

/// Announces the probes' connections, so that the programs do not measure them.
fn announcing(own: &OwnConnections) -> Announce {
    let own = own.clone();
    Arc::new(move |client, server| Ok(Box::new(own.announce(client, server)?)))
}
