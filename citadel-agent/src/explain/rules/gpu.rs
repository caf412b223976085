//! The model's GPUs: lost, throttled, shared, with errors.

use super::super::case::{Case, Gpu, rate};
use super::super::words::{number, percent, time};
use super::Finding;
use crate::history::window::Window;

/// Reasons that hold no model back: an idle GPU, or a clock that a person has set.
const HARMLESS: [&str; 4] = ["gpu_idle", "idle", "applications_clocks", "display_clocks"];

/// Fraction of the time.
const PART: f64 = 0.1;

pub(super) fn lost(case: &Case<'_>) -> Finding {
    if case.gpus.is_empty() {
        return Finding::NotMeasured("GPUs (the model uses none that the agent can see)".to_owned());
    }
    let lost = case.gpus.iter().find(|gpu| gpu.now.gauge("up").is_some_and(|up| up.last == 0.0));
    let Some(gpu) = lost else { return Finding::Silent };
    let xids: Vec<_> = gpu.now.sums_of("xid").map(|(xid, _)| xid).collect();
    let xids = if xids.is_empty() { String::new() } else { format!(" (Xid {})", xids.join(", ")) };
    Finding::Cause {
        weight: 6.0,
        share: None,
        sentence: format!("GPU {} no longer responds{xids}: the driver has lost it.", gpu.index),
    }
}

/// Fraction of the time for which clocks were throttled, by reason.
fn throttled_for(window: &Window) -> impl Iterator<Item = (&str, f64)> {
    let counted = window.sums_of("throttle_seconds").map(move |(reason, seconds)| (reason, rate(window, seconds)));
    let seen = window.gauges_of("throttle_active").map(|(reason, gauge)| (reason, gauge.mean));
    counted.chain(seen).filter(|(reason, _)| !HARMLESS.contains(reason))
}

fn part(window: &Window, reason: &str) -> f64 {
    throttled_for(window).filter(|(of, _)| *of == reason).map(|(_, part)| part).fold(0.0, f64::max)
}

pub(super) fn throttled(case: &Case<'_>) -> Finding {
    let mut worst: Option<(&Gpu, &str, f64, f64)> = None;
    for &gpu in &case.gpus {
        for (reason, now) in throttled_for(&gpu.now) {
            let before = part(&gpu.before, reason);
            if now - before >= PART && worst.is_none_or(|(.., most, least)| now - before > most - least) {
                worst = Some((gpu, reason, now, before));
            }
        }
    }
    let Some((gpu, reason, now, before)) = worst else {
        return if case.gpus.is_empty() {
            Finding::Silent
        } else {
            Finding::RuledOut("Its GPUs are throttled as much as before.".to_owned())
        };
    };
    let why = match reason {
        "sw_power_cap" | "hw_power_brake_slowdown" | "hw_power_brake" => "because of its power limit",
        "hw_thermal_slowdown" | "sw_thermal_slowdown" => "because of heat",
        "hw_slowdown" => "because of heat or power",
        "sync_boost" => "because another GPU of its group is,",
        other => other,
    };
    let clock = |window: &Window| {
        window.gauge("clock_hertz.sm").or_else(|| window.gauge("clock_hertz.graphics")).map(|gauge| gauge.mean)
    };
    let clocks = match (clock(&gpu.now), clock(&gpu.before)) {
        (Some(now), Some(before)) => format!(", at {:.0} MHz, {:.0} MHz before", now / 1e6, before / 1e6),
        _ => String::new(),
    };
    let heat =
        gpu.now.gauge("temperature_celsius.gpu").map_or(String::new(), |heat| format!("; {:.0} degrees", heat.max));
    let watts = match (gpu.now.gauge("power_watts"), gpu.now.gauge("power_limit_watts")) {
        (Some(power), Some(limit)) => format!("; {:.0} W of {:.0} W", power.mean, limit.last),
        _ => String::new(),
    };
    Finding::Cause {
        weight: 1.15,
        share: None,
        sentence: format!(
            "GPU {} is throttled {why} {} of the time, {} before{clocks}{heat}{watts}.",
            gpu.index,
            percent(now.min(1.0)),
            percent(before)
        ),
    }
}

pub(super) fn shared(case: &Case<'_>) -> Finding {
    let mut most: Option<(&Gpu, &str, f64, f64)> = None;
    for &gpu in &case.gpus {
        let mut consider = |who, now: &Window, before: &Window, key: &str| {
            let of = |window: &Window| window.gauge(key).map_or(0.0, |gauge| gauge.mean);
            let (now, before) = (of(now), of(before));
            if now - before >= PART && most.is_none_or(|(.., most, least)| now - before > most - least) {
                most = Some((gpu, who, now, before));
            }
        };
        for (name, now, before) in &case.others {
            consider(*name, now, before, &format!("gpu_sm_ratio.{}", gpu.uuid));
        }
        consider("a process that belongs to no model", &gpu.now, &gpu.before, "other_gpu_sm_ratio");
    }
    let Some((gpu, who, now, before)) = most else {
        return if case.gpus.is_empty() {
            Finding::Silent
        } else {
            Finding::RuledOut("No other process uses more of its GPUs than before.".to_owned())
        };
    };
    let own = format!("gpu_sm_ratio.{}", gpu.uuid);
    let own = |window: &Window| percent(window.gauge(&own).map_or(0.0, |gauge| gauge.mean));
    Finding::Cause {
        weight: 1.1,
        share: None,
        sentence: format!(
            "GPU {} is shared with {who}, which has {} of its SMs' time, {} before; the model has {}, {} before.",
            gpu.index,
            percent(now),
            percent(before),
            own(case.now.window),
            own(case.before.window),
        ),
    }
}

pub(super) fn errors(case: &Case<'_>) -> Finding {
    for gpu in &case.gpus {
        let count = |window: &Window, key: &str| rate(window, window.sum(key) + window.total_of(key));
        let mut found = Vec::new();
        for (key, what) in [
            ("xid", "Xid errors"),
            ("pcie_replays", "replayed PCIe packets"),
            ("pcie_errors", "PCIe errors"),
            ("nvlink_errors", "NVLink errors"),
            ("ecc.uncorrected", "uncorrected ECC errors"),
        ] {
            let (now, before) = (count(&gpu.now, key), count(&gpu.before, key));
            if now > 0.0 && now >= 5.0 * before {
                let total = now * gpu.now.covered_seconds;
                let which: Vec<_> = gpu.now.sums_of(key).map(|(which, _)| which).collect();
                let which = if key == "xid" { format!(" ({})", which.join(", ")) } else { String::new() };
                found.push(format!("{} {what}{which}", number(total)));
            }
        }
        let narrow = match (gpu.now.gauge("pcie_width"), gpu.before.gauge("pcie_width")) {
            (Some(now), Some(before)) if now.max < before.max => {
                Some(format!("{} PCIe lanes, {} before", number(now.max), number(before.max)))
            }
            _ => None,
        };
        found.extend(narrow);
        if !found.is_empty() {
            let seconds = time(gpu.now.covered_seconds);
            return Finding::Cause {
                weight: 0.9,
                share: None,
                sentence: format!("GPU {} has errors: in {seconds} {}.", gpu.index, found.join(", ")),
            };
        }
    }
    Finding::Silent
}
