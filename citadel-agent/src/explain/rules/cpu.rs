//! Threads that are runnable but do not run: no CPU is free, or their cgroup has used up its quota.

use super::super::case::{Case, Facts, rate};
use super::super::words::{number, percent, time};
use super::{Finding, explains};
use crate::history::PROCESS_CPUS;
use crate::history::window::{Distribution, Window};

/// A smaller fraction of throttled time is no cause.
const NOT_HELD_BACK: f64 = 0.05;

pub(super) fn throttled(case: &Case<'_>) -> Finding {
    let held = |window: &Window| rate(window, window.sum("throttled_seconds"));
    let (now, before) = (held(case.now.window), held(case.before.window));
    if !case.now.has("throttled_seconds") {
        return Finding::Silent;
    }
    if now < NOT_HELD_BACK || now < 1.5 * before {
        return Finding::RuledOut(format!("The model's cgroup is throttled {} of the time.", percent(now)));
    }
    Finding::Cause {
        weight: 1.4,
        share: None,
        sentence: format!(
            "The model's cgroup has used up its CPU quota: its threads were throttled {} of the time, {} before (CPUQuota= of its unit, \
             cpu.max of its cgroup).",
            percent(now),
            percent(before)
        ),
    }
}

pub(super) fn starved(case: &Case<'_>) -> Finding {
    if !case.now.has("run_queue") && !case.before.has("run_queue") {
        return Finding::NotMeasured("whether threads wait for a CPU (the sched programs are not running)".to_owned());
    }
    let seconds = case.excess(Facts::run_queue);
    let (now, before) = (case.now.run_queue(), case.before.run_queue());
    let sentence = || {
        let longest = case.now.histogram("run_queue").and_then(Distribution::longest).unwrap_or(0.0);
        format!(
            "Its threads wait {} per request for a CPU, {} before (up to {} at a time): other processes use the CPUs{}.",
            time(now),
            time(before),
            time(longest),
            takers(case),
        )
    };
    // Throttled threads are on the run queue as well.
    let specific = if matches!(throttled(case), Finding::Cause { .. }) { 0.0 } else { 0.3 };
    explains(case, seconds, 1.0, specific, sentence).unwrap_or_else(|| {
        Finding::RuledOut(format!("Its threads wait {} per request for a CPU: CPUs are not scarce.", time(now)))
    })
}

/// Who has used CPU time that it did not use before: other models by their own count, and processes of no model; else the
/// host's CPUs as a whole.
fn takers(case: &Case<'_>) -> String {
    let cpus = |window: &Window| rate(window, window.total_of("cpu_seconds"));
    let models = case.others.iter().map(|(name, now, before)| (*name, cpus(now), cpus(before)));
    let processes = case.host.now.gauges_of(PROCESS_CPUS).map(|(command, gauge)| {
        let before = case.host.before.gauges_of(PROCESS_CPUS).find(|(other, _)| *other == command);
        (command, gauge.mean, before.map_or(0.0, |(_, gauge)| gauge.mean))
    });
    let mut takers: Vec<_> = models.chain(processes).filter(|(_, now, before)| now - before >= 0.2).collect();
    takers.sort_by(|a, b| b.1.total_cmp(&a.1));
    let list: Vec<_> =
        takers.iter().take(3).map(|(name, now, _)| format!("{name} uses {} CPUs", number(*now))).collect();
    if !list.is_empty() {
        return format!(": {}", list.join(", "));
    }
    let busy = |window: &Window| {
        let all = window.total_of("cpu_seconds");
        let idle = window.sum("cpu_seconds.idle") + window.sum("cpu_seconds.iowait");
        if all > 0.0 { (all - idle) / all } else { 0.0 }
    };
    format!(" (the host's CPUs are {} busy, {} before)", percent(busy(case.host.now)), percent(busy(case.host.before)))
}
