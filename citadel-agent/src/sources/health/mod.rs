//! Whether models answer: paths of each known port are asked on its interval. What the answers carry besides, the engine's
//! metrics and the list of models, is kept for the sources that export it, and a model's own metrics are passed on where that is
//! wanted.
//!
//! One task a port asks its paths one after the other, because a model server answers with a single thread, and leaves what it
//! heard where scrapes find it.

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
use probe::{Answer, State, Verdict};
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

/// What the probes of one port are to do.
#[derive(Clone, PartialEq, Debug)]
struct Settings {
    /// The paths to ask; `None`: what the server answers without work.
    endpoints: Option<Vec<String>>,
    interval: Duration,
    timeout: Duration,
    access: Access,
    relay: bool,
    engine_metrics: bool,
    /// Whether the server is asked for the model's name, as nothing else gives one.
    name: bool,
}

impl Settings {
    /// Those of a model: its own, by name or else by port, and for the rest those of all.
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

    /// Whether there is anything to ask.
    fn asks(&self) -> bool {
        self.name || self.endpoints.as_ref().is_none_or(|paths| !paths.is_empty())
    }
}

/// A port that is to be probed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Probed {
    name: String,
    /// The engine by its command line.
    hint: Option<Engine>,
    /// Nothing but the server's own answer could name it.
    unnamed: bool,
}

/// The probes of all ports; they end when this is dropped.
pub struct Probes {
    models: Models,
    ports: BTreeMap<u16, Probed>,
    announce: Announce,
    /// The bytes that all answers under way share.
    shared: Arc<Semaphore>,
    heard: Arc<Shared>,
    tasks: BTreeMap<u16, (Settings, AbortHandle)>,
}

/// What all ports' probes have heard.
#[derive(Default)]
struct Shared(Mutex<BTreeMap<u16, Heard>>);

/// What a port's probes have heard.
#[derive(Default)]
struct Heard {
    /// By path.
    answers: BTreeMap<String, Answer>,
    state: Option<State>,
    /// Nobody listens, as far as the agent can reach.
    refused: bool,
    served_model: Option<String>,
    /// The name that the server has given the model, where it was asked for that; until a restarted one gives one, what the one
    /// before gave.
    name: Option<String>,
    hint: Option<Engine>,
    engine: Known,
    /// The model's own metrics, or that they cannot be passed on; `None`: that is not wanted, or was not tried yet.
    relayed: Option<Result<Relayed, ()>>,
}

impl Heard {
    /// Forgets what another server on the port has shown, but not how its last probe went: that is asked again at once.
    fn forget(&mut self, hint: Option<Engine>) {
        (self.served_model, self.relayed) = (None, None);
        self.engine = Known { engine: hint, ..Known::default() };
    }

    /// Says how the model is, by the answers so far; `chosen`: by paths that the agent chose itself.
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
    /// Probes as the configuration says; none before [`Probes::set_models`]. `announce` is called before each connection is made, so
    /// that the kernel's programs leave it out.
    #[must_use]
    pub fn new(models: &Models, announce: Announce) -> Self {
        let (models, ports, tasks) = (models.clone(), BTreeMap::new(), BTreeMap::new());
        let shared = Arc::new(Semaphore::new(MAX_SHARED));
        Self { models, ports, announce, shared, heard: Arc::default(), tasks }
    }

    /// Probes as this configuration says from now on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_config(&mut self, models: &Models) {
        if self.models != *models {
            self.models = models.clone();
            self.follow();
        }
    }

    /// Probes these models from now on, and forgets what it heard of others.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_models(&mut self, inventory: &Inventory) {
        // A connection would start what systemd holds the socket for.
        let probed = inventory.models.iter().filter(|model| !model.dormant).map(|model| {
            let (name, hint, unnamed) = (model.name.clone(), model.engine, model.unnamed);
            (model.port, Probed { name, hint, unnamed })
        });
        self.ports = probed.collect();
        self.follow();
    }

    /// Probes ports of which nothing else is known.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_ports(&mut self, ports: &BTreeSet<u16>) {
        let probed = |port| Probed { name: format!("port-{port}"), hint: None, unnamed: false };
        let probed = ports.iter().map(|&port| (port, probed(port)));
        self.ports = probed.collect();
        self.follow();
    }

    /// Starts and ends tasks, so that there is one with the right settings for each port.
    fn follow(&mut self) {
        let wanted: BTreeMap<u16, Settings> = (self.ports.iter())
            .map(|(&port, probed)| (port, Settings::of(&self.models, probed, port)))
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
                // With other settings all is asked again. The name stays meanwhile: settings may be found by it.
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

    /// What the server on a port says that it serves.
    #[must_use]
    pub fn served_model(&self, port: u16) -> Option<String> {
        self.heard.lock().get(&port)?.served_model.clone()
    }

    /// The name that the server on a port has given its model, where nothing else names it.
    #[must_use]
    pub fn name(&self, port: u16) -> Option<String> {
        self.heard.lock().get(&port)?.name.clone()
    }

    /// What is known of each port's engine, with the labels of its model.
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

/// A random part of one, below one.
fn random() -> f64 {
    // The standard library's hashers have new keys each time, which is all the randomness that is needed here.
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
        // It listens in a network namespace that the agent cannot reach into: whether it is well is not known.
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
        // Of one that wants a key it is not known, so that there is no 0 and no 1.
        if state != State::Unauthorised {
            page.add(&MODEL_UP, labels, Value::Integer(u64::from(state == State::Up)));
        }
        for (other, name) in State::NAMES {
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
