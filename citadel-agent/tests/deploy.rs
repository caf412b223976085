//! What is in `deploy/` names metrics and labels that exist, and is what Prometheus, Alertmanager and Grafana take.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use citadel_agent::metrics::catalogue::{self, Desc, Kind, Section};
use serde_json::Value as Json;
use support::promql;

/// Labels that Prometheus adds.
const TARGET: [&str; 2] = ["instance", "job"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn dashboards() -> BTreeMap<String, Json> {
    let files = fs::read_dir(deploy().join("grafana/dashboards")).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let json = serde_json::from_str(&fs::read_to_string(&path).unwrap());
            (name, json.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect()
}

/// Expressions of a dashboard, each with the title of its panel.
fn expressions(dashboard: &Json) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["datasource"]["type"] != "loki");
    let of_panel = |panel: &Json| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels.flat_map(of_panel).collect()
}

/// The catalogue's entry behind a name of an expression, and whether the name is of its classic buckets.
fn metric(name: &str) -> Option<(&'static Desc, bool)> {
    let exact = catalogue::all().find(|desc| desc.name == name).map(|desc| (desc, false));
    let buckets = || {
        let base = name.strip_suffix("_bucket")?;
        catalogue::all().find(|desc| desc.name == base && desc.kind == Kind::Histogram).map(|desc| (desc, true))
    };
    exact.or_else(buckets)
}

/// What is wrong with the names in an expression.
fn unknown_names(expression: &str) -> Vec<String> {
    let (metrics, grouped) = promql::names(expression);
    assert!(!metrics.is_empty(), "{expression} names no metric");
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<&str> = TARGET.into();
    for (name, matched) in &metrics {
        let Some((desc, buckets)) = metric(name) else {
            wrong.push(format!("{name} is not in the catalogue"));
            continue;
        };
        let own: BTreeSet<&str> = desc.labels.iter().copied().chain(TARGET).chain(buckets.then_some("le")).collect();
        wrong.extend(matched.iter().filter(|l| !own.contains(l.as_str())).map(|l| format!("{name} has no label {l}")));
        labels.extend(own);
    }
    wrong.extend(
        grouped.iter().filter(|l| !labels.contains(l.as_str())).map(|l| format!("no metric has the label {l}")),
    );
    wrong
}

#[test]
fn every_name_in_a_dashboard_is_in_the_catalogue() {
    let mut wrong = Vec::new();
    for (name, dashboard) in dashboards() {
        for (panel, expression) in expressions(&dashboard) {
            wrong.extend(unknown_names(&expression).into_iter().map(|what| format!("{name}, {panel:?}: {what}")));
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            // label_values(SELECTOR, LABEL)
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (selector, label) = inner.rsplit_once(", ").unwrap();
            let grouped = format!("sum by ({label}) ({selector})");
            wrong.extend(unknown_names(&grouped).into_iter().map(|what| format!("{name}, variable: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `host` and `job` are labels of streams, `model` is structured metadata (docs/logs.md).
#[test]
fn a_models_dashboard_has_its_logs_by_labels_that_the_agent_sends() {
    let dashboard = &dashboards()["models"];
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries =
        panels.filter(|panel| panel["type"] == "logs").map(|panel| panel["targets"][0]["expr"].as_str().unwrap());
    let names: Vec<Vec<&str>> = queries
        .map(|query| {
            assert!(query.contains("$instance") && query.contains("$model"), "{query}");
            let before = query.split("=~").map(|part| part.rsplit(['{', ',', ' ']).next().unwrap());
            before.take(query.matches("=~").count()).collect()
        })
        .collect();
    assert_eq!(names, [["host", "job", "model"]]);
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

#[test]
fn an_unknown_name_is_found() {
    assert_eq!(
        unknown_names("rate(citadel_no_such_thing_total[5m])"),
        ["citadel_no_such_thing_total is not in the catalogue"]
    );
    assert_eq!(
        unknown_names("sum by (planet) (citadel_model_connections_open{modle=\"a\"})"),
        ["citadel_model_connections_open has no label modle", "no metric has the label planet"]
    );
}

/// A page that has metrics has a dashboard.
#[test]
fn every_page_has_a_dashboard() {
    let dashboards = dashboards();
    let pages = [
        (Section::Models, "models"),
        (Section::Gpu, "gpu"),
        (Section::System, "system"),
        (Section::Storage, "storage"),
        (Section::Services, "services"),
        (Section::Agent, "agent"),
    ];
    for (section, name) in pages {
        let has_metrics = catalogue::all().any(|desc| desc.section == section);
        assert_eq!(has_metrics, dashboards.contains_key(name), "{name}");
    }
    let uids: BTreeSet<_> = dashboards.values().map(|dashboard| dashboard["uid"].as_str().unwrap()).collect();
    assert_eq!(uids.len(), dashboards.len(), "each has a uid of its own: {uids:?}");
    for (name, dashboard) in &dashboards {
        let ids: Vec<_> = dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64()).collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert!(distinct.len() == ids.len() && !ids.contains(&None), "{name}: {ids:?}");
    }
}

fn run(program: &str, arguments: &[&str], package: &str) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed ({error}): apt-get install {package}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// promtool parses every expression of every dashboard, as the rules of one file.
#[test]
fn promtool_takes_every_expression() {
    let dashboards = dashboards();
    let expressions = dashboards.values().flat_map(expressions).enumerate();
    let rules = expressions.map(|(i, (_, expression))| {
        let expression = expression.replace("$__rate_interval", "5m");
        serde_json::json!({"record": format!("e{i}"), "expr": expression})
    });
    let file = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules.collect::<Vec<_>>()}]});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yml");
    fs::write(&path, file.to_string()).unwrap();
    run("promtool", &["check", "rules", path.to_str().unwrap()], "prometheus");
}

#[test]
fn promtool_and_amtool_take_the_configurations() {
    let file = |name: &str| deploy().join(name).to_str().unwrap().to_owned();
    run("promtool", &["check", "config", &file("prometheus/prometheus.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/agent-down.rules.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/citadel-recording.rules.yml")], "prometheus");
    run("promtool", &["check", "rules", &file("prometheus/fleet.rules.yml")], "prometheus");
    run("amtool", &["check-config", &file("alertmanager/alertmanager.yml")], "prometheus-alertmanager");
}

/// The expressions of a rule file.
fn rule_expressions(name: &str) -> Vec<String> {
    let text = fs::read_to_string(deploy().join("prometheus").join(name)).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let after = |(index, line): (usize, &&str)| match line.strip_prefix("expr: ")? {
        "|-" => Some(lines[index + 1].to_owned()),
        expression => Some(expression.to_owned()),
    };
    lines.iter().enumerate().filter_map(after).collect()
}

#[test]
fn fleet_rules_name_what_exists() {
    let expressions = rule_expressions("fleet.rules.yml");
    assert!(expressions.len() >= 6, "{expressions:?}");
    for expression in expressions {
        assert_eq!(unknown_names(&expression), Vec::<String>::new(), "{expression}");
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
    let text = fs::read_to_string(&rules).unwrap();
    for expression in text.lines().map(str::trim).filter(|line| line.contains("rate(citadel_")) {
        let (metrics, _) = promql::names(expression.trim_start_matches(['/', '(', ' ']));
        for (name, labels) in metrics.iter().filter(|(name, _)| !name.starts_with("citadel:")) {
            let base = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count")).unwrap_or(name);
            let (desc, _) = metric(base).unwrap_or_else(|| panic!("{base} is not in the catalogue"));
            assert!(labels.iter().all(|label| desc.labels.contains(&label.as_str())), "{name}: {labels:?}");
        }
    }
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
