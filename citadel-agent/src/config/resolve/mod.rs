//! The marked tree -> a valid [`Config`], or all that is wrong with it. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

mod access;
mod alerts;
mod ebpf;
mod gpu;
mod host;
mod list;
mod probing;
mod remote;
mod remote_write;

pub(super) use alerts::shipped as shipped_rules;

use super::mistakes::{Mistakes, join};
use super::resolved::{Config, Endpoints, Local, Models};
use super::section::{At, Section, convert_at, entries, list};
use super::tree::Node;
use super::value;

/// Reads the whole tree; `None` when something is wrong, which is then among `mistakes`.
pub(super) fn resolve(root: Option<&Node>, mistakes: &mut Mistakes) -> Option<Config> {
    let root = Section::root(root, mistakes);
    let defaults = Config::default();

    let section = root.section("local_collection", mistakes);
    let own = OwnPorts::read(&section, &defaults.local, mistakes);
    let local = local(&section, &own, defaults.local, mistakes);
    let models = models(&root.section("model_monitoring", mistakes), &own, defaults.models, mistakes);
    let remote = remote::remote(&root.section("remote_monitoring", mistakes), mistakes);
    let remote_write =
        remote_write::remote_write(&root.section("remote_write", mistakes), defaults.remote_write, mistakes);
    let ebpf = ebpf::ebpf(&root.section("ebpf", mistakes), &defaults.ebpf, mistakes);
    let gpu = gpu::gpu(&root.section("gpu", mistakes), &defaults.gpu, mistakes);
    let alerts = alerts::alerts(&root.section("alerts", mistakes), mistakes);
    let storage = host::storage(&root.section("storage", mistakes), defaults.storage, mistakes);
    let services = host::services(&root.section("services", mistakes), defaults.services, mistakes);
    Some(Config {
        local: local?,
        models: models?,
        remote: remote?,
        remote_write: remote_write?,
        ebpf: ebpf?,
        gpu: gpu?,
        alerts: alerts?,
        storage: storage?,
        services: services?,
    })
}

/// The ports that the agent itself listens on: no model can have one.
struct OwnPorts {
    metrics: Option<At<u16>>,
    health: Option<At<u16>>,
}

impl OwnPorts {
    fn read(section: &Section<'_>, defaults: &Local, mistakes: &mut Mistakes) -> Self {
        let metrics = section.read("metrics_port", defaults.metrics_port, value::port, mistakes);
        let health = section.read("health_check_port", defaults.health_check_port, value::port, mistakes);
        if let (Some(metrics), Some(health)) = (&metrics, &health)
            && metrics.value == health.value
        {
            // The later of the two in the file is the mistake, as with everything that is given twice.
            let (name, other, at) = match metrics.pos > health.pos {
                true => ("metrics_port", "health_check_port", metrics),
                false => ("health_check_port", "metrics_port", health),
            };
            let default = if metrics.pos.is_none() || health.pos.is_none() { " (its default)" } else { "" };
            let message = format!("{} is also the {other}{default}; they must differ", at.value);
            mistakes.push(at.pos, format!("local_collection.{name}"), message);
        }
        Self { metrics, health }
    }

    /// Names and values of those that could be read.
    fn each(&self) -> impl Iterator<Item = (&'static str, &At<u16>)> {
        [("metrics_port", &self.metrics), ("health_check_port", &self.health)]
            .into_iter()
            .filter_map(|(name, at)| at.as_ref().map(|at| (name, at)))
    }
}

fn local(section: &Section<'_>, own: &OwnPorts, defaults: Local, mistakes: &mut Mistakes) -> Option<Local> {
    let listen_address = section.read("listen_address", defaults.listen_address, value::address, mistakes);
    let log_level = section.read("log_level", defaults.log_level, value::level, mistakes);
    let collection_interval =
        section.read("collection_interval", defaults.collection_interval, value::interval, mistakes);
    let control_socket = section.read("control_socket", defaults.control_socket, value::absolute_path, mistakes);
    let endpoints = endpoints(&section.section("endpoints", mistakes), defaults.endpoints, mistakes);
    Some(Local {
        listen_address: listen_address?.value,
        metrics_port: own.metrics.as_ref()?.value,
        health_check_port: own.health.as_ref()?.value,
        log_level: log_level?.value,
        collection_interval: collection_interval?.value,
        control_socket: control_socket?.value,
        endpoints: endpoints?,
    })
}

