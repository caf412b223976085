//! Counts of the `sched` programs per model.

use super::{Origin, Outcome, Reading};
use crate::ebpf::family::Family;
use crate::metrics::catalogue::models::{ON_CPU, RUN_QUEUE};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(sched) = &origin.families.sched else { return Ok(Outcome::Absent) };
    page.began = origin.families.began(Family::Sched);
    for model in origin.inventory.in_page_order() {
        let Some(slot) = origin.families.slots.get(model.port) else { continue };
        let port = model.port.to_string();
        let labels = [model.name.as_str(), &port];
        // A model without known processes has no threads that could have waited.
        match sched.on_cpu_ns(slot) {
            Some(ns) if ns > 0 || !model.pids.is_empty() => {
                page.add(&ON_CPU, labels, Value::Float(ns as f64 * 1e-9));
            }
            _ => continue,
        }
        if let Some(histogram) = sched.run_queue(slot) {
            page.add(&RUN_QUEUE, labels, Value::Histogram(histogram));
        }
    }
    Ok(Outcome::Read)
}
