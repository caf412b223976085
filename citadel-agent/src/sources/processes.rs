//! The models' processes: identity and resource usage.

use std::collections::BTreeMap;

use citadel_agent_common::abi::{Protocol, counter};

use super::models::PROTOCOLS;
use super::{Origin, Outcome, Reading};
use crate::clock::wall_ms;
use crate::discovery::inventory::{Inventory, Model};
use crate::discovery::usage::Usage;
use crate::ebpf::families::Families;
use crate::metrics::catalogue::models::{
    BUSIEST_PROCESS, CPU, CPU_THROTTLED, GONE, INFO, MAJOR_FAULTS, MEMORY, STOPPED_ON_REQUEST,
};
use crate::metrics::family::{Page, Value};
use crate::printable::escaped;

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    for model in origin.inventory.in_page_order() {
        let port = model.port.to_string();
        let labels = [model.name.as_str(), &port];
        if model.listens {
            // The server's own answer takes precedence over its command line.
            let served =
                origin.probes.and_then(|probes| probes.served_model(model.port)).or_else(|| model.served.clone());
            add_info(page, labels, model, &served.unwrap_or_default(), protocol(origin.families, model.port));
        }
        if let Some(usage) = origin.discovered.usage.get(&model.port) {
            add_usage(page, labels, usage);
        }
    }
    for busy in &origin.discovered.busiest {
        page.add(&BUSIEST_PROCESS, [&busy.command, &busy.pid.to_string()], Value::Float(busy.cpus));
    }
    add_gone(origin, page);
    Ok(Outcome::Read)
}

/// Which models have listened and do no longer.
fn add_gone(origin: &mut Origin<'_>, page: &mut Page) {
    let mut known = origin.carry_over.history.listened();
    for model in &origin.inventory.models {
        if model.listens {
            known.insert(model.port, model.name.as_str().into());
            if let Some(unit) = &model.unit {
                origin.carry_over.units.insert(model.port, unit.clone());
            }
        } else if let Some(name) = known.get_mut(&model.port) {
            *name = model.name.as_str().into();
        }
    }
    let units = &mut origin.carry_over.units;
    units.retain(|port, _| known.contains_key(port));
    let services = origin.services;
    let now = wall_ms() as f64 * 1e-3;
    let on_request = |port| {
        units.get(port).is_some_and(|unit| services.is_some_and(|services| services.is_stopped_on_request(unit, now)))
    };
    let stopped = |port| units.get(port).is_some_and(|unit| services.is_some_and(|services| services.is_stopped(unit)));
    for (port, name) in &known {
        let listens = origin.inventory.model_at(*port).is_some_and(|model| model.listens || model.dormant);
        let gone = !listens && !stopped(port);
        let labels = [name.as_str(), &port.to_string()];
        page.add(&GONE, labels, Value::Integer(gone.into()));
        page.add(&STOPPED_ON_REQUEST, labels, Value::Integer(on_request(port).into()));
    }
}

fn add_info(page: &mut Page, [model, port]: [&str; 2], of: &Model, served: &str, protocol: Option<&str>) {
    let pid = of.main.map(|pid| pid.to_string()).unwrap_or_default();
    let exe = of.exe.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let unit = of.unit.as_deref().unwrap_or_default();
    // Users control the names of files and cgroups.
    let (exe, unit) = (escaped(&exe), escaped(unit));
    page.add(&INFO, [model, port, &unit, &pid, &exe, served, protocol.unwrap_or_default()], Value::Integer(1));
}

/// Ports with TLS or HTTP/2 connections, whose requests and latency are not measured, with their number.
#[must_use]
pub fn unread(inventory: &Inventory, families: &Families) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
    let of_port = |port: u16| {
        let stats = families.net.as_ref()?.model(families.slots.get(port)?)?;
        let counts = PROTOCOLS.iter().filter(|(protocol, _)| matches!(protocol, Protocol::Tls | Protocol::Http2));
        let counts = counts.map(|(protocol, name)| (*name, stats.counter(counter::PROTOCOLS + *protocol as usize)));
        let counts: BTreeMap<_, _> = counts.filter(|(_, count)| *count > 0).collect();
        (!counts.is_empty()).then_some(counts)
    };
    inventory.models.iter().filter_map(|model| Some((model.port.to_string(), of_port(model.port)?))).collect()
}

/// The most common protocol of a port's connections, once there was one.
fn protocol(families: &Families, port: u16) -> Option<&'static str> {
    let stats = families.net.as_ref()?.model(families.slots.get(port)?)?;
    let count = |&(protocol, _): &(_, _)| stats.counter(counter::PROTOCOLS + protocol as usize);
    // Those that were upgraded count as HTTP/1 too.
    let begun = PROTOCOLS.iter().filter(|(protocol, _)| *protocol != Protocol::Upgraded);
    let most = begun.max_by_key(|&it| count(it))?;
    (count(most) > 0).then_some(most.1)
}

fn add_usage(page: &mut Page, [model, port]: [&str; 2], usage: &Usage) {
    if let Some(cpu) = usage.cpu {
        for (mode, microseconds) in [("system", cpu.system_us), ("user", cpu.user_us)] {
            page.add(&CPU, [model, port, mode], Value::Float(microseconds as f64 * 1e-6));
        }
    }
    if let Some(throttled) = usage.throttled_us {
        page.add(&CPU_THROTTLED, [model, port], Value::Float(throttled as f64 * 1e-6));
    }
    if let Some(faults) = usage.major_faults {
        page.add(&MAJOR_FAULTS, [model, port], Value::Integer(faults));
    }
    if let Some(memory) = usage.memory {
        for (kind, bytes) in [("pss", memory.pss), ("rss", Some(memory.rss)), ("swap", Some(memory.swap))] {
            if let Some(bytes) = bytes {
                page.add(&MEMORY, [model, port, kind], Value::Integer(bytes));
            }
        }
    }
}
