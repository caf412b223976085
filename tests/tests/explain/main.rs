//! Causes that are planted into real servers on the running kernel: `explain` names each one first, and nothing where nothing is wrong.
//!
//! `EXPLAIN_REPETITIONS` repeats it, each time in another order; `EXPLAIN_SEED` determines which.

mod model;
mod plants;

use std::any::Any;
use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use citadel_agent_tests::agent::{Agent, Setup, free_port};
use citadel_agent_tests::truth::pause;
use fake_nvml::install::Installed;
use serde_json::Value;

use self::model::{Habit, Model, hanging_request};
use self::plants::{Busy, Gpus, Loss};

/// How much is explained: whole intervals of 5 s.
const LOOKED_AT: &str = "10s";

/// Requests of each model before anything is planted.
const NORMAL: u64 = 60;

/// What has not been explained by then will not be.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model, how it does once the cause is planted, and what the cause is called.
type Case = (&'static str, &'static str, &'static str);

/// Causes that do not disturb other models.
const SIDE_BY_SIDE: [Case; 12] = [
    ("blocked", "slow", "event_loop"),
    ("stalls", "slow", "event_loop"),
    ("lossy", "slow", "network_loss"),
    ("reader", "slow", "slow_reader"),
    ("thinks", "slow", "model_itself"),
    ("full", "slow", "engine_queue"),
    ("hot", "slow", "gpu_throttled"),
    ("shared", "slow", "gpu_shared"),
    ("errors", "failing", "server_errors"),
    ("leaves", "failing", "clients_give_up"),
    ("hangs", "stalled", "hanging_request"),
    ("fine", "well", ""),
];

/// Those that would spoil the others' while they last.
const ALONE: [Case; 2] = [("starved", "slow", "cpu_starvation"), ("disk", "slow", "slow_disk")];

#[test]
fn causes_beside_each_other_are_named_first_and_none_where_nothing_is_wrong() {
    assert_eq!(Host::start(&SIDE_BY_SIDE).wrong(), Vec::<String>::new());
}

#[test]
#[ignore = "needs one and a half minutes of a machine that does nothing else"]
fn each_planted_cause_is_named_first_in_any_order() {
    let number = |name: &str, default: u64| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (repetitions, mut seed) = (number("EXPLAIN_REPETITIONS", 1), number("EXPLAIN_SEED", 1));
    let mut wrong = Vec::new();
    for repetition in 1..=repetitions {
        let mut order = [&SIDE_BY_SIDE[..], &ALONE].concat();
        for at in (1..order.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (seed >> 33) as usize % (at + 1));
        }
        eprintln!("repetition {repetition}: {:?}", order.iter().map(|case| case.0).collect::<Vec<_>>());
        wrong.extend(Host::start(&order).wrong());
    }
    assert!(wrong.is_empty(), "{} causes not named first:\n{}", wrong.len(), wrong.join("\n"));
}

/// An agent, and the models that it measures.
struct Host<'a> {
    agent: Agent,
    models: Vec<(&'a Case, Model)>,
    gpus: Gpus,
    _folder: tempfile::TempDir,
}

impl<'a> Host<'a> {
    fn start(cases: &'a [Case]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a folder on a disk");
        let mut models: Vec<_> = cases.iter().map(|case| (case, Model::start(free_port(), folder.path()))).collect();
        let pid = |name| models.iter().find(|(case, _)| case.0 == name).map_or(0, |(_, model)| model.pid());
        let pids = [pid("hot"), pid("shared")];
        let installed = Installed::new(folder.path(), &Gpus::scenario(pids, false, false), &[]);
        let gpus = Gpus { installed: installed.expect("install the fake NVML"), pids };
        let setup = models.iter().fold(Setup::new(), |setup, (case, model)| setup.model(case.0, model.port));
        let agent = setup.probing().nvml_library(gpus.installed.library()).start();
        agent.assert_measuring();
        for (case, model) in &mut models {
            match case.0 {
                // Something to compute, on one CPU.
                "starved" => {
                    model.tell("burn 0.015");
                    let mut pin = Command::new("taskset");
                    pin.args(["-a", "-c", "-p", "0", &model.pid().to_string()]).stdout(Stdio::null());
                    assert!(pin.status().expect("run taskset").success());
                }
                "reader" => model.tell("bytes 60000"),
                "disk" => model.tell("fsync 0.001"),
                "full" => model.tell("slots 8"),
                _ => {}
            }
            model.load(match case.0 {
                "full" => 6,
                // Some of them come while the server is blocked.
                "blocked" => 4,
                _ => 2,
            });
        }
        Self { agent, models, gpus, _folder: folder }
    }

