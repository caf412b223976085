//! Cases for the rules: windows written by hand, with the values that a small streaming server would have under load and with what
//! each cause would change. They hold the rules, not their thresholds, which are not taken from recordings.

mod planted;

use std::collections::BTreeSet;

use self::planted::PLANTED;
use super::*;
use crate::history::window::{Distribution, Gauge, Window};

/// Both windows of a model, of the host and of its GPU, and of another model.
#[derive(Clone)]
struct World {
    now: Window,
    before: Window,
    host_now: Window,
    host_before: Window,
    gpu_now: Window,
    gpu_before: Window,
    other_now: Window,
    other_before: Window,
}

/// `count` observations around `mean` seconds.
pub(super) fn spread(count: u64, mean: f64) -> Distribution {
    let index = (mean.log2() * 8.0).ceil() as i16;
    let half = count / 2;
    Distribution { count, sum: mean * count as f64, width: 1, buckets: vec![(index, half), (index + 1, count - half)] }
}

/// Some of them elsewhere.
fn mixed(few: u64, long: f64, many: u64, short: f64) -> Distribution {
    let (a, b) = (spread(many, short), spread(few, long));
    Distribution { count: a.count + b.count, sum: a.sum + b.sum, width: 1, buckets: [a.buckets, b.buckets].concat() }
}

fn level(value: f64) -> Gauge {
    Gauge { mean: value, min: value, max: value, last: value }
}

/// A window of so many seconds in which nothing was measured.
fn empty(seconds: f64) -> Window {
    Window { to_ms: (seconds * 1000.0) as i64, covered_seconds: seconds, ..Window::default() }
}

/// A healthy model for so many seconds at two requests a second.
pub(super) fn healthy(seconds: f64) -> Window {
    let requests = (seconds * 2.0) as u64;
    let mut window = empty(seconds);
    for (key, each) in [
        ("requests.chat_completions.200", 1.0),
        ("chunks", 20.0),
        ("bytes_in", 600.0),
        ("bytes_out", 5000.0),
        ("cpu_seconds.user", 0.01),
        ("on_cpu_seconds", 0.012),
        ("syscall_seconds.write", 0.001),
        ("syscall_calls.write", 20.0),
        ("syscall_seconds.fsync", 0.002),
        ("syscall_calls.fsync", 1.0),
        ("syscall_seconds.epoll_wait", 0.5),
        ("syscall_calls.epoll_wait", 25.0),
        ("phase_seconds.queue", 0.002),
        ("phase_seconds.prefill", 0.1),
        ("phases.queue", 1.0),
        ("phases.prefill", 1.0),
        ("prefix_queries", 500.0),
        ("prefix_hits", 300.0),
        ("retransmits", 0.01),
    ] {
        window.sums.insert(key.to_owned(), each * requests as f64);
    }
    for (key, value) in [
        ("in_flight", 1.0),
        ("connections_open", 4.0),
        ("up", 1.0),
        ("pid", 4711.0),
        ("engine_waiting", 0.0),
        ("engine_running", 1.0),
        ("kv_cache_ratio", 0.3),
        ("held_back_connections", 0.0),
        ("gpu_memory_bytes.GPU-1", 4e10),
        ("gpu_sm_ratio.GPU-1", 0.4),
    ] {
        window.gauges.insert(key.to_owned(), level(value));
    }
    // In flight comes and goes.
    window.gauges.insert("in_flight".to_owned(), Gauge { mean: 1.0, min: 0.0, max: 3.0, last: 1.0 });
    for (key, mean) in [
        ("first_token", 0.12),
        ("first_byte", 0.12),
        ("duration.success", 0.5),
        ("receive_queue", 0.001),
        ("rtt", 0.0002),
    ] {
        window.histograms.insert(key.to_owned(), spread(requests, mean));
    }
    window.histograms.insert("inter_token".to_owned(), spread(requests * 20, 0.019));
    window.histograms.insert("run_queue".to_owned(), spread(requests * 40, 0.000_02));
    window
}

fn gpu(seconds: f64) -> Window {
    let mut window = empty(seconds);
    for (key, value) in [
        ("up", 1.0),
        ("clock_hertz.sm", 1.98e9),
        ("power_watts", 400.0),
        ("power_limit_watts", 700.0),
        ("temperature_celsius.gpu", 60.0),
        ("throttle_active.sw_power_cap", 0.0),
        ("pcie_width", 16.0),
        ("other_gpu_sm_ratio", 0.0),
    ] {
        window.gauges.insert(key.to_owned(), level(value));
    }
    window
}

fn host(seconds: f64) -> Window {
    let mut window = empty(seconds);
    for (key, each) in [("cpu_seconds.user", 1.0), ("cpu_seconds.idle", 7.0), ("pressure_seconds.memory_waiting", 0.0)]
    {
        window.sums.insert(key.to_owned(), each * seconds);
    }
    window
}

const NOW: f64 = 60.0;
const BEFORE: f64 = 3600.0;