fn endpoints(section: &Section<'_>, defaults: Endpoints, mistakes: &mut Mistakes) -> Option<Endpoints> {
    let mut pages = [
        ("system_metrics", defaults.system),
        ("gpu_metrics", defaults.gpu),
        ("model_metrics", defaults.models),
        ("storage_metrics", defaults.storage),
        ("service_metrics", defaults.services),
    ]
    .map(|(name, default)| (name, section.read(name, default, value::page_path, mistakes)));

    // In the order of the file, defaults first: the later of two equal paths is the mistake.
    let mut taken = BTreeMap::from([("/metrics".to_owned(), "the page that carries all metrics".to_owned())]);
    let mut in_order: Vec<_> = pages.iter().filter_map(|(name, at)| at.as_ref().map(|at| (name, at))).collect();
    in_order.sort_by_key(|(_, at)| at.pos);
    for (name, At { value: path, pos }) in in_order {
        if let Some(owner) = taken.get(path) {
            let message = format!("\"{path}\" is taken by {owner}");
            mistakes.push(*pos, join("local_collection.endpoints", name), message);
        } else {
            let default = if pos.is_none() { " (its default)" } else { "" };
            taken.insert(path.clone(), format!("{name}{default}"));
        }
    }

    let [system, gpu, models, storage, services] = pages.each_mut().map(|(_, at)| at.take().map(|at| at.value));
    Some(Endpoints { system: system?, gpu: gpu?, models: models?, storage: storage?, services: services? })
}

fn models(section: &Section<'_>, own: &OwnPorts, defaults: Models, mistakes: &mut Mistakes) -> Option<Models> {
    let ports = match section.node("ports") {
        None => {
            default_models_have_their_ports(&defaults.ports, own, mistakes);
            Some(defaults.ports)
        }
        Some((path, node)) => model_ports(&path, node, own, mistakes),
    };
    let discover = section.read("discover", defaults.discover, value::discover, mistakes);
    if let Some(At { value: Some(range), pos }) = &discover {
        discovers_no_own_port(range, *pos, own, mistakes);
    }
    let health_endpoints = probing::endpoints(section, mistakes);
    let health_interval = section.read("health_interval", defaults.health_interval, value::interval, mistakes);
    let health_timeout = section.read("health_timeout", defaults.health_timeout, value::interval, mistakes);
    let relay = section.read("relay", defaults.relay, value::boolean, mistakes);
    let engine_metrics = section.read("engine_metrics", defaults.engine_metrics, value::boolean, mistakes);
    let ask_for_names = section.read("ask_for_names", defaults.ask_for_names, value::boolean, mistakes);
    let own = probing::own(section, mistakes);
    Some(Models {
        ports: ports?,
        discover: discover?.value,
        health_endpoints: health_endpoints?.unwrap_or(defaults.health_endpoints),
        health_interval: health_interval?.value,
        health_timeout: health_timeout?.value,
        relay: relay?.value,
        engine_metrics: engine_metrics?.value,
        ask_for_names: ask_for_names?.value,
        own: own?,
    })
}

/// The default models are not in the file, so the agent's own port is what to mend.
fn default_models_have_their_ports(ports: &BTreeMap<u16, String>, own: &OwnPorts, mistakes: &mut Mistakes) {
    for (own_name, at) in own.each() {
        if let Some(model) = ports.get(&at.value) {
            let message = format!("{} is the default port of the model {model}", at.value);
            mistakes.push(at.pos, join("local_collection", own_name), message);
        }
    }
}

/// A discovered port that is our own would measure the agent as a model.
fn discovers_no_own_port(
    range: &RangeInclusive<u16>,
    range_pos: Option<super::Pos>,
    own: &OwnPorts,
    mistakes: &mut Mistakes,
) {
    for (name, at) in own.each().filter(|(_, at)| range.contains(&at.value)) {
        let range = format!("{}-{}", range.start(), range.end());
        if range_pos > at.pos {
            let message = format!("{range} contains the agent's own {name}, {}", at.value);
            mistakes.push(range_pos, "model_monitoring.discover", message);
        } else {
            let message = format!("{} lies in model_monitoring.discover ({range})", at.value);
            mistakes.push(at.pos, format!("local_collection.{name}"), message);
        }
    }
}

fn model_ports(path: &str, node: &Node, own: &OwnPorts, mistakes: &mut Mistakes) -> Option<BTreeMap<u16, String>> {
    let what = "a mapping of model names to ports, or {} for none";
    let written = entries(path, node, what, mistakes)?;
    let mut ports: BTreeMap<u16, (String, usize)> = BTreeMap::new();
    for entry in written {
        let path = join(path, &entry.key);
        if let Err(message) = value::model_name(&entry.key) {
            mistakes.push(entry.key_pos, &path, message);
        }
        let Some(at) = convert_at(path.clone(), entry.key_pos, &entry.value, value::port, mistakes) else {
            continue;
        };
        if let Some((name, _)) = own.each().find(|(_, own)| own.value == at.value) {
            mistakes.push(at.pos, &path, format!("port {} is the agent's own {name}", at.value));
        }
        if let Some((other, line)) = ports.get(&at.value) {
            mistakes.push(at.pos, &path, format!("port {} is {other}'s already (line {line})", at.value));
        } else {
            ports.insert(at.value, (entry.key.clone(), entry.key_pos.line));
        }
    }
    Some(ports.into_iter().map(|(port, (name, _))| (port, name)).collect())
}