    /// Plants all causes: what was not named as it should be.
    fn wrong(mut self) -> Vec<String> {
        let requests =
            |found: &Value| found["requests"].as_u64().unwrap_or(0) + found["requests_before"].as_u64().unwrap_or(0);
        let begin = Instant::now();
        while self.explained().iter().filter(|found| requests(found) >= NORMAL).count() < self.models.len() {
            assert!(begin.elapsed() < PATIENCE, "too few requests: {:?}", self.explained());
            pause(500);
        }
        let is_alone = |case: &Case| ALONE.contains(case);
        let together: Vec<_> = (0..self.models.len()).filter(|at| !is_alone(self.models[*at].0)).collect();
        let alone = (0..self.models.len()).filter(|at| is_alone(self.models[*at].0)).map(|at| vec![at]);
        let groups: Vec<_> = std::iter::once(together).chain(alone).collect();
        groups.iter().flat_map(|group| self.plant(group)).collect()
    }

    fn plant(&mut self, group: &[usize]) -> Vec<String> {
        let planted_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as u64;
        let mut held: Vec<Box<dyn Any>> = Vec::new();
        for &at in group {
            let (case, model) = &mut self.models[at];
            match case.0 {
                "blocked" => model.tell("block 0.8"),
                "stalls" => model.tell("stall 0.15"),
                "starved" => held.push(Box::new(Busy::on_cpu(0, 4))),
                "lossy" => held.push(Box::new(Loss::from_port(model.port))),
                "reader" => model.behave(Habit::ReadsSlowly),
                "thinks" | "hot" | "shared" => model.tell("think 0.12"),
                "full" => model.tell("slots 1"),
                "disk" => model.tell("fsync 0.12"),
                "errors" => model.tell("errors 2"),
                "leaves" => model.behave(Habit::HangsUp),
                "hangs" => held.push(Box::new(hanging_request(model.port))),
                _ => {}
            }
        }
        let has = |name| group.iter().any(|at| self.models[*at].0.0 == name);
        self.gpus.set(has("hot"), has("shared"));
        let wrong = self.judge(group, planted_ms);
        drop(held);
        for &at in group {
            let (case, model) = &mut self.models[at];
            model.behave(Habit::Reads);
            for line in ["block 0", "stall 0", "think 0.03", "errors 0"] {
                model.tell(line);
            }
            match case.0 {
                "disk" => model.tell("fsync 0.001"),
                "full" => model.tell("slots 8"),
                _ => {}
            }
        }
        self.gpus.set(false, false);
        wrong
    }

    /// What is wrong with what the agent explains of models, from when all that it looks at is after the planting: each cause is
    /// named once, while nothing is wrong with those that are well.
    fn judge(&self, group: &[usize], planted_ms: u64) -> Vec<String> {
        let begin = Instant::now();
        let mut unnamed: Vec<_> = group.iter().map(|at| self.models[*at].0).filter(|case| !case.2.is_empty()).collect();
        loop {
            let found = self.explained();
            let is_right = |case: &Case| {
                let Some(found) = found.iter().find(|found| found["model"] == case.0) else { return false };
                let of_first = |key: &str| found["causes"][0][key].as_str().unwrap_or_default();
                let (first, sentence) = (of_first("cause"), of_first("sentence"));
                // The sentence also names the process that takes the CPUs.
                let named = |cause| cause != "cpu_starvation" || sentence.contains(": sh uses ");
                found["verdict"] == case.1 && first == case.2 && named(first)
            };
            if found.iter().all(|found| found["from_ms"].as_u64() >= Some(planted_ms)) {
                unnamed.retain(|case| !is_right(case));
                let well = group.iter().map(|at| self.models[*at].0).filter(|case| case.2.is_empty());
                let wrong: Vec<_> = unnamed.iter().copied().chain(well.filter(|case| !is_right(case))).collect();
                if wrong.is_empty() || begin.elapsed() > PATIENCE / 2 {
                    let named = group.len() - wrong.len();
                    eprintln!("{named} of {} named first after {:.0?}", group.len(), begin.elapsed());
                    return wrong.into_iter().map(|case| self.complain(case)).collect();
                }
            }
            pause(500);
        }
    }

    fn explained(&self) -> Vec<Value> {
        let (status, text) = self.agent.command(&["explain", "--last", LOOKED_AT, "--format", "json"]);
        assert!(status.success(), "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    fn complain(&self, (name, verdict, cause): &Case) -> String {
        let (_, text) = self.agent.command(&["explain", "--model", name, "--last", LOOKED_AT]);
        format!("{name}: expected {verdict} because of {cause}, but `explain` says:\n{text}")
    }
}
