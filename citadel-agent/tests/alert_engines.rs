//! The agent's engine and Prometheus' own, fed the same series under the same rules, fire the same alerts at the same
//! times: labels, values and all. What Prometheus does, `promtool test rules` says.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use citadel_agent::alerts::{Engine, Phase, Settings, Texts, rule_file};
use citadel_agent::config;
use citadel_agent::config::resolved::Config;
use citadel_agent::config::resolved::alerts::{Function, Rule, optional};
use citadel_agent::metrics::catalogue::Desc;
use citadel_agent::metrics::catalogue::agent::{REMOTE_WRITE_COLLECTED, REMOTE_WRITE_SAMPLES};
use citadel_agent::metrics::catalogue::gpu::{ECC_ERRORS, UP, XID_ERRORS};
use citadel_agent::metrics::catalogue::models::{REQUESTS_ABORTED, REQUESTS_IN_FLIGHT, STOPPED_ON_REQUEST};
use citadel_agent::metrics::catalogue::services::UNIT_RESTARTS;
use citadel_agent::metrics::catalogue::storage::SMART_MEDIA_ERRORS;
use support::series::{Behaviour, Given, World};

/// What Prometheus adds to each series, and the agent to each alert.
const TARGET: [(&str, &str); 2] = [("instance", "host"), ("job", "citadel-agent")];

/// Rules that use what the shipped ones leave out.
const MORE_RULES: &str = r#"
alerts:
  shipped: false
  rules:
    - {alert: Rate, metric: citadel_model_request_bytes_total, rate: 2m, above: 50, severity: info,
       annotations: {text: "{{ $value }} {{ $value | humanize }} {{ $value | humanize1024 }} {{ $threshold }}"}}
    - {alert: RateSummed, metric: citadel_model_requests_total, rate: 1m, by: [model], above: 2.5, for: 30s,
       severity: info, labels: {team: ml}, annotations: {text: "{{ $labels.model }} {{ $value }}"}}
    - {alert: Grew, metric: citadel_model_requests_aborted_total, increase: 3m, above: 7, severity: warning,
       annotations: {text: "{{ $labels.side }} {{ $labels.instance }} {{ $value | humanizeDuration }}"}}
    - {alert: Predicted, metric: citadel_model_connections_open, predict: 10m, over: 5m, below: 0, severity: critical,
       annotations: {text: "{{ $value | humanize }}"}}
    - {alert: GaugeEquals, metric: citadel_model_requests_in_flight, equal: 3, keep_firing_for: 40s, severity: info}
    - {alert: GaugeDiffers, metric: citadel_source_success, not_equal: 1, severity: info}
    - {alert: Quantile, metric: citadel_model_tcp_rtt_seconds, quantile: 0.4713, over: 2m, at_most: 0.25, severity: info}
    - {alert: Both, metric: citadel_model_connections_open, at_most: 20, severity: info,
       and: [{metric: citadel_model_requests_in_flight, at_least: 2}]}
    - {alert: RatioOfGauges, metric: citadel_map_entries, divide_by: {metric: citadel_map_capacity}, above: 0.7,
       for: 20s, severity: info, annotations: {text: "{{ $value | humanizePercentage }}"}}
    - {alert: Some, metric: 'citadel_model_requests_total{code=~"5..",endpoint!="health",model!~"b.*"}', above: 10,
       severity: info}
"#;

/// Which promtool, and so which histograms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Promtool {
    /// 2.x, which tests classic histograms only.
    Classic,
    /// 3.x, with native ones.
    Native,
}

impl Promtool {
    fn program(self) -> &'static Path {
        Path::new(match self {
            Self::Classic => "promtool",
            Self::Native => concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/prometheus-3/usr/bin/promtool"),
        })
    }

    fn run(self, arguments: &[&str], dir: &Path) -> Result<(), String> {
        let output = Command::new(self.program()).args(arguments).current_dir(dir).output();
        let output = output.expect("promtool is needed, both versions: cargo xtask setup test");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(text.chars().take(4000).collect()) }
    }
}

fn rules(promtool: Promtool) -> Vec<Rule> {
    let more = config::parse("more", MORE_RULES).unwrap_or_else(|errors| panic!("{errors}")).alerts.rules;
    let mut rules = Config::default().alerts.rules;
    rules.extend(optional());
    rules.extend(more);
    for rule in &mut rules {
        let quantile = matches!(rule.condition.operand.function, Function::Quantile { .. });
        // Classic and native histograms give the same truth, but not the same number.
        if quantile && promtool == Promtool::Classic {
            rule.annotations.clear();
        }
    }
    rules
}

