//! What is in `deploy/` names metrics and labels that exist, and is what Prometheus and Alertmanager take. Dashboards have
//! tests of their own: `dashboards`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use citadel_agent_common::abi::Lost;
use support::{names, promql};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

#[test]
fn the_names_in_an_expression_are_found() {
    let expression = r#"histogram_quantile(0.99, sum by (model, le) (rate(a_bucket{x=~"}\"{",y!="1"}[$__rate_interval]))) > 1e3
        or sum without (z) (b offset 5m) / on (q) group_left () c unless d == bool 0x10"#;
    let (metrics, grouped) = promql::names(expression);
    let found: Vec<_> = metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, ["a_bucket", "b", "c", "d"]);
    assert_eq!(metrics[0].1, ["x", "y"].map(str::to_owned).into());
    assert_eq!(grouped, ["le", "model", "q", "z"].map(str::to_owned).into());
}

fn run(program: &str, arguments: &[&str], package: &str) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed ({error}): apt-get install {package}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

#[test]
fn promtool_and_amtool_take_the_configurations() {
    let file = |name: &str| deploy().join(name).to_str().unwrap().to_owned();
    run("promtool", &["check", "config", &file("prometheus/prometheus.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/agent-down.rules.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/citadel-recording.rules.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/fleet.rules.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/native-histograms.rules.yml")], "prometheus");
    run("amtool", &["check-config", &file("alertmanager/alertmanager.yml")], "prometheus-alertmanager");
}

/// The expressions of a rule file, each on one line.
fn rule_expressions(name: &str) -> Vec<String> {
    let text = fs::read_to_string(deploy().join("prometheus").join(name)).unwrap();
    let rules = text.split("expr: ").skip(1);
    let ends = |line: &&str| {
        line.is_empty() || ["- record:", "- alert:", "for:", "labels:", "#"].iter().any(|key| line.starts_with(key))
    };
    let one = |rule: &str| {
        let lines = rule.trim_start_matches(['|', '>', '-']).trim_start().lines().map(str::trim);
        lines.take_while(|line| !ends(line)).collect::<Vec<_>>().join(" ")
    };
    rules.map(one).collect()
}

#[test]
fn recording_rules_name_what_exists() {
    let files = ["fleet.rules.yml", "citadel-recording.rules.yml", "native-histograms.rules.yml"];
    let expressions = files.map(rule_expressions).concat();
    assert!(expressions.len() >= 15, "{expressions:?}");
    for expression in expressions {
        assert_eq!(names::unknown(&expression), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn a_host_that_no_longer_writes_is_noticed_and_one_that_is_scraped_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let rules = deploy().join("prometheus/agent-down.rules.yml");
    // `writes` ends after ten minutes and `scraped` stops to answer then; `well` goes on.
    let cases = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n\
         \x20 - {{series: 'citadel_agent_build_info{{job=\"citadel-agent\",instance=\"writes\"}}', values: '1x10 _x2000'}}\n\
         \x20 - {{series: 'citadel_agent_build_info{{job=\"citadel-agent\",instance=\"well\"}}', values: '1x2000'}}\n\
         \x20 - {{series: 'citadel_agent_build_info{{job=\"citadel-agent\",instance=\"scraped\"}}', values: '1x10 stale _x2000'}}\n\
         \x20 - {{series: 'up{{job=\"citadel-agent\",instance=\"scraped\"}}', values: '1x10 0x2000'}}\n\
         \x20 alert_rule_test:\n\
         \x20 - {{eval_time: 9m, alertname: CitadelAgentSilent, exp_alerts: []}}\n\
         \x20 - {{eval_time: 9m, alertname: CitadelAgentDown, exp_alerts: []}}\n\
         \x20 - eval_time: 25m\n    alertname: CitadelAgentSilent\n    exp_alerts:\n    - exp_labels: {{severity: critical, instance: writes}}\n{}\
         \x20 - eval_time: 25m\n    alertname: CitadelAgentDown\n    exp_alerts:\n    - exp_labels: {{severity: critical, instance: scraped, job: citadel-agent}}\n{}\
         \x20 - {{eval_time: 1500m, alertname: CitadelAgentSilent, exp_alerts: []}}\n",
        rules.display(),
        annotations("CitadelAgentSilent", "writes"),
        annotations("CitadelAgentDown", "scraped"),
    );
    let path = dir.path().join("cases.yml");
    fs::write(&path, cases).unwrap();
    run("promtool", &["test", "rules", path.to_str().unwrap()], "prometheus");
}

/// What a test case must expect of an alert's annotations, out of the rule file.
fn annotations(alert: &str, instance: &str) -> String {
    let text = fs::read_to_string(deploy().join("prometheus/agent-down.rules.yml")).unwrap();
    let rule = text.split("- alert: ").find(|rule| rule.starts_with(alert)).unwrap();
    let line = |name: &str| {
        let line = rule.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        format!("        {name}{}\n", line.replace("{{ $labels.instance }}", instance))
    };
    format!("      exp_annotations:\n{}{}", line("summary:"), line("description:"))
}

/// Who sees events lost finds the reason explained.
#[test]
fn each_reason_for_a_loss_is_explained() {
    let text = fs::read_to_string(deploy().join("../docs/troubleshooting.md")).unwrap();
    let unexplained: Vec<_> =
        Lost::ALL.iter().map(|lost| lost.label()).filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(unexplained.is_empty(), "docs/troubleshooting.md does not explain {unexplained:?}");
}

#[test]
fn every_rule_file_is_loaded_and_installed() {
    let read = |name: &str| fs::read_to_string(deploy().join(name)).unwrap();
    let (loaded, installed) = (read("prometheus/prometheus.yml"), read("dev-ops/setup.sh"));
    let files = fs::read_dir(deploy().join("prometheus")).unwrap().map(|file| file.unwrap().file_name());
    let names: Vec<_> =
        files.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".rules.yml")).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        assert!(loaded.contains(&format!("- {name}")), "prometheus.yml does not load {name}");
        assert!(installed.contains(&name), "setup.sh does not install {name}");
    }
}

