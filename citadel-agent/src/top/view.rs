//! The rows of the table, from the history. Pure. All text in a view is of limited length and without control characters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::explain::{Explanation, Verdict};
use crate::history::Millis;
use crate::history::window::{Gauge, SubjectHistory, Window};
use crate::printable::without_hidden;
use crate::trace::ModelRequests;

/// Longest name.
const LONGEST_NAME: usize = 128;

/// Harmless reasons for lower clocks: an idle GPU, clocks set by a user.
const HARMLESS: [&str; 3] = ["gpu_idle", "applications_clocks", "display_clocks"];

/// The host, its GPUs and its models over some time.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct View {
    /// End of the time, milliseconds since the epoch.
    pub(super) at_ms: Millis,
    /// Length of the time, in seconds.
    pub(super) seconds: f64,
    /// The host.
    pub(super) host: Host,
    /// By index.
    pub(super) gpus: Vec<Gpu>,
    /// By port.
    pub(super) models: Vec<Model>,
}

/// The host. `None` in any figure: not measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Host {
    /// Its name.
    pub(super) name: String,
    /// Fraction of the time of all CPUs that was not idle.
    pub(super) cpu_ratio: Option<f64>,
    /// Memory that is not available for new work.
    pub(super) memory_used_bytes: Option<f64>,
    /// All memory.
    pub(super) memory_total_bytes: Option<f64>,
    /// Fraction of the time in which some task waited, by resource: `cpu`, `io`, `memory`. Those that did not grow are omitted.
    pub(super) waiting_ratio: BTreeMap<String, f64>,
}

/// A GPU.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Gpu {
    /// Its number.
    pub(super) index: String,
    /// Its UUID.
    pub(super) uuid: String,
    /// Fraction of the time in which a kernel ran.
    pub(super) utilization_ratio: Option<f64>,
    /// Memory in use.
    pub(super) memory_used_bytes: Option<f64>,
    /// All memory.
    pub(super) memory_total_bytes: Option<f64>,
    /// Mean power.
    pub(super) watts: Option<f64>,
    /// The power limit in force.
    pub(super) watts_limit: Option<f64>,
    /// Temperature of the chip.
    pub(super) celsius: Option<f64>,
    /// Why clocks are throttled at the end of the time.
    pub(super) throttled: Vec<String>,
}

/// Whether a model responds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModelState {
    /// Its probes fail.
    Down,
    /// It was measured within the last day, but not in this time.
    Gone,
    /// It listens; whether it responds is unknown.
    #[default]
    Unknown,
    /// Its probes succeed.
    Up,
}

impl ModelState {
    /// In a word.
    #[must_use]
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Gone => "gone",
            Self::Unknown => "-",
            Self::Up => "up",
        }
    }
}

/// A model. A figure is `None` if it was not measured, or if nothing happened in the time.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Model {
    /// Its name.
    pub(super) name: String,
    /// Its port.
    pub(super) port: u16,
    /// Whether it responds.
    pub(super) state: ModelState,
    /// Requests that ended per second.
    pub(super) requests_per_second: Option<f64>,
    /// Requests in flight at the end of the time.
    pub(super) in_flight: Option<f64>,
    /// Longest time in seconds for which a request in flight has been waiting for the next byte, at the end of the time.
    pub(super) longest_wait_seconds: Option<f64>,
    /// Median time to first token, in seconds.
    pub(super) first_token_p50: Option<f64>,
    /// Its 99th percentile.
    pub(super) first_token_p99: Option<f64>,
    /// Median time between two chunks of a stream, in seconds.
    pub(super) inter_token_p50: Option<f64>,
    /// Its 99th percentile.
    pub(super) inter_token_p99: Option<f64>,
    /// Fraction of requests that ended with 5xx or no valid status.
    pub(super) error_ratio: Option<f64>,
    /// Fraction of requests that one side aborted.
    pub(super) aborted_ratio: Option<f64>,
    /// Median TCP round trip, in seconds.
    pub(super) rtt_p50: Option<f64>,
    /// Retransmitted TCP segments per second.
    pub(super) retransmits_per_second: Option<f64>,
    /// CPUs in use.
    pub(super) cpus: Option<f64>,
    /// Memory at the end of the time: PSS if known, otherwise RSS.
    pub(super) memory_bytes: Option<f64>,
    /// Device memory at the end of the time, of all GPUs.
    pub(super) gpu_memory_bytes: Option<f64>,
    /// SM utilisation, 0 to 1, summed over all GPUs.
    pub(super) gpu_sm_ratio: Option<f64>,
    /// Its share of the GPUs' power, in watts.
    pub(super) gpu_watts: Option<f64>,
    /// Generated tokens per second: the engine's count, otherwise as stated in the responses if all state it.
    pub(super) tokens_per_second: Option<f64>,
    /// Energy per generated token, in joules.
    pub(super) joules_per_token: Option<f64>,
    /// Verdict and causes: the last minutes compared with the hour before, independent of the time span of the other figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) explanation: Option<Explanation>,
    /// What does not fit into the row.
    pub(super) detail: Detail,
    /// Its single requests, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<ModelRequests>,
}

