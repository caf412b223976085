//! The rules: each looks at a case and names its cause, rules it out, or says that it is not measured here. Pure.
//!
//! A rule's weight orders the causes: the share of what is wrong that it explains, more where the cause is told by its own
//! number (throttled time), less where it is only what is left over (the model itself).

pub(super) mod clients;
mod cpu;
mod disk;
mod engine;
mod event_loop;
mod gpu;
pub(super) mod hanging;
mod load;
mod memory;
pub(super) mod network;
mod process;

use super::Verdict;
use super::case::Case;

/// What a rule finds.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Finding {
    /// This is a cause.
    Cause {
        /// Causes are ordered by it.
        weight: f64,
        /// How much of what is wrong it explains, if known.
        share: Option<f64>,
        /// The cause with its numbers.
        sentence: String,
    },
    /// This is not a cause, with the number that shows it.
    RuledOut(String),
    /// Not measured on this host.
    NotMeasured(String),
    /// Nothing to report.
    Silent,
}

/// A rule.
pub(super) struct Rule {
    /// The name of the cause in JSON.
    pub(super) name: &'static str,
    pub(super) judge: fn(&Case<'_>) -> Finding,
}

/// All of them.
pub(super) const RULES: &[Rule] = &[
    Rule { name: "hanging_request", judge: hanging::judge },
    Rule { name: "gpu_lost", judge: gpu::lost },
    Rule { name: "restart", judge: process::restart },
    Rule { name: "out_of_memory_kill", judge: process::out_of_memory },
    Rule { name: "engine_error", judge: process::engine_error },
    Rule { name: "server_errors", judge: clients::server_errors },
    Rule { name: "clients_give_up", judge: clients::give_up },
    Rule { name: "server_aborts", judge: clients::server_aborts },
    Rule { name: "cgroup_throttling", judge: cpu::throttled },
    Rule { name: "cpu_starvation", judge: cpu::starved },
    Rule { name: "slow_disk", judge: disk::judge },
    Rule { name: "memory_pressure", judge: memory::judge },
    Rule { name: "event_loop", judge: event_loop::judge },
    Rule { name: "listen_overflow", judge: network::listen_overflow },
    Rule { name: "slow_reader", judge: network::slow_reader },
    Rule { name: "network_loss", judge: network::loss },
    Rule { name: "engine_queue", judge: engine::queue },
    Rule { name: "kv_cache_full", judge: engine::kv_cache },
    Rule { name: "preemptions", judge: engine::preemptions },
    Rule { name: "prefix_cache_cold", judge: engine::prefix_cache },
    Rule { name: "gpu_throttled", judge: gpu::throttled },
    Rule { name: "gpu_shared", judge: gpu::shared },
    Rule { name: "gpu_errors", judge: gpu::errors },
    Rule { name: "longer_prompts", judge: load::prompts },
    Rule { name: "longer_answers", judge: load::answers },
    Rule { name: "more_load", judge: load::more },
    Rule { name: "model_itself", judge: load::model_itself },
];

/// A cause explains at least this fraction of what is wrong.
pub(super) const TELLING: f64 = 0.2;

/// A cause that explains so many seconds by request of what takes longer; `specific` is added to its weight. `None` where it
/// explains too little.
pub(super) fn explains(
    case: &Case<'_>,
    seconds: f64,
    factor: f64,
    specific: f64,
    sentence: impl FnOnce() -> String,
) -> Option<Finding> {
    let share = case.share(seconds);
    (share >= TELLING && seconds >= 0.002).then(|| Finding::Cause {
        weight: share * factor + specific,
        share: Some(share),
        sentence: sentence(),
    })
}

/// The sentence for when something is wrong and no rule explains it.
pub(super) fn nothing_found(case: &Case<'_>, verdict: Verdict) -> String {
    match verdict {
        Verdict::Starved => {
            "The model responds normally; check what sends it requests: a load balancer, a gateway, the clients."
                .to_owned()
        }
        _ if !case.compared() => "There were too few requests before to compare with.".to_owned(),
        _ => "No known cause explains it.".to_owned(),
    }
}