/// VictoriaMetrics evaluates all rules but those of native histograms.
#[test]
fn vmalert_takes_the_rules() {
    let vmalert = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/victoria-metrics/usr/bin/vmalert");
    for name in ["citadel-agent", "agent-down", "citadel-recording", "fleet"] {
        let rule = format!("-rule={}", deploy().join(format!("prometheus/{name}.rules.yml")).display());
        run(vmalert, &["-dryRun", &rule], "victoriametrics (cargo xtask setup test)");
    }
}

/// What a Compose file mounts is there.
#[test]
fn the_compose_file_mounts_what_exists() {
    let folder = deploy().join("dev-ops");
    let text = fs::read_to_string(folder.join("compose.yml")).unwrap();
    let mounted: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("- ..")?.split(':').next()).collect();
    assert_eq!(mounted.len(), 5, "{mounted:?}");
    for path in mounted {
        assert!(folder.join(format!("..{path}")).exists(), "..{path} is not there");
    }
}

/// The texts of messages: what causes the rest is before what it causes.
#[test]
fn a_message_names_the_cause_first() {
    let data = serde_json::json!({
        "status": "firing", "receiver": "everybody", "groupLabels": {}, "commonAnnotations": {}, "externalURL": "http://a/",
        "commonLabels": {"instance": "host1", "model": "phi3"},
        "alerts": [
            {"status": "firing", "labels": {"alertname": "ModelFirstTokenSlow", "severity": "warning"},
             "annotations": {"summary": "phi3 is slow", "description": "d1"}, "startsAt": "2026-01-02T03:04:05Z"},
            {"status": "firing", "labels": {"alertname": "GpuLost", "severity": "critical"},
             "annotations": {"summary": "a GPU is lost", "description": "d2"}, "startsAt": "2026-01-02T03:04:05Z"},
        ],
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.json");
    fs::write(&path, data.to_string()).unwrap();
    let template = deploy().join("alertmanager/citadel.tmpl");
    let render = |text: &str| {
        let output = Command::new("amtool")
            .args(["template", "render"])
            .arg(format!("--template.glob={}", template.display()))
            .arg(format!("--template.data={}", path.display()))
            .arg(format!("--template.text={text}"))
            .output()
            .expect("install it: apt-get install prometheus-alertmanager");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = render("{{ template \"citadel.text\" . }}");
    assert!(text.find("a GPU is lost").unwrap() < text.find("phi3 is slow").unwrap(), "{text}");
    let subject = render("{{ template \"citadel.subject\" . }}");
    assert!(subject.starts_with("[FIRING: 2] host1, phi3: "), "{subject}");
}

/// What Alertmanager inhibits by name exists.
#[test]
fn alertmanager_names_rules_that_exist() {
    let text = fs::read_to_string(deploy().join("alertmanager/alertmanager.yml")).unwrap();
    let rules = fs::read_to_string(deploy().join("prometheus/citadel-agent.rules.yml")).unwrap();
    for name in text.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(rules.contains(&format!("alert: \"{name}\"")), "there is no rule {name}");
    }
}

/// Ten requests whose first token took the engine 0.2 s and the wire 0.25 s, and one model of which only the wire is known.
#[test]
fn the_frontends_delay_is_the_difference_of_two_means() {
    let rules = deploy().join("prometheus/citadel-recording.rules.yml");
    let series = |name: &str, labels: &str, step: f64| {
        let own = format!("{name}{{instance=\"h\", job=\"j\", model=\"m\", port=\"11400\"{labels}}}");
        serde_json::json!({"series": own, "values": format!("0+{step}x20")})
    };
    let labels = "{instance=\"h\", job=\"j\", model=\"m\", port=\"11400\"}";
    let tests = serde_json::json!({
        "rule_files": [rules.canonicalize().unwrap()],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("citadel_engine_phase_seconds_total", ", engine=\"vllm\", phase=\"first_token\"", 2.0),
                series("citadel_engine_phases_total", ", engine=\"vllm\", phase=\"first_token\"", 10.0),
                series("citadel_engine_phase_seconds_total", ", engine=\"vllm\", phase=\"queue\"", 50.0),
                series("citadel_engine_phases_total", ", engine=\"vllm\", phase=\"queue\"", 10.0),
                series("citadel_model_time_to_first_token_seconds_sum", ", endpoint=\"chat_completions\"", 1.5),
                series("citadel_model_time_to_first_token_seconds_count", ", endpoint=\"chat_completions\"", 6.0),
                series("citadel_model_time_to_first_token_seconds_sum", ", endpoint=\"completions\"", 1.0),
                series("citadel_model_time_to_first_token_seconds_count", ", endpoint=\"completions\"", 4.0),
            ],
            "promql_expr_test": [{
                "expr": "round(citadel:frontend_delay_seconds:mean5m * 1000)",
                "eval_time": "15m",
                "exp_samples": [{"labels": labels, "value": 50}],
            }],
        }],
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.yml");
    fs::write(&path, tests.to_string()).unwrap();
    run("promtool", &["test", "rules", path.to_str().unwrap()], "prometheus");
}

/// Two models on a host: of one fire a warning and a critical alert, of the other nothing. A second host is well.
#[test]
fn a_verdict_is_the_worst_alert_that_fires() {
    let dir = tempfile::tempdir().unwrap();
    let alert = |name: &str, severity: &str, metric: &str| serde_json::json!({"alert": name, "expr": format!("{metric} > 0"), "labels": {"severity": severity}});
    let alerts = [alert("Slow", "warning", "slow"), alert("Down", "critical", "down"), alert("Hot", "warning", "hot")];
    let file = serde_json::json!({"groups": [{"name": "alerts", "rules": alerts}]});
    fs::write(dir.path().join("alerts.yml"), file.to_string()).unwrap();
    let model = |instance: &str, model: &str| format!("{{instance=\"{instance}\", model=\"{model}\"}}");
    let series =
        |name: &str, labels: String| serde_json::json!({"series": name.to_owned() + &labels, "values": "1x10"});
    let verdict = |query: &str, values: &[(String, u64)]| {
        let samples: Vec<_> =
            values.iter().map(|(labels, value)| serde_json::json!({"labels": labels, "value": value})).collect();
        serde_json::json!({"expr": query, "eval_time": "8m", "exp_samples": samples})
    };
    let name = |level: &str, labels: String| format!("{level}:citadel_verdict:max{labels}");
    let host = |instance: &str| format!("{{instance=\"{instance}\"}}");
    let tests = serde_json::json!({
        "rule_files": ["alerts.yml", deploy().join("prometheus/fleet.rules.yml").canonicalize().unwrap()],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("citadel_model_connections_open", model("a", "m")),
                series("citadel_model_connections_open", model("a", "n")),
                series("citadel_agent_build_info", host("a")),
                series("citadel_agent_build_info", host("b")),
                series("citadel_agent_build_info", host("c")),
                series("slow", model("a", "m")),
                series("down", model("a", "m")),
                series("hot", host("c")),
            ],
            "promql_expr_test": [
                verdict("instance_model:citadel_verdict:max", &[
                    (name("instance_model", model("a", "m")), 3), (name("instance_model", model("a", "n")), 0),
                ]),
                verdict("instance:citadel_verdict:max", &[
                    (name("instance", host("a")), 3), (name("instance", host("b")), 0), (name("instance", host("c")), 2),
                ]),
            ],
        }],
    });
    let path = dir.path().join("test.yml");
    fs::write(&path, tests.to_string()).unwrap();
    run("promtool", &["test", "rules", path.to_str().unwrap()], "prometheus");
}