/// More about a model.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Detail {
    /// The process that has listened longest.
    pub(super) pid: Option<f64>,
    /// Open connections.
    pub(super) connections: Option<f64>,
    /// Requests per second by endpoint and code, most first.
    pub(super) requests: Vec<Rate>,
    /// Aborted requests per second by side and phase, most first.
    pub(super) aborted: Vec<Rate>,
    /// Time in system calls, in seconds per second, most first.
    pub(super) syscalls: Vec<Rate>,
    /// Median time until the server reads a request, in seconds.
    pub(super) receive_queue_p50: Option<f64>,
    /// Its 99th percentile.
    pub(super) receive_queue_p99: Option<f64>,
    /// 99th percentile of the time on the run queue, in seconds.
    pub(super) run_queue_p99: Option<f64>,
    /// Requests running in the engine.
    pub(super) engine_running: Option<f64>,
    /// Requests in the engine's queues.
    pub(super) engine_waiting: Option<f64>,
    /// Used fraction of the KV cache.
    pub(super) kv_cache_ratio: Option<f64>,
    /// Fraction of prompt tokens found in the prefix cache.
    pub(super) prefix_hit_ratio: Option<f64>,
}

/// How often something happened.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct Rate {
    /// Its label values.
    pub(super) what: String,
    /// Times per second.
    pub(super) per_second: f64,
}

/// Makes external text safe for a terminal.
fn clean(text: &str) -> String {
    let text = without_hidden(text);
    let end = text.floor_char_boundary(LONGEST_NAME);
    text.get(..end).unwrap_or_default().to_owned()
}

impl View {
    /// Makes one of the answer to a request for all series with one window. `host` is the host's name.
    #[must_use]
    pub(super) fn of(series: &[SubjectHistory], host: &str, from_ms: Millis, to_ms: Millis) -> Self {
        let mut view = Self {
            at_ms: to_ms,
            seconds: (to_ms - from_ms) as f64 / 1000.0,
            host: Host { name: clean(host), ..Host::default() },
            ..Self::default()
        };
        for SubjectHistory { subject, name, windows } in series {
            let window = windows.last().filter(|window| window.covered_seconds > 0.0);
            if subject == "host" {
                view.host.measure(window);
            } else if let Some(uuid) = subject.strip_prefix("gpu:") {
                view.gpus.extend(window.map(|window| Gpu::of(name, uuid, window)));
            } else if let Ok(port) = subject.parse() {
                view.models.push(match window {
                    Some(window) => Model::of(name, port, window),
                    None => Model { name: clean(name), port, state: ModelState::Gone, ..Model::default() },
                });
            }
        }
        view.gpus.sort_by_key(|gpu| (gpu.index.parse().unwrap_or(u32::MAX), gpu.uuid.clone()));
        view.models.sort_by_key(|model| model.port);
        view
    }

    /// The models that `wanted` names: by port, or by name.
    #[must_use]
    pub(super) fn only(mut self, wanted: &str) -> Self {
        self.models.retain(|model| model.is(wanted));
        self
    }
}

