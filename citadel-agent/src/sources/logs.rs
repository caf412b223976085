//! Logs: messages of models, and entries being sent.

use std::time::Duration;

use super::{Origin, Outcome, Reading};
use crate::clock::wall_ms;
use crate::logs::events::{OF_MODELS, OOM_KILL, XID};
use crate::logs::numbers::{DestinationNumbers, Numbers};
use crate::logs::severity::Severity;
use crate::metrics::catalogue::log_events::{LOG_EVENTS, LOG_MESSAGES};
use crate::metrics::catalogue::logs::{
    LOG_COLLECTED, LOG_ENTRIES, LOG_LOST, LOG_LOST_SECONDS, LOG_OLDEST, LOG_PARKED, LOG_PENDING, LOG_REQUESTS,
    LOG_TRUNCATED,
};
use crate::metrics::family::{Page, Value};

/// The thread publishes every second; after this time without an update its figures are invalid.
const SILENT: Duration = Duration::from_secs(30);

/// Messages and events logged by models since the agent's start.
pub(super) fn read_events(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(newest) = origin.logs.newest().filter(|_| origin.config.logs.enabled) else { return Ok(Outcome::Absent) };
    let Numbers { counts, problem, destinations } = &*newest.value;
    let labels = origin.inventory.models.iter().map(|model| (model.name.clone(), model.port));
    let gone = counts.messages.keys().map(|(label, _)| (label.model.clone(), label.port));
    let models: std::collections::BTreeSet<(String, u16)> = labels.chain(gone).collect();
    for (model, port) in &models {
        let of = |label: &crate::logs::known::Label| label.model == *model && label.port == *port;
        let port = port.to_string();
        for severity in Severity::ALL {
            let found = counts.messages.iter().find(|((label, own), _)| of(label) && *own == severity);
            page.add(
                &LOG_MESSAGES,
                [model, &port, severity.label()],
                Value::Integer(found.map_or(0, |(_, count)| *count)),
            );
        }
        let own = origin.config.logs.events.keys().map(String::as_str);
        for event in OF_MODELS.into_iter().chain(own) {
            let found = counts.events.iter().find(|((label, own), _)| own == event && label.as_ref().is_some_and(of));
            page.add(&LOG_EVENTS, [model, &port, event], Value::Integer(found.map_or(0, |(_, count)| *count)));
        }
    }
    for event in [OOM_KILL, XID] {
        let count = counts.events.get(&(None, event.to_owned())).copied().unwrap_or(0);
        page.add(&LOG_EVENTS, ["", "", event], Value::Integer(count));
    }
    match problem {
        // A host without a journal, if it is not needed.
        Some(_) if destinations.is_empty() && counts.messages.is_empty() => {
            page.families.clear();
            Ok(Outcome::Absent)
        }
        Some(problem) => Ok(Outcome::Partly(problem.clone().into())),
        None => Ok(Outcome::Read),
    }
}

/// Outcomes of entries being sent.
pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(newest) = origin.logs.newest().filter(|newest| !newest.value.destinations.is_empty()) else {
        return Ok(Outcome::Absent);
    };
    if newest.age() > SILENT {
        let seconds = newest.age().as_secs();
        return Err(format!("the log thread has not reported for {seconds} s: its disk hangs, or it ended").into());
    }
    let mut problem = None;
    for numbers in &newest.value.destinations {
        add(numbers, page);
        problem = problem.or_else(|| numbers.problem.clone());
    }
    Ok(problem.map_or(Outcome::Read, |problem| Outcome::Partly(problem.into())))
}

fn add(numbers: &DestinationNumbers, page: &mut Page) {
    let name = numbers.destination.as_str();
    let integer = Value::Integer;
    let DestinationNumbers { acknowledged, rejected, limited, pending, .. } = *numbers;
    page.add(&LOG_COLLECTED, [name], integer(acknowledged + rejected + limited + pending));
    page.add(&LOG_ENTRIES, [name, "acknowledged"], integer(acknowledged));
    page.add(&LOG_ENTRIES, [name, "rejected"], integer(rejected));
    page.add(&LOG_ENTRIES, [name, "dropped"], integer(limited));
    page.add(&LOG_PENDING, [name], integer(pending));
    let now_us = wall_ms().max(0).unsigned_abs() * 1000;
    let age = numbers.oldest_us.map_or(0.0, |oldest| now_us.saturating_sub(oldest) as f64 / 1e6);
    page.add(&LOG_OLDEST, [name], Value::Float(age));
    page.add(&LOG_TRUNCATED, [name], integer(numbers.truncated));
    page.add(&LOG_LOST, [name], integer(numbers.lost_entries));
    page.add(&LOG_LOST_SECONDS, [name], Value::Float(numbers.lost_seconds));
    for (code, count) in &numbers.requests {
        page.add(&LOG_REQUESTS, [name, code], integer(*count));
    }
    page.add(&LOG_PARKED, [name], integer(u64::from(numbers.closed)));
}