impl World {
    fn well() -> Self {
        Self {
            now: healthy(NOW),
            before: healthy(BEFORE),
            host_now: host(NOW),
            host_before: host(BEFORE),
            gpu_now: gpu(NOW),
            gpu_before: gpu(BEFORE),
            other_now: empty(NOW),
            other_before: empty(BEFORE),
        }
    }

    fn explained(&self) -> Explanation {
        let gpus = [Gpu {
            uuid: "GPU-1".to_owned(),
            index: "0".to_owned(),
            now: self.gpu_now.clone(),
            before: self.gpu_before.clone(),
        }];
        let others = vec![("other", &self.other_now, &self.other_before)];
        let case = Case::new(&self.now, &self.before, (&self.host_now, &self.host_before), &gpus, others);
        judge(&case)
    }

    fn sum(&mut self, key: &str, value: f64) -> &mut Self {
        self.now.sums.insert(key.to_owned(), value);
        self
    }

    fn host_sum(&mut self, key: &str, value: f64) -> &mut Self {
        self.host_now.sums.insert(key.to_owned(), value);
        self
    }

    fn host_gauge(&mut self, key: &str, value: f64) -> &mut Self {
        self.host_now.gauges.insert(key.to_owned(), level(value));
        self
    }

    fn other_sum(&mut self, key: &str, value: f64) -> &mut Self {
        self.other_now.sums.insert(key.to_owned(), value);
        self
    }

    fn gpu_sum(&mut self, key: &str, value: f64) -> &mut Self {
        self.gpu_now.sums.insert(key.to_owned(), value);
        self
    }

    fn gpu_gauge(&mut self, key: &str, value: f64) -> &mut Self {
        self.gpu_now.gauges.insert(key.to_owned(), level(value));
        self
    }

    fn gauge(&mut self, key: &str, value: f64) -> &mut Self {
        self.now.gauges.insert(key.to_owned(), level(value));
        self
    }

    fn histogram(&mut self, key: &str, value: Distribution) -> &mut Self {
        self.now.histograms.insert(key.to_owned(), value);
        self
    }

    /// All first tokens take so long, and the requests that much longer.
    fn first_token(&mut self, mean: f64) -> &mut Self {
        self.histogram("first_token", spread(120, mean)).histogram("first_byte", spread(120, mean));
        self.histogram("duration.success", spread(120, 0.38 + mean))
    }
}

#[test]
fn each_planted_cause_is_named_first() {
    for (cause, verdict, plant, words) in PLANTED {
        let mut world = World::well();
        plant(&mut world);
        let explanation = world.explained();
        assert_eq!(explanation.verdict, *verdict, "{cause}: {explanation:#?}");
        assert_eq!(explanation.causes.first().map(|cause| cause.cause.as_str()), Some(*cause), "{explanation:#?}");
        let sentence = &explanation.causes[0].sentence;
        assert!(sentence.contains(words), "{cause}: {sentence}");
        assert!(explanation.first_sentences().contains(sentence.as_str()));
    }
}

#[test]
fn every_rule_has_a_case_that_it_names() {
    let planted: BTreeSet<_> = PLANTED.iter().map(|(cause, ..)| *cause).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(planted, rules);
}

#[test]
fn where_nothing_is_wrong_nothing_is_named() {
    let explanation = World::well().explained();
    assert_eq!((explanation.verdict, explanation.causes), (Verdict::Well, vec![]));
    assert!(
        explanation.ruled_out.iter().any(|line| line.contains("before the server reads them")),
        "{:?}",
        explanation.ruled_out
    );
    // One slow request among a hundred is no slowness.
    let mut world = World::well();
    world.histogram("first_token", mixed(2, 6.0, 118, 0.12)).histogram("first_byte", mixed(2, 6.0, 118, 0.12));
    assert_eq!(world.explained().verdict, Verdict::Well);
}

#[test]
fn health_checks_and_scrapes_are_no_requests_of_users() {
    // As many as users' requests, and all of them fail.
    let mut world = World::well();
    for endpoint in ["health", "metrics", "models"] {
        world.sum(&format!("requests.{endpoint}.503"), 120.0);
    }
    let explanation = world.explained();
    assert_eq!((explanation.verdict, explanation.causes), (Verdict::Well, vec![]));
    // Nor do they hide that users' requests stopped.
    world.sum("requests.chat_completions.200", 0.0);
    assert_eq!(world.explained().verdict, Verdict::Starved);
}

#[test]
fn a_fault_that_lasts_does_not_become_normal() {
    // A quarter of the hour before was slow already.
    let mut world = World::well();
    world.first_token(0.4);
    for key in ["first_token", "first_byte", "duration.success"] {
        let (slow, usual) = if key == "duration.success" { (0.78, 0.5) } else { (0.4, 0.12) };
        world.before.histograms.insert(key.to_owned(), mixed(1800, slow, 5400, usual));
    }
    let explanation = world.explained();
    assert_eq!((explanation.verdict, explanation.causes[0].cause.as_str()), (Verdict::Slow, "model_itself"));
    // Half of the requests fail, and nearly as many did before.
    let mut world = World::well();
    world.sum("requests.chat_completions.200", 60.0).sum("requests.chat_completions.503", 60.0);
    world.before.sums.insert("requests.chat_completions.503".to_owned(), 5000.0);
    let explanation = world.explained();
    assert_eq!((explanation.verdict, explanation.causes[0].cause.as_str()), (Verdict::Failing, "server_errors"));
}

