//! Whether models answer: each configured path of each known port is asked on its interval, and a model's own metrics are passed
//! on where that is wanted.
//!
//! One task a port asks its paths one after the other, because a model server answers with a single thread, and leaves what it
//! heard where scrapes find it.

mod client;
mod probe;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::{info, warn};

pub use client::Announce;
use client::{Body, MAX_SHARED, Want};
use probe::{Answer, Verdict};

use super::{Origin, Outcome, Reading};
use crate::config::resolved::Models;
use crate::metrics::catalogue::models::{
    MODEL_UP, PROBE_DURATION, PROBE_STATUS_CODE, PROBE_SUCCESS, RELAY_SUCCESS, SERVED_MODEL,
};
use crate::metrics::family::{Page, Value};
use crate::metrics::foreign::{self, Families};

/// A model's metrics page, and what is taken of it.
const RELAY_PATH: &str = "/metrics";
const RELAY_LIMITS: foreign::Limits = foreign::Limits { samples: 10_000, labels: 32, text: 4096, memory: 4 << 20 };

/// Memory of all pages that are passed on together; a page of vLLM takes half a megabyte.
const MAX_RELAYED: usize = 16 << 20;

/// What the probes are to do.
#[derive(Clone, PartialEq, Debug)]
struct Settings {
    paths: Vec<String>,
    interval: Duration,
    timeout: Duration,
    relay: bool,
}

impl From<&Models> for Settings {
    fn from(models: &Models) -> Self {
        Self {
            paths: models.health_endpoints.clone(),
            interval: models.health_interval,
            timeout: models.health_timeout,
            relay: models.relay,
        }
    }
}

/// The probes of all ports; they end when this is dropped.
pub struct Probes {
    settings: Settings,
    announce: Announce,
    heard: Arc<Mutex<BTreeMap<u16, Heard>>>,
    /// The bytes that all answers under way share.
    shared: Arc<Semaphore>,
    tasks: BTreeMap<u16, AbortHandle>,
}

/// What a port's probes have heard.
#[derive(Default)]
struct Heard {
    /// By path.
    answers: BTreeMap<String, Answer>,
    served_model: Option<String>,
    /// The model's own metrics, or that they cannot be passed on; `None`: that is not wanted, or was not tried yet.
    relayed: Option<Result<Relayed, ()>>,
}

/// A page to pass on.
#[derive(Default)]
struct Relayed {
    families: Families,
    /// What it takes, see [`foreign::memory`].
    memory: usize,
}

impl Probes {
    /// Probes as the configuration says; nothing before [`Probes::set_ports`]. `announce` is told of each connection before it is
    /// made, so that the kernel's programs leave it out.
    #[must_use]
    pub fn new(models: &Models, announce: Announce) -> Self {
        let shared = Arc::new(Semaphore::new(MAX_SHARED));
        Self { settings: models.into(), announce, heard: Arc::default(), shared, tasks: BTreeMap::new() }
    }

    /// Probes as this configuration says from now on.
    pub fn set_config(&mut self, models: &Models) {
        let settings = models.into();
        if self.settings != settings {
            let ports: BTreeSet<u16> = self.tasks.keys().copied().collect();
            self.set_ports(&BTreeSet::new());
            self.settings = settings;
            self.set_ports(&ports);
        }
    }

