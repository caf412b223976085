//! The kernel programs: status, cost, map usage, lost events.

use std::collections::BTreeMap;

use super::{Origin, Outcome, Reading};
use crate::host::process::read_start;
use crate::metrics::catalogue::agent::{
    EVENTS_LOST, MAP_CAPACITY, MAP_ENTRIES, MODEL_EVENTS_LOST, PROBE_RUNS, PROBE_SECONDS, PROBE_START, PROBE_STATUS,
};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    // What is lost is summed over them.
    page.began = origin.families.last_began();
    // Without a start, the source of the process has failed.
    if let Ok(start) = read_start(origin.roots)
        && let Some(began) = origin.families.first_began(start)
    {
        page.add(&PROBE_START, [], Value::Float(began));
    }
    for family in &origin.families.statuses {
        for program in &family.programs {
            let labels = [family.family, program.name, program.status.name(), &program.reason];
            page.add(&PROBE_STATUS, labels, Value::Integer(1));
        }
    }
    for (program, stats) in origin.families.run_stats() {
        page.add(&PROBE_RUNS, [program], Value::Integer(stats.runs));
        page.add(&PROBE_SECONDS, [program], Value::Float(stats.nanoseconds as f64 * 1e-9));
    }
    for (map, entries, capacity) in origin.families.fill() {
        page.add(&MAP_ENTRIES, [map], Value::Integer(entries));
        page.add(&MAP_CAPACITY, [map], Value::Integer(capacity));
    }
    for (why, count) in origin.families.lost() {
        page.add(&EVENTS_LOST, [why], Value::Integer(count));
    }
    let refused = origin.families.refused();
    for model in origin.inventory.in_page_order() {
        let mut lost = BTreeMap::<_, u64>::new();
        for ((_, port, why), count) in &refused {
            if *port == model.port {
                *lost.entry(*why).or_default() += count;
            }
        }
        for (why, count) in lost {
            page.add(&MODEL_EVENTS_LOST, [model.name.as_str(), &model.port.to_string(), why], Value::Integer(count));
        }
    }
    Ok(Outcome::Read)
}
