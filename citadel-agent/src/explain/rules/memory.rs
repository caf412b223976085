//! Memory pressure: swapping, and time spent waiting for memory.

use super::super::case::{Case, rate};
use super::super::words::{number, percent};
use super::Finding;

/// Fewer pages swapped in per second are normal.
const SWAPPED_IN: f64 = 50.0;

/// Fraction of the time in which some task waits for memory.
const PRESSURE: f64 = 0.05;

pub(super) fn judge(case: &Case<'_>) -> Finding {
    let (pressure, pressure_before) = case.host.rates("pressure_seconds.memory_waiting");
    let (swapped, swapped_before) = case.host.rates("swapped_in_pages");
    let faults = |facts: &super::super::case::Facts<'_>| rate(facts.window, facts.window.sum("major_faults"));
    let (own, own_before) = (faults(&case.now), faults(&case.before));
    let swap =
        |facts: &super::super::case::Facts<'_>| facts.window.gauge("memory_bytes.swap").map_or(0.0, |gauge| gauge.max);
    let swapping = swapped >= SWAPPED_IN && swapped >= 3.0 * swapped_before;
    let waiting = pressure >= PRESSURE && pressure >= 2.0 * pressure_before;
    let faulting = own >= 20.0 && own >= 3.0 * own_before;
    if !swapping && !waiting && !faulting {
        return Finding::RuledOut(format!("Tasks on the host wait for memory {} of the time.", percent(pressure)));
    }
    let sentence = format!(
        "Memory is short: tasks on the host wait for it {} of the time, {} before; {} pages per second are swapped in; the model has {} bytes \
         in swap ({} before) and {} major faults per second.",
        percent(pressure),
        percent(pressure_before),
        number(swapped),
        number(swap(&case.now)),
        number(swap(&case.before)),
        number(own),
    );
    Finding::Cause { weight: if faulting || swapping { 0.95 } else { 0.5 }, share: None, sentence }
}