impl View {
    /// Adds single requests.
    pub(super) fn list(&mut self, requests: Vec<ModelRequests>) {
        for mut requests in requests {
            if let Some(model) = self.models.iter_mut().find(|model| model.port == requests.port) {
                requests.model.clone_from(&model.name);
                requests.slowest.iter_mut().for_each(|request| request.model.clone_from(&model.name));
                model.requests = Some(requests);
            }
        }
    }

    /// Adds the verdicts on the models.
    #[must_use]
    pub(super) fn explained(mut self, explanations: Vec<Explanation>) -> Self {
        for mut said in explanations {
            let Some(model) = self.models.iter_mut().find(|model| model.port == said.port) else { continue };
            said.model.clone_from(&model.name);
            for text in std::iter::once(&mut said.summary)
                .chain(said.causes.iter_mut().map(|cause| &mut cause.sentence))
                .chain(&mut said.ruled_out)
                .chain(&mut said.not_measured)
            {
                *text = without_hidden(text).into_owned();
            }
            model.explanation = Some(said);
        }
        self
    }
}

impl Host {
    fn measure(&mut self, window: Option<&Window>) {
        let Some(window) = window else { return };
        let all = window.total_of("cpu_seconds");
        let idle = window.sum("cpu_seconds.idle") + window.sum("cpu_seconds.iowait");
        self.cpu_ratio = (all > 0.0).then(|| 1.0 - idle / all);
        self.memory_total_bytes = last(window, "memory_total_bytes");
        let free = last(window, "memory_available_bytes");
        self.memory_used_bytes = self.memory_total_bytes.zip(free).map(|(total, free)| total - free);
        for what in ["cpu", "io", "memory"] {
            if let Some(waited) = window.sums.get(&format!("pressure_seconds.{what}_waiting")) {
                self.waiting_ratio.insert(what.to_owned(), waited / window.covered_seconds);
            }
        }
    }
}

impl Gpu {
    fn of(index: &str, uuid: &str, window: &Window) -> Self {
        let mean = |key: &str| window.gauge(key).map(|gauge| gauge.mean);
        let held = window.gauges_of("throttle_active").filter(|(reason, _)| !HARMLESS.contains(reason));
        Self {
            index: clean(index),
            uuid: clean(uuid),
            utilization_ratio: mean("utilization_ratio"),
            memory_used_bytes: last(window, "memory_used_bytes"),
            memory_total_bytes: last(window, "memory_total_bytes"),
            watts: mean("power_watts"),
            watts_limit: last(window, "power_limit_watts"),
            celsius: last(window, "temperature_celsius.gpu"),
            throttled: held.filter(|(_, active)| active.last > 0.0).map(|(reason, _)| clean(reason)).collect(),
        }
    }
}

impl Model {
    fn of(name: &str, port: u16, window: &Window) -> Self {
        let seconds = window.covered_seconds;
        // Exported for each model whose packets are seen: without it, requests are not counted.
        let seen = window.gauge("in_flight");
        let counted = |count: f64| seen.map(|_| count / seconds);
        let (ended, aborted, errors) = (window.count_of_users(), window.total_of("aborted"), errors(window));
        let part = |count: f64| (ended + aborted > 0.0).then(|| count / (ended + aborted));
        let quantile = |key: &str, q: f64| window.histogram(key).and_then(|histogram| histogram.quantile(q));
        let tokens = generated(window);
        let joules = window.sums.get("gpu_joules").copied();
        let state = match window.gauge("up") {
            Some(up) if up.last > 0.0 => ModelState::Up,
            Some(_) => ModelState::Down,
            None => ModelState::Unknown,
        };
        Self {
            name: clean(name),
            port,
            state,
            requests_per_second: counted(ended),
            in_flight: seen.map(|gauge| gauge.last),
            longest_wait_seconds: last(window, "longest_wait_seconds"),
            first_token_p50: quantile("first_token", 0.5),
            first_token_p99: quantile("first_token", 0.99),
            inter_token_p50: quantile("inter_token", 0.5),
            inter_token_p99: quantile("inter_token", 0.99),
            error_ratio: part(errors),
            aborted_ratio: part(aborted),
            rtt_p50: quantile("rtt", 0.5),
            retransmits_per_second: counted(window.sum("retransmits")),
            cpus: memory(window).map(|_| window.total_of("cpu_seconds") / seconds),
            memory_bytes: memory(window),
            gpu_memory_bytes: all_gpus(window, "gpu_memory_bytes", |gauge| gauge.last),
            gpu_sm_ratio: all_gpus(window, "gpu_sm_ratio", |gauge| gauge.mean),
            gpu_watts: joules.map(|joules| joules / seconds),
            tokens_per_second: tokens.map(|tokens| tokens / seconds),
            joules_per_token: joules.zip(tokens).map(|(joules, tokens)| joules / tokens),
            explanation: None,
            detail: Detail::of(window),
            requests: None,
        }
    }