    /// Probes these ports from now on, and forgets what it heard of others.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_ports(&mut self, ports: &BTreeSet<u16>) {
        self.tasks.retain(|port, task| {
            let keep = ports.contains(port);
            if !keep {
                task.abort();
            }
            keep
        });
        lock(&self.heard).retain(|port, _| ports.contains(port));
        for &port in ports {
            if !self.tasks.contains_key(&port) && !self.settings.paths.is_empty() {
                let (settings, heard) = (self.settings.clone(), Arc::clone(&self.heard));
                let (announce, shared) = (Arc::clone(&self.announce), Arc::clone(&self.shared));
                let task = tokio::spawn(probe_port(port, settings, announce, shared, heard));
                self.tasks.insert(port, task.abort_handle());
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

fn lock(heard: &Mutex<BTreeMap<u16, Heard>>) -> MutexGuard<'_, BTreeMap<u16, Heard>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random part of one, below one.
fn random() -> f64 {
    // The standard library's hashers are keyed anew each time, which is all the randomness that is needed here.
    RandomState::new().hash_one(0) as f64 / (u64::MAX as f64 + 1.0)
}

/// Asks a port's paths, over and over.
async fn probe_port(
    port: u16,
    settings: Settings,
    announce: Announce,
    shared: Arc<Semaphore>,
    heard: Arc<Mutex<BTreeMap<u16, Heard>>>,
) {
    // The ports are not all asked in the same moment, nor always in the same order; but the first time soon.
    tokio::time::sleep(settings.interval.min(Duration::from_secs(1)).mul_f64(random())).await;
    let mut relay_failing = false;
    loop {
        for path in &settings.paths {
            let relayed = settings.relay && path == RELAY_PATH;
            let lists_models = path.split('?').next() == Some("/v1/models");
            let want = match (relayed, lists_models) {
                (true, _) => Want::Whole,
                (false, true) => Want::Head,
                (false, false) => Want::Nothing,
            };
            let begin = Instant::now();
            let result = client::get(port, path, want, settings.timeout, &shared, &announce).await;
            let (answer, body) = probe::judge(result, begin.elapsed());
            let page = relayed.then(|| relay(&answer, &body));
            let mut all = lock(&heard);
            let page = page.map(|page| page.and_then(|page| make_room(&mut all, port, page.memory).map(|()| page)));
            if let Some(Err(why)) = &page
                && !relay_failing
            {
                warn!(port, why, "the model's own metrics are not passed on");
            }
            if let (Some(Ok(_)), true) = (&page, relay_failing) {
                info!(port, "the model's own metrics are passed on again");
            }
            if let Some(page) = &page {
                relay_failing = page.is_err();
            }
            let own = all.entry(port).or_default();
            if lists_models {
                own.served_model = probe::served_model(&answer, &body.bytes);
            }
            if let Some(page) = page {
                own.relayed = Some(page.map_err(|_| ()));
            }
            own.answers.insert(path.clone(), answer);
        }
        tokio::time::sleep(settings.interval.mul_f64(0.9 + 0.2 * random())).await;
    }
}

/// The families of a model's metrics page.
fn relay(answer: &Answer, body: &Body) -> Result<Relayed, String> {
    match &answer.verdict {
        Verdict::Answered { truncated: true, .. } => Err(format!("it has more than {} bytes", client::MAX_BODY)),
        Verdict::Answered { .. } if body.no_room => {
            Err(format!("the models' answers have {MAX_SHARED} bytes together, and there was no room for this one"))
        }
        Verdict::Answered { status, .. } if answer.success() => {
            let text = std::str::from_utf8(&body.bytes).map_err(|_| format!("status {status}, and no text"))?;
            let families = foreign::parse(text, RELAY_LIMITS).map_err(|error| error.to_string())?;
            Ok(Relayed { memory: foreign::memory(&families), families })
        }
        Verdict::Answered { status, .. } => Err(format!("status {status}")),
        Verdict::Refused => Err("nobody listens".to_owned()),
        Verdict::Failed(why) => Err(why.clone()),
    }
}

/// Makes room for a page of `port` that takes so much: larger ones go, the largest first. Anybody may listen on a model's port, and
/// one large page must not keep many small ones out.
fn make_room(all: &mut BTreeMap<u16, Heard>, port: u16, memory: usize) -> Result<(), String> {
    let mut others: Vec<(usize, u16)> = Vec::new();
    for (&other, heard) in all.iter().filter(|(other, _)| **other != port) {
        others.extend(heard.relayed.iter().flatten().map(|relayed| (relayed.memory, other)));
    }
    let sum = |pages: &[(usize, u16)]| pages.iter().map(|(memory, _)| memory).sum::<usize>();
    others.sort_unstable();
    let larger = others.partition_point(|(other, _)| *other <= memory);
    if sum(&others[..larger]) + memory > MAX_RELAYED {
        return Err(format!(
            "the pages that are passed on have {MAX_RELAYED} bytes together, and it has no room beside the smaller ones"
        ));
    }
    while sum(&others) + memory > MAX_RELAYED
        && let Some((memory, largest)) = others.pop()
    {
        warn!(port = largest, memory, "the model's own metrics are not passed on: they gave way to smaller pages");
        if let Some(heard) = all.get_mut(&largest) {
            heard.relayed = Some(Err(()));
        }
    }
    Ok(())
}

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(probes) = origin.probes else { return Ok(Outcome::Absent) };
    let heard = lock(&probes.heard);
    for (&port, heard) in heard.iter() {
        let known = origin.inventory.model_at(port);
        // It listens in a network namespace that the agent cannot reach into: whether it is well is not known.
        let refused = heard.answers.values().all(|answer| answer.verdict == Verdict::Refused);
        if refused && known.is_some_and(|model| model.listens) {
            continue;
        }
        let model = known.map(|model| model.name.clone());
        let model = model.or_else(|| origin.config.models.ports.get(&port).cloned());
        let model = model.unwrap_or_else(|| format!("port-{port}"));
        add(page, [&model, &port.to_string()], heard);
    }
    Ok(if heard.is_empty() { Outcome::Absent } else { Outcome::Read })
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
    if let Some(up) = probe::is_up(&heard.answers) {
        page.add(&MODEL_UP, labels, Value::Integer(u64::from(up)));
    }
    if let Some(name) = &heard.served_model {
        page.add(&SERVED_MODEL, [model, port, name], Value::Integer(1));
    }
    if let Some(relayed) = &heard.relayed {
        page.add(&RELAY_SUCCESS, labels, Value::Integer(u64::from(relayed.is_ok())));
        if let Ok(relayed) = relayed {
            let mut families = relayed.families.clone();
            foreign::label(&mut families, "model", model);
            foreign::label(&mut families, "port", port);
            foreign::merge(&mut page.foreign, families);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pages_give_way_to_small_ones_and_all_stay_within_the_bound() {
        let mut all = BTreeMap::new();
        let mut keep = |port: u16, memory: usize| {
            make_room(&mut all, port, memory)?;
            all.entry(port).or_insert_with(Heard::default).relayed = Some(Ok(Relayed { memory, ..Relayed::default() }));
            let kept =
                || all.iter().filter_map(|(port, heard)| Some((*port, heard.relayed.as_ref()?.as_ref().ok()?.memory)));
            assert!(kept().map(|(_, memory)| memory).sum::<usize>() <= MAX_RELAYED);
            Ok::<_, String>(kept().map(|(port, _)| port).collect::<Vec<_>>())
        };
        for port in 1..=4 {
            keep(port, MAX_RELAYED / 4 - usize::from(port)).unwrap();
        }
        assert_eq!(keep(5, MAX_RELAYED / 8).unwrap(), [2, 3, 4, 5], "the largest was the first");
        assert!(keep(1, MAX_RELAYED / 4 - 1).unwrap_err().contains("no room beside the smaller ones"));
        assert_eq!(keep(6, MAX_RELAYED / 8).unwrap(), [2, 3, 4, 5, 6]);
        // One that is there already makes room for itself.
        assert_eq!(keep(6, 1000).unwrap(), [2, 3, 4, 5, 6]);
    }
}
