//! Health probes: requests paths of each known port at its interval. Other content of the responses, engine metrics and
//! the list of models, is kept for the sources that export it, and a model's own metrics are relayed if configured.
//!
//! One task per port requests its paths one after the other, because some model servers respond with a single thread,
//! and stores the results for scrapes.

mod client;
mod plan;
mod probe;
mod relay;
mod task;
mod tls;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

pub use client::Announce;
use client::MAX_SHARED;
use plan::Ask;
use probe::{HealthState, ProbeAnswer, Verdict};
use relay::Relayed;

use super::engine::Known;
use super::{Origin, Outcome, Reading};
use crate::config::resolved::Models;
use crate::config::resolved::probing::{Access, HealthEndpoints};
use crate::discovery::engine::Engine;
use crate::discovery::inventory::Inventory;
use crate::metrics::catalogue::models::{
    MODEL_STATE, MODEL_UP, PROBE_DURATION, PROBE_STATUS_CODE, PROBE_SUCCESS, RELAY_DROPPED, RELAY_SUCCESS, SERVED_MODEL,
};
use crate::metrics::family::{Page, Value};
use crate::metrics::foreign;

/// Settings of the probes of a port.
#[derive(Clone, PartialEq, Debug)]
struct ProbeSettings {
    /// The configured paths; `None`: those that cost the server no work.
    endpoints: Option<Vec<String>>,
    interval: Duration,
    timeout: Duration,
    access: Access,
    relay: bool,
    engine_metrics: bool,
    /// Whether to ask the server for the model's name, because it is otherwise unknown.
    name: bool,
}

impl ProbeSettings {
    /// The settings of a model: its own, by name or else by port, completed by those for all models.
    fn of(models: &Models, probed: &Probed, port: u16) -> Self {
        let own =
            models.own.get(&probed.name).or_else(|| models.own.get(&port.to_string())).cloned().unwrap_or_default();
        let endpoints = match own.health_endpoints.unwrap_or_else(|| models.health_endpoints.clone()) {
            HealthEndpoints::Auto => None,
            HealthEndpoints::Listed(paths) => Some(paths),
        };
        Self {
            endpoints,
            interval: own.health_interval.unwrap_or(models.health_interval),
            timeout: own.health_timeout.unwrap_or(models.health_timeout),
            access: own.access,
            relay: models.relay,
            engine_metrics: models.engine_metrics,
            name: models.ask_for_names && probed.unnamed,
        }
    }

    /// Whether there is anything to request.
    fn asks(&self) -> bool {
        self.name || self.endpoints.as_ref().is_none_or(|paths| !paths.is_empty())
    }
}

/// A port to probe.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Probed {
    name: String,
    /// The engine, identified by its command line.
    hint: Option<Engine>,
    /// Only the server's own answer could name it.
    unnamed: bool,
}

/// The probes of all ports; dropping this stops them.
pub struct Probes {
    models: Models,
    ports: BTreeMap<u16, Probed>,
    announce: Announce,
    /// The shared size limit of all responses in progress.
    shared: Arc<Semaphore>,
    heard: Arc<Shared>,
    tasks: BTreeMap<u16, (ProbeSettings, AbortHandle)>,
}

/// Results of the probes of all ports.
#[derive(Default)]
struct Shared(Mutex<BTreeMap<u16, Heard>>);

/// Results of the probes of a port.
#[derive(Default)]
struct Heard {
    /// By path.
    answers: BTreeMap<String, ProbeAnswer>,
    state: Option<HealthState>,
    /// No process is listening, as far as the agent can connect.
    refused: bool,
    served_model: Option<String>,
    /// The model name returned by the server, if asked; kept until a restarted server returns one.
    name: Option<String>,
    hint: Option<Engine>,
    engine: Known,
    /// The model's own metrics, or that relaying failed; `None`: not configured, or not tried yet.
    relayed: Option<Result<Relayed, ()>>,
}

impl Heard {
    /// Forgets what a previous server on the port has shown, except the result of its last probe, which is repeated
    /// immediately.
    fn forget(&mut self, hint: Option<Engine>) {
        (self.served_model, self.relayed) = (None, None);
        self.engine = Known { engine: hint, ..Known::default() };
    }

    /// Updates the model's state from the results so far; `chosen`: with paths chosen by the agent.
    fn judge(&mut self, asks: &[Ask], chosen: bool) {
        self.state = probe::state(asks, &self.answers, chosen);
        self.refused = !self.answers.is_empty() && self.answers.values().all(|it| it.verdict == Verdict::Refused);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probes {
    /// Probes according to the configuration; none before [`Probes::set_models`]. `announce` is called before each
    /// connection is opened, so that the kernel programs ignore it.
    #[must_use]
    pub fn new(models: &Models, announce: Announce) -> Self {
        let (models, ports, tasks) = (models.clone(), BTreeMap::new(), BTreeMap::new());
        let shared = Arc::new(Semaphore::new(MAX_SHARED));
        Self { models, ports, announce, shared, heard: Arc::default(), tasks }
    }

    /// Applies another configuration.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_config(&mut self, models: &Models) {
        if self.models != *models {
            self.models = models.clone();
            self.follow();
        }
    }

    /// Sets the models to probe, and forgets the results of others.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_models(&mut self, inventory: &Inventory) {
        // A connection would start the service for which systemd holds the socket.
        let probed = inventory.models.iter().filter(|model| !model.dormant).map(|model| {
            let (name, hint, unnamed) = (model.name.clone(), model.engine, model.unnamed);
            (model.port, Probed { name, hint, unnamed })
        });
        self.ports = probed.collect();
        self.follow();
    }