/// Alerts that fire at a step: rule, labels and annotations.
type Firing = Vec<(String, Texts, Texts)>;

/// What the agent's engine fires at each step of `world`.
fn ours(world: &World, rules: &[Rule]) -> Vec<Firing> {
    let labels = TARGET.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let interval = world.interval;
    let settings =
        Settings { rules: rules.to_vec(), interval, settling: Duration::ZERO, labels, generator_url: String::new() };
    let mut engine = Engine::new(settings.clone(), vec![], 0, 0);
    let mut firing = |step| {
        let at = world.at(step);
        if step > 0 && world.started[step] > world.started[step - 1] {
            engine = Engine::new(settings.clone(), engine.alerts().cloned().collect(), at, at);
        }
        engine.evaluate(&world.page(step), at);
        let fires = engine.alerts().filter(|alert| matches!(alert.phase, Phase::Firing { .. }));
        fires.map(|alert| (alert.name().to_owned(), alert.labels.clone(), alert.annotations.clone())).collect()
    };
    (0..world.steps).map(&mut firing).collect()
}

/// A file for promtool: the series of `world`, and for every step and rule what is expected to fire.
fn promtool_test(world: &World, rules: &[Rule], expected: &[Firing], promtool: Promtool) -> String {
    let interval = world.interval.as_secs();
    let mut text = format!(
        "rule_files: [rules.yml]\nevaluation_interval: {interval}s\ntests:\n- interval: {interval}s\n  input_series:\n"
    );
    for (series, values) in world.promtool_series(&TARGET, promtool == Promtool::Native) {
        _ = writeln!(text, "  - series: {}\n    values: {}", yaml(&series), yaml(&values));
    }
    text.push_str("  alert_rule_test:\n");
    for (step, firing) in expected.iter().enumerate() {
        for rule in rules {
            _ = writeln!(
                text,
                "  - eval_time: {}s\n    alertname: {}\n    exp_alerts:",
                step as u64 * interval,
                rule.name
            );
            for (_, labels, annotations) in firing.iter().filter(|(name, ..)| *name == rule.name) {
                // promtool leaves it out, because it asks for it.
                let labels: BTreeMap<_, _> = labels.iter().filter(|(name, _)| *name != "alertname").collect();
                let (labels, annotations) = (serde_json::json!(labels), serde_json::json!(annotations));
                _ = writeln!(text, "    - {{exp_labels: {labels}, exp_annotations: {annotations}}}");
            }
        }
    }
    text
}

fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Runs `world` through both engines. Returns how often each rule fired.
fn compare(world: &World, promtool: Promtool) -> BTreeMap<String, usize> {
    let rules = rules(promtool);
    let expected = ours(world, &rules);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rules.yml"), rule_file(&rules)).unwrap();
    fs::write(dir.path().join("test.yml"), promtool_test(world, &rules, &expected, promtool)).unwrap();
    if let Err(difference) = promtool.run(&["test", "rules", "test.yml"], dir.path()) {
        let kept = dir.keep();
        panic!("the engines differ (promtool expected ours, got its own; see {}):\n{difference}", kept.display());
    }
    let mut fired: BTreeMap<String, usize> = rules.iter().map(|rule| (rule.name.clone(), 0)).collect();
    for (name, ..) in expected.into_iter().flatten() {
        *fired.get_mut(&name).unwrap() += 1;
    }
    fired
}

/// The metrics of all rules, each with the value that decides about it.
fn metrics(rules: &[Rule]) -> BTreeMap<&'static str, (&'static Desc, f64)> {
    let mut metrics = BTreeMap::new();
    for condition in rules.iter().flat_map(Rule::conditions) {
        for operand in condition.operands() {
            let metric = operand.selector.metric;
            if let Some(beside) = metric.beside {
                metrics.entry(beside.name).or_insert((beside, 0.0));
            }
            let (_, around) = metrics.entry(metric.name).or_insert((metric, 0.0));
            if operand.function == Function::Value {
                *around = condition.threshold.max(*around);
            }
        }
    }
    metrics
}