    /// Its condition in one word: its state if it does not respond, otherwise the verdict.
    #[must_use]
    pub(super) fn verdict(&self) -> &'static str {
        match (self.state, self.explanation.as_ref().map(|said| said.verdict)) {
            (ModelState::Down | ModelState::Gone, _) | (_, None) => self.state.word(),
            (_, Some(Verdict::Starved)) => "starved",
            (_, Some(Verdict::Unknown)) => "-",
            (_, Some(verdict)) => verdict.word(),
        }
    }

    /// Whether `wanted` is its port or its name.
    #[must_use]
    pub(super) fn is(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.port)
    }
}

impl Detail {
    fn of(window: &Window) -> Self {
        let quantile = |key: &str, q: f64| window.histogram(key).and_then(|histogram| histogram.quantile(q));
        let queries = window.sum("prefix_queries");
        Self {
            pid: last(window, "pid"),
            connections: last(window, "connections_open"),
            requests: rates(window, "requests"),
            aborted: rates(window, "aborted"),
            syscalls: rates(window, "syscall_seconds"),
            receive_queue_p50: quantile("receive_queue", 0.5),
            receive_queue_p99: quantile("receive_queue", 0.99),
            run_queue_p99: quantile("run_queue", 0.99),
            engine_running: last(window, "engine_running"),
            engine_waiting: last(window, "engine_waiting"),
            kv_cache_ratio: last(window, "kv_cache_ratio"),
            prefix_hit_ratio: (queries > 0.0).then(|| window.sum("prefix_hits") / queries),
        }
    }
}

/// Users' requests that ended with 5xx or without a valid status.
pub(super) fn errors(window: &Window) -> f64 {
    let code = |key: &str| key.rsplit('.').next().is_some_and(|code| code.starts_with('5') || code == "invalid");
    window.requests_of_users().filter(|(key, _)| code(key)).map(|(_, count)| count).sum()
}

/// Tokens generated in the window. Counters that do not grow are absent, so an idle engine looks like one that does not count them.
fn generated(window: &Window) -> Option<f64> {
    let sum = |key: &str| window.sums.get(key).copied();
    // One request whose tokens are unknown makes the sum too low by any number.
    let stated =
        || sum("stated_tokens.completion").filter(|_| sum("missing_usage").is_none_or(|missing| missing == 0.0));
    sum("tokens.generated").or_else(stated)
}

fn last(window: &Window, key: &str) -> Option<f64> {
    window.gauge(key).map(|gauge| gauge.last)
}

fn memory(window: &Window) -> Option<f64> {
    last(window, "memory_bytes.pss").or_else(|| last(window, "memory_bytes.rss"))
}

fn all_gpus(window: &Window, key: &str, value: fn(Gauge) -> f64) -> Option<f64> {
    window.gauges_of(key).map(|(_, gauge)| value(gauge)).reduce(|a, b| a + b)
}

fn rates(window: &Window, key: &str) -> Vec<Rate> {
    let rate = |(what, count): (&str, f64)| Rate {
        what: clean(&what.replace('.', " ")),
        per_second: count / window.covered_seconds,
    };
    let mut rates: Vec<_> = window.sums_of(key).map(rate).collect();
    rates.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    rates
}
