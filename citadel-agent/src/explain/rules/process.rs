//! What happened to the model's processes.

use super::super::case::Case;
use super::super::words::number;
use super::Finding;

pub(super) fn restart(case: &Case<'_>) -> Finding {
    let Some(now) = case.now.window.gauge("pid") else { return Finding::Silent };
    let before = case.before.window.gauge("pid").map_or(now.last, |before| before.last);
    if now.min == now.max && now.last == before {
        return Finding::RuledOut("The model has not been restarted.".to_owned());
    }
    let from = if now.last == before { now.min } else { before };
    Finding::Cause {
        weight: 1.5,
        share: None,
        sentence: format!(
            "The model was restarted (PID {from} before, {} now): it has to load, and its caches are empty.",
            now.last
        ),
    }
}

pub(super) fn out_of_memory(case: &Case<'_>) -> Finding {
    let own = case.now.window.sum("log_events.oom_kill");
    let all = case.host.now.sum("oom_kills");
    if own == 0.0 && all == 0.0 {
        return Finding::Silent;
    }
    let whose = if own > 0.0 { "a process of the model" } else { "processes of this host" };
    Finding::Cause {
        weight: if own > 0.0 { 4.0 } else { 0.6 },
        share: None,
        sentence: format!("The kernel's OOM killer killed {whose} ({} times).", number(own.max(all))),
    }
}

pub(super) fn engine_error(case: &Case<'_>) -> Finding {
    let logged = |event: &str| case.now.window.sum(&format!("log_events.{event}"));
    for (event, what) in [
        ("engine_dead", "The model's log reports that the engine died; the server may still answer"),
        ("cuda_out_of_memory", "The model's log reports that a GPU ran out of memory"),
        ("nccl_timeout", "The model's log reports an NCCL timeout: GPUs waited for each other"),
    ] {
        let count = logged(event);
        if count > 0.0 {
            return Finding::Cause { weight: 4.5, share: None, sentence: format!("{what} ({} times).", number(count)) };
        }
    }
    Finding::Silent
}