    /// Probes ports without further information about them.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_ports(&mut self, ports: &BTreeSet<u16>) {
        let probed = |port| Probed { name: format!("port-{port}"), hint: None, unnamed: false };
        let probed = ports.iter().map(|&port| (port, probed(port)));
        self.ports = probed.collect();
        self.follow();
    }

    /// Starts and stops tasks, so that there is one with the current settings for each port.
    fn follow(&mut self) {
        let wanted: BTreeMap<u16, ProbeSettings> = (self.ports.iter())
            .map(|(&port, probed)| (port, ProbeSettings::of(&self.models, probed, port)))
            .filter(|(_, settings)| settings.asks())
            .collect();
        self.tasks.retain(|port, (settings, task)| {
            let keep = wanted.get(port) == Some(settings);
            if !keep {
                task.abort();
            }
            keep
        });
        let mut heard = self.heard.lock();
        heard.retain(|port, own| {
            if !self.tasks.contains_key(port) {
                // With other settings everything is requested again. The name is kept meanwhile, because settings may
                // be found by it.
                *own = Heard { name: own.name.take(), ..Heard::default() };
            }
            wanted.contains_key(port)
        });
        for (port, settings) in wanted {
            heard.entry(port).or_default().hint = self.ports.get(&port).and_then(|probed| probed.hint);
            if !self.tasks.contains_key(&port) {
                let (announce, shared) = (Arc::clone(&self.announce), Arc::clone(&self.shared));
                let task = task::probe_port(port, settings.clone(), announce, shared, Arc::clone(&self.heard));
                self.tasks.insert(port, (settings, tokio::spawn(task).abort_handle()));
            }
        }
    }

    /// The model name reported by the server on a port.
    #[must_use]
    pub fn served_model(&self, port: u16) -> Option<String> {
        self.heard.lock().get(&port)?.served_model.clone()
    }

    /// The model name returned by the server on a port, if nothing else names it.
    #[must_use]
    pub fn name(&self, port: u16) -> Option<String> {
        self.heard.lock().get(&port)?.name.clone()
    }

    /// What is known about each port's engine, with the labels of its model.
    pub(super) fn each_engine(&self, origin: &Origin<'_>, mut take: impl FnMut(&str, &str, &Known)) {
        for (&port, heard) in self.heard.lock().iter() {
            if heard.engine.engine.is_some() || heard.engine.page.is_some() {
                take(&model_name(origin, port), &port.to_string(), &heard.engine);
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

/// A random number from 0 to below 1.
fn random() -> f64 {
    // The standard library's hashers have new keys each time, which is random enough here.
    RandomState::new().hash_one(0) as f64 / (u64::MAX as f64 + 1.0)
}

fn model_name(origin: &Origin<'_>, port: u16) -> String {
    let known = origin.inventory.model_at(port).map(|model| model.name.clone());
    let known = known.or_else(|| origin.config.models.ports.get(&port).cloned());
    known.unwrap_or_else(|| format!("port-{port}"))
}

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(probes) = origin.probes else { return Ok(Outcome::Absent) };
    let heard = probes.heard.lock();
    let mut any = false;
    for (&port, heard) in heard.iter().filter(|(_, heard)| !heard.answers.is_empty()) {
        any = true;
        // It listens in a network namespace that the agent cannot access, so its health is unknown.
        if heard.refused && origin.inventory.model_at(port).is_some_and(|model| model.listens) {
            continue;
        }
        add(page, [&model_name(origin, port), &port.to_string()], heard);
    }
    Ok(if any { Outcome::Read } else { Outcome::Absent })
}

fn add(page: &mut Page, labels: [&str; 2], heard: &Heard) {
    let [model, port] = labels;
    for (path, answer) in &heard.answers {
        let labels = [model, port, path];
        page.add(&PROBE_SUCCESS, labels, Value::Integer(u64::from(answer.success())));
        page.add(&PROBE_DURATION, labels, Value::Float(answer.took.as_secs_f64()));
        if let Verdict::Answered { status, .. } = answer.verdict {
            page.add(&PROBE_STATUS_CODE, labels, Value::Integer(status.into()));
        }
    }
    if let Some(state) = heard.state {
        // If it requires a key, the state is unknown: neither 0 nor 1.
        if state != HealthState::Unauthorised {
            page.add(&MODEL_UP, labels, Value::Integer(u64::from(state == HealthState::Up)));
        }
        for (other, name) in HealthState::NAMES {
            page.add(&MODEL_STATE, [model, port, name], Value::Integer(u64::from(state == other)));
        }
    }
    if let Some(name) = &heard.served_model {
        page.add(&SERVED_MODEL, [model, port, name], Value::Integer(1));
    }
    if let Some(relayed) = &heard.relayed {
        page.add(&RELAY_SUCCESS, labels, Value::Integer(u64::from(relayed.is_ok())));
        if let Ok(relayed) = relayed {
            for (reason, count) in relayed.dropped_by_reason() {
                page.add(&RELAY_DROPPED, [model, port, reason], Value::Integer(count));
            }
            let mut families = relayed.families.clone();
            foreign::label(&mut families, "model", model);
            foreign::label(&mut families, "port", port);
            foreign::merge(&mut page.foreign, families);
        }
    }
}