/// Compares some worlds, in which every rule fires at some time.
fn compare_all(promtool: Promtool) {
    let metrics = metrics(&rules(promtool));
    // Versions extrapolate otherwise where a counter was near zero when it began; the agent does as 3.x.
    let counted = if promtool == Promtool::Classic { 1_000_000 } else { 0 };
    let world = |seconds, steps, seed, started, behaviour| {
        // Steps that divide no window, so that no sample is exactly at the end of one, which versions take differently.
        World::new(&metrics, (counted, started), Duration::from_secs(seconds), steps, seed, behaviour)
    };
    // Agents that have just started, that started some minutes ago, and long ago.
    let worlds = [
        world(7, 400, 1, -1.0, Behaviour::Lively),
        world(17, 300, 2, -200.0, Behaviour::Calm),
        world(67, 450, 3, -1e6, Behaviour::Lively),
        world(97, 300, 4, -1e6, Behaviour::Ebbing),
    ];
    let mut fired = BTreeMap::new();
    for world in worlds {
        for (rule, times) in compare(&world, promtool) {
            *fired.entry(rule).or_insert(0) += times;
        }
    }
    let silent: Vec<_> = fired.iter().filter(|(_, times)| **times == 0).map(|(rule, _)| rule).collect();
    assert!(silent.is_empty(), "these never fired, so nothing was compared: {silent:?}\n{fired:?}");
}

#[test]
fn both_engines_fire_the_same_alerts() {
    compare_all(Promtool::Classic);
}

#[test]
fn with_native_histograms_they_also_see_the_same_quantiles() {
    compare_all(Promtool::Native);
}

/// Steps of the scenarios, 17 s each: half an hour.
const STEPS: usize = 106;

/// A value from a step on, and before it.
fn then(before: Option<u32>, step: usize, after: Option<u32>) -> Vec<Option<u32>> {
    [vec![before; step], vec![after; STEPS - step]].concat()
}

/// Runs a scenario through both engines, with either histograms, and gives the shipped rules that fired.
fn scenario(started: Vec<f64>, series: Vec<Given<'_>>) -> BTreeSet<String> {
    let world = World::of(Duration::from_secs(17), started, series);
    let shipped = |name: &String| Config::default().alerts.rules.iter().any(|rule| rule.name == *name);
    let fired = [Promtool::Classic, Promtool::Native].map(|promtool| {
        let fired = compare(&world, promtool).into_iter().filter(|(name, times)| *times > 0 && shipped(name));
        fired.map(|(name, _)| name).collect::<BTreeSet<_>>()
    });
    assert_eq!(fired[0], fired[1]);
    fired[0].clone()
}

const GPU: [&str; 3] = ["GPU-1", "0", "H100"];
const XID: [&str; 4] = ["GPU-1", "0", "H100", "79"];
const ECC: [&str; 5] = ["GPU-1", "0", "H100", "uncorrected", "dram"];
const MODEL: [&str; 2] = ["alpha", "11400"];
const ABORTED: [&str; 5] = ["alpha", "11400", "chat_completions", "server", "streaming"];
const LOST: [&str; 3] = ["central", "dropped", "size"];

/// An agent that started when the scenario begins, and one that started long before.
const AGES: [f64; 2] = [-2.0, -1e6];

#[test]
fn what_was_counted_before_it_was_seen_fires_nothing() {
    for age in AGES {
        // NVML opens after the first page, a unit and a disk appear, and remote write has read its ledger.
        let series: Vec<Given<'_>> = vec![
            (&UP, &GPU, then(None, 2, Some(1))),
            (&ECC_ERRORS, &ECC, then(None, 2, Some(42))),
            (&SMART_MEDIA_ERRORS, &["sda"], then(None, 3, Some(7))),
            (&UNIT_RESTARTS, &["a.service"], then(None, 4, Some(9))),
            (&REMOTE_WRITE_COLLECTED, &["central"], then(None, 1, Some(100_000))),
            (&REMOTE_WRITE_SAMPLES, &LOST, then(None, 1, Some(500))),
        ];
        assert_eq!(scenario(vec![age; STEPS], series), BTreeSet::new(), "{age}");
    }
}