/// Three models: tokens counted by the engine, stated by all responses, and stated by nine of ten.
#[test]
fn energy_per_token_is_of_known_tokens_only() {
    let rules = deploy().join("prometheus/citadel-recording.rules.yml");
    let series = |name: &str, model: &str, more: &str, each_minute: u32| {
        let own = format!("{name}{{instance=\"h\", job=\"j\", model=\"{model}\", port=\"1\"{more}}}");
        serde_json::json!({"series": own, "values": format!("0+{each_minute}x20")})
    };
    let usage = "citadel_model_requests_with_usage_total";
    let energy = "citadel_model_gpu_energy_joules_total";
    let stated = "citadel_model_tokens_total";
    let completion = ", kind=\"completion\"";
    let input = [
        // 10 tokens per second, 30 W of two GPUs. What its responses state is less, because of aborted requests.
        series("citadel_engine_tokens_total", "counts", ", engine=\"vllm\", kind=\"generated\"", 600),
        series("citadel_engine_tokens_total", "counts", ", engine=\"vllm\", kind=\"prompt\"", 9000),
        series(stated, "counts", completion, 500),
        series(usage, "counts", "", 30),
        series(energy, "counts", ", gpu=\"a\"", 1200),
        series(energy, "counts", ", gpu=\"b\"", 600),
        // 5 tokens per second, 10 W.
        series(stated, "states", completion, 300),
        series(stated, "states", ", kind=\"prompt\"", 6000),
        series(usage, "states", "", 60),
        series(energy, "states", ", gpu=\"a\"", 600),
        series(stated, "partly", completion, 300),
        series(usage, "partly", "", 54),
        series("citadel_model_requests_without_usage_total", "partly", "", 6),
        series(energy, "partly", ", gpu=\"a\"", 600),
    ];
    let labels = |model: &str, source: &str| {
        let source = if source.is_empty() { String::new() } else { format!(", source=\"{source}\"") };
        format!("{{instance=\"h\", job=\"j\", model=\"{model}\", port=\"1\"{source}}}")
    };
    let sample =
        |model: &str, source: &str, value: f64| serde_json::json!({"labels": labels(model, source), "value": value});
    let case = |expr: &str, samples: &[serde_json::Value]| serde_json::json!({"expr": expr, "eval_time": "15m", "exp_samples": samples});
    let tests = serde_json::json!({
        "rule_files": [rules.canonicalize().unwrap()],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": input,
            "promql_expr_test": [
                case("citadel:usage_stated:ratio5m + 0", &[sample("counts", "", 1.0), sample("partly", "", 0.9), sample("states", "", 1.0)]),
                case("citadel:generated_tokens:rate5m + 0", &[sample("counts", "engine", 10.0), sample("states", "responses", 5.0)]),
                case(
                    "citadel:gpu_energy_per_generated_token_joules:mean5m + 0",
                    &[sample("counts", "engine", 3.0), sample("states", "responses", 2.0)],
                ),
            ],
        }],
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.yml");
    fs::write(&path, tests.to_string()).unwrap();
    run("promtool", &["test", "rules", path.to_str().unwrap()], "prometheus");
}