#[test]
fn requests_that_always_differ_are_not_slow_by_chance() {
    // One request in twenty takes 3 s, and by chance one in ten of these 40.
    let mut world = World::well();
    world.histogram("first_token", mixed(4, 3.0, 36, 0.12)).histogram("first_byte", mixed(4, 3.0, 36, 0.12));
    for key in ["first_token", "first_byte"] {
        world.before.histograms.insert(key.to_owned(), mixed(360, 3.0, 6840, 0.12));
    }
    assert_eq!(world.explained().verdict, Verdict::Well);
}

#[test]
fn a_request_that_waits_no_longer_than_others_does_not_hang() {
    let mut world = World::well();
    // By chance, one was in flight each time when they were counted.
    world.now.gauges.insert("in_flight".to_owned(), Gauge { mean: 3.0, min: 2.0, max: 5.0, last: 2.0 });
    world.gauge("longest_wait_seconds", 9.0);
    assert_eq!(world.explained().verdict, Verdict::Well);
    // A model whose first token takes 5 s.
    for window in [&mut world.now, &mut world.before] {
        window.histograms.insert("first_token".to_owned(), spread(100, 5.0));
        window.histograms.insert("first_byte".to_owned(), spread(100, 5.0));
    }
    for (waited, verdict) in [(18.0, Verdict::Well), (30.0, Verdict::Stalled)] {
        world.gauge("longest_wait_seconds", waited);
        assert_eq!(world.explained().verdict, verdict, "{waited}");
    }
}

#[test]
fn few_requests_say_so_and_none_where_many_were_is_a_verdict() {
    let mut world = World::well();
    world.now = healthy(1.5);
    world.now.covered_seconds = 1.5;
    let explanation = world.explained();
    assert_eq!((explanation.verdict, explanation.causes), (Verdict::Unknown, vec![]));
    assert!(explanation.summary.contains("Too few requests to tell: 3"), "{}", explanation.summary);
    let mut world = World::well();
    world.sum("requests.chat_completions.200", 1.0);
    world.now.histograms.clear();
    let explanation = world.explained();
    assert_eq!((explanation.verdict, explanation.causes[0].cause.as_str()), (Verdict::Starved, "not_found"));
    assert!(explanation.summary.contains("120 before"), "{}", explanation.summary);
    let gone = World { now: Window::default(), ..World::well() };
    assert_eq!(gone.explained().verdict, Verdict::Failing);
}

#[test]
fn what_is_not_measured_is_said() {
    let mut world = World::well();
    for window in [&mut world.now, &mut world.before] {
        window.histograms.retain(|key, _| !["receive_queue", "run_queue"].contains(&key.as_str()));
        window.sums.retain(|key, _| !key.starts_with("syscall") && !key.starts_with("phase"));
        window.gauges.retain(|key, _| !key.starts_with("engine") && !key.starts_with("gpu"));
    }
    let explanation = world.explained();
    for words in ["recvq", "sched", "syscalls", "engine's own queue", "GPUs"] {
        assert!(
            explanation.not_measured.iter().any(|line| line.contains(words)),
            "{words}: {:?}",
            explanation.not_measured
        );
    }
    assert_eq!(explanation.verdict, Verdict::Well);
}

#[test]
fn the_parts_add_up_to_the_time_to_first_token() {
    for (cause, _, plant, _) in PLANTED {
        let mut world = World::well();
        plant(&mut world);
        let explanation = world.explained();
        let Some(first) = world.now.histogram("first_token").and_then(Distribution::mean) else { continue };
        let sum: f64 = explanation.parts.iter().map(|part| part.now).sum();
        assert!((sum - first).abs() < 1e-9, "{cause}: {sum} of {first}");
        assert!(explanation.parts.iter().all(|part| part.now >= 0.0), "{cause}");
        let before: f64 = explanation.parts.iter().filter_map(|part| part.before).sum();
        assert!((before - 0.12).abs() < 1e-9, "{cause}: {before}");
    }
}

#[test]
fn a_person_reads_the_verdict_first_then_causes_then_the_rest() {
    let mut world = World::well();
    world.first_token(2.1).sum("phase_seconds.queue", 230.0).gauge("engine_waiting", 8.0);
    let mut explanation = world.explained();
    (explanation.model, explanation.port, explanation.to_ms) = ("phi3".to_owned(), 11403, 60_000);
    let text = text::render(&[explanation.clone()]);
    let places: Vec<_> = [
        "phi3 (port 11403): slow (60 s",
        "The time to first token is 2.1 s, 120 ms before",
        "  1. Requests wait in the engine's queue",
        "Of 2.1 s to the first token",
        "Ruled out:",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}")))
    .collect();
    assert!(places.is_sorted(), "{text}");
    // And so does a program.
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["verdict"], "slow");
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap().causes, explanation.causes);
}