#[test]
fn what_goes_and_comes_back_fires_nothing() {
    let away = |step, length, before: u32, after: u32| {
        let mut values = then(Some(before), step + length, Some(after));
        values[step..step + length].fill(None);
        values
    };
    // Released for ten minutes, stopped for a quarter of an hour, lost for a minute; another disk, which had errors before.
    let series: Vec<Given<'_>> = vec![
        (&UP, &GPU, away(20, 36, 1, 1)),
        (&ECC_ERRORS, &ECC, away(20, 36, 42, 42)),
        (&XID_ERRORS, &XID, away(20, 36, 3, 3)),
        (&REQUESTS_IN_FLIGHT, &MODEL, away(10, 53, 0, 0)),
        (&REQUESTS_ABORTED, &ABORTED, away(10, 53, 50, 50)),
        (&ECC_ERRORS, &["GPU-2", "1", "H100", "uncorrected", "dram"], away(30, 4, 42, 42)),
        (&SMART_MEDIA_ERRORS, &["sda"], away(30, 2, 100, 3)),
    ];
    assert_eq!(scenario(vec![-1e6; STEPS], series), BTreeSet::new());
}

#[test]
fn first_events_fire_at_once() {
    for (age, first) in [(-2.0, 0), (-2.0, 3), (-1e6, 3)] {
        let series: Vec<Given<'_>> = vec![
            (&UP, &GPU, then(Some(1), 0, Some(1))),
            (&XID_ERRORS, &XID, then(None, first, Some(1))),
            (&ECC_ERRORS, &ECC, then(Some(42), 3, Some(43))),
            (&REQUESTS_IN_FLIGHT, &MODEL, then(Some(0), 0, Some(0))),
            (&REQUESTS_ABORTED, &ABORTED, then(None, first, Some(7))),
            (&STOPPED_ON_REQUEST, &MODEL, then(Some(0), 0, Some(0))),
            (&REMOTE_WRITE_COLLECTED, &["central"], then(Some(1000), 0, Some(1000))),
            (&REMOTE_WRITE_SAMPLES, &LOST, then(None, 3, Some(500))),
        ];
        let fired = scenario(vec![age; STEPS], series);
        let expected = ["GpuEccUncorrected", "GpuXid", "ModelAbortsRequests", "RemoteWriteLosesSamples"];
        assert_eq!(fired, expected.map(str::to_owned).into(), "{age}, {first}");
    }
}

#[test]
fn requests_aborted_by_a_planned_restart_fire_nothing() {
    for (planned, fired) in [(0, BTreeSet::from(["ModelAbortsRequests".to_owned()])), (1, BTreeSet::new())] {
        let series: Vec<Given<'_>> = vec![
            (&REQUESTS_IN_FLIGHT, &MODEL, then(Some(0), 0, Some(0))),
            (&REQUESTS_ABORTED, &ABORTED, then(None, 30, Some(7))),
            (&STOPPED_ON_REQUEST, &MODEL, then(Some(0), 30, Some(planned))),
        ];
        assert_eq!(scenario(vec![-1e6; STEPS], series), fired);
    }
}

/// The page of before a restart says nothing about the new agent.
#[test]
fn a_restart_of_the_agent_is_no_growth_and_hides_none() {
    let restart = 40;
    let started: Vec<_> = [vec![-1e6; restart], vec![restart as f64 * 17.0 - 1.0; STEPS - restart]].concat();
    let after = |count| {
        let mut aborted = then(Some(50), restart, None);
        aborted[restart + 3..].fill(Some(count));
        let series: Vec<Given<'_>> = vec![
            (&REQUESTS_IN_FLIGHT, &MODEL, then(Some(0), 0, Some(0))),
            (&REQUESTS_ABORTED, &ABORTED, aborted),
            (&STOPPED_ON_REQUEST, &MODEL, then(Some(0), 0, Some(0))),
            (&ECC_ERRORS, &ECC, then(Some(42), 0, Some(42))),
        ];
        scenario(started.clone(), series)
    };
    assert_eq!(after(2), BTreeSet::new());
    assert_eq!(after(6), ["ModelAbortsRequests".to_owned()].into());
}

#[test]
fn the_rule_file_in_deploy_is_what_the_shipped_rules_make() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/citadel-agent.rules.yml");
    let made = rule_file(&Config::default().alerts.rules);
    if env::var_os("UPDATE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "run UPDATE_FIXTURES=1 cargo test -p citadel-agent --test alert_engines");
    for promtool in [Promtool::Classic, Promtool::Native] {
        let checked = promtool.run(&["check", "rules", path.to_str().unwrap()], Path::new("/"));
        checked.unwrap_or_else(|error| panic!("{promtool:?}: {error}"));
    }
}
