//! The dashboards in `deploy/grafana`: made of the tables here, checked against the catalogue of metrics, Grafana's own
//! schema and a real Prometheus that has scraped every metric.

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod fleet;
mod fleet_page;
mod gpu;
mod grafana;
mod host;
mod model;
mod panel;
mod query;
mod services;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use boon::{Compiler, Schemas};
use grafana::{Annotation, Dashboard};
use query::Scope;
use serde_json::Value as Json;
use support::names;
use support::prometheus::Prometheus;

/// Every dashboard.
fn dashboards() -> [Dashboard; 6] {
    [
        fleet::dashboard(),
        model::dashboard(),
        gpu::dashboard(),
        host::dashboard(),
        services::dashboard(),
        agent::dashboard(),
    ]
}

/// Alerts while they fire; those of a host concern its models as well.
fn alerts(scope: Scope) -> Annotation {
    let firing = scope.series("ALERTS", r#"alertstate="firing""#);
    let expr = firing.replace(r#"model="$model""#, r#"model=~"${model:regex}|""#);
    Annotation {
        name: "Alerts",
        colour: "red",
        expr,
        title: "{{alertname}}",
        text: "{{severity}}: {{instance}} {{model}}",
    }
}

/// The agent was started: its counters begin at zero.
fn agent_started(scope: Scope) -> Annotation {
    let changed = format!("changes({}[2m]) > 0", scope.series("process_start_time_seconds", ""));
    Annotation {
        name: "Agent started",
        colour: "purple",
        expr: query::own(&changed),
        title: "citadel-agent started",
        text: "on {{instance}}: requests in flight then are not counted",
    }
}

/// The agent loaded its configuration again.
fn configuration_loaded(scope: Scope) -> Annotation {
    let loaded = scope.series("citadel_config_last_reload_success_timestamp_seconds", "");
    Annotation {
        name: "Configuration loaded",
        colour: "yellow",
        expr: format!("changes({loaded}[2m]) > 0"),
        title: "citadel-agent loaded its configuration",
        text: "on {{instance}}",
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards")
}

fn panels(dashboard: &Json) -> impl Iterator<Item = &Json> {
    dashboard["panels"].as_array().unwrap().iter()
}

/// A PromQL expression of a dashboard.
struct Expression {
    /// Dashboard and panel, or annotation.
    at: String,
    /// The panel's type.
    kind: String,
    text: String,
    legend: String,
}

/// All that Prometheus is asked for.
fn expressions() -> Vec<Expression> {
    let mut all = Vec::new();
    for dashboard in dashboards().map(|dashboard| dashboard.json()) {
        let name = dashboard["title"].as_str().unwrap();
        for panel in panels(&dashboard).filter(|panel| panel["datasource"]["type"] == "prometheus") {
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            all.extend(panel["targets"].as_array().unwrap().iter().map(|target| Expression {
                at: format!("{name}, {}", text(&panel["title"])),
                kind: text(&panel["type"]),
                text: text(&target["expr"]),
                legend: text(&target["legendFormat"]),
            }));
        }
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            let text = annotation["expr"].as_str().unwrap().to_owned();
            let at = format!("{name}, annotation {}", annotation["name"]);
            all.push(Expression { at, kind: "annotation".to_owned(), text, legend: String::new() });
        }
    }
    all
}

#[test]
fn the_files_are_what_the_tables_say() {
    let mut files = BTreeSet::new();
    for dashboard in dashboards() {
        let path = folder().join(format!("{}.json", dashboard.file));
        let made = dashboard.json();
        if env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let there: Json = serde_json::from_str(&text).unwrap_or_default();
        assert!(
            there == made,
            "run UPDATE_FIXTURES=1 cargo test -p citadel-agent --test dashboards: {}",
            path.display()
        );
        files.insert(path.file_name().unwrap().to_owned());
    }
    let there: BTreeSet<_> = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(there, files, "files that no table makes");
}

/// The schema of Grafana's foundation SDK: of the dashboard, and of what a panel's plugin and a data source define.
#[test]
fn grafana_knows_every_key_and_value() {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grafana");
    let mut read = |name: &str| {
        let text = fs::read_to_string(fixtures.join(format!("{name}.json"))).unwrap();
        let schema: Json = serde_json::from_str(&text).unwrap();
        let known = schema["definitions"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        compiler.add_resource(&format!("{name}.json"), schema).unwrap();
        known
    };
    let dashboard_types = read("dashboard");
    assert!(dashboard_types.contains("Panel"));
    let plugins = ["timeseries", "stat", "heatmap", "table", "logs", "text"].map(|name| (name, read(name)));
    assert!(read("prometheus").contains("Dataquery"));
    let mut wrong = Vec::new();
    let mut check = |at: &str, schema: &str, value: &Json| {
        let index = compiler.compile(schema, &mut schemas).unwrap_or_else(|error| panic!("{schema}: {error:#}"));
        if let Err(error) = schemas.validate(value, index) {
            wrong.push(format!("{at}: {error:#}"));
        }
    };
    for dashboard in dashboards() {
        let json = dashboard.json();
        check(dashboard.file, "dashboard.json", &json);
        for panel in panels(&json).filter(|panel| panel["type"] != "row") {
            let at = format!("{}, {}", dashboard.file, panel["title"]);
            let plugin = panel["type"].as_str().unwrap();
            let types = &plugins.iter().find(|(name, _)| *name == plugin).expect("a plugin with a schema").1;
            check(&at, &format!("{plugin}.json#/definitions/Options"), &panel["options"]);
            let custom = &panel["fieldConfig"]["defaults"]["custom"];
            if types.contains("FieldConfig") && !custom.is_null() {
                check(&at, &format!("{plugin}.json#/definitions/FieldConfig"), custom);
            }
            if panel["datasource"]["type"] == "prometheus" {
                let targets = panel["targets"].as_array().unwrap();
                targets.iter().for_each(|target| check(&at, "prometheus.json#/definitions/Dataquery", target));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn panels_neither_overlap_nor_share_an_id() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        assert!(uids.insert(dashboard.uid()), "{}", dashboard.uid());
        let json = dashboard.json();
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&json) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{panel}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{}: {} covers another panel", dashboard.file, panel["title"]);
            }
        }
    }
}

/// "All" must not merge hosts: every aggregation and every legend keeps `instance`, but for totals over the fleet.
#[test]
fn hosts_are_told_apart() {
    for one in expressions() {
        let groupings = one.text.split(" by (").skip(1);
        let merged = groupings.map(|rest| rest.split(')').next().unwrap()).find(|labels| !labels.contains("instance"));
        assert_eq!(merged, None, "{}: {}", one.at, one.text);
        if one.kind == "timeseries" {
            assert!(one.legend.starts_with("{{instance}}"), "{}: {}", one.at, one.legend);
        }
    }
}

/// `host` and `severity` are labels of streams, `model` is structured metadata (docs/logs.md).
#[test]
fn log_panels_ask_for_labels_that_the_agent_sends() {
    let asked = dashboards().map(|dashboard| {
        let json = dashboard.json();
        let logs = panels(&json).filter(|panel| panel["type"] == "logs");
        let queries: String = logs.map(|panel| panel["targets"][0]["expr"].as_str().unwrap()).collect();
        let names = queries.split_inclusive('=').filter_map(|part| part.strip_suffix('='));
        let labels = names.map(|part| part.rsplit(['{', ',', ' ']).next().unwrap().to_owned()).collect::<Vec<_>>();
        (dashboard.file, labels.join(" "))
    });
    let asked: Vec<_> = asked.iter().filter(|(_, labels)| !labels.is_empty()).collect();
    assert_eq!(asked, [&("model", "host model".to_owned()), &("services", "host severity".to_owned())]);
}

/// Links lead to dashboards that exist.
#[test]
fn links_lead_somewhere() {
    let uids = dashboards().map(|dashboard| dashboard.uid());
    let mut links = 0;
    for dashboard in dashboards() {
        let text = dashboard.json().to_string();
        for target in text.split("\"/d/").skip(1) {
            let uid: String = target.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            assert!(uids.contains(&uid), "{}: {uid}", dashboard.file);
            links += 1;
        }
    }
    assert!(links > 10, "{links}");
}

#[test]
fn every_name_is_in_the_catalogue() {
    let mut wrong = Vec::new();
    for one in expressions() {
        wrong.extend(names::unknown(&one.text).into_iter().map(|what| format!("{}: {what}", one.at)));
    }
    for dashboard in dashboards().map(|dashboard| dashboard.json()) {
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        for query in variables.filter_map(|variable| variable["query"]["query"].as_str()) {
            // label_values(SELECTOR, LABEL)
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (selector, label) = inner.rsplit_once(", ").unwrap();
            wrong.extend(names::unknown(&format!("sum by ({label}) ({selector})")));
        }
        let descriptions = panels(&dashboard).filter_map(|panel| panel["description"].as_str());
        wrong.extend(descriptions.flat_map(names::unknown_dcgm));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_page_of_metrics_is_shown() {
    let texts: Vec<_> = expressions().into_iter().map(|one| one.text).collect();
    for section in names::sections() {
        let shown = names::of(section).filter(|name| texts.iter().any(|text| text.contains(name))).count();
        assert!(shown >= 4, "{section:?}: {shown} metrics on dashboards");
    }
}

#[test]
fn promtool_takes_every_expression() {
    let rules = expressions().into_iter().enumerate().map(|(i, one)| {
        let expression = one.text.replace("$__rate_interval", "5m");
        serde_json::json!({"record": format!("e{i}"), "expr": expression})
    });
    let file = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules.collect::<Vec<_>>()}]});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yml");
    fs::write(&path, file.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&path).output();
    let output = output.expect("promtool is needed: apt-get install prometheus");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One Prometheus keeps classic buckets, one native histograms; both evaluate the recording rules and the alerts.
#[test]
fn every_panel_has_data_with_classic_and_with_native_histograms() {
    let server = fleet_page::serve();
    let both = [("classic", &[][..]), ("native", &["--enable-feature=native-histograms"][..])]
        .map(|(name, flags)| (name, fleet_page::scrape(server.addr, flags)));
    let mut empty = Vec::new();
    for (name, (prometheus, _)) in &both {
        fleet_page::wait_for_rules(prometheus);
        for one in expressions() {
            let mut series = answer(prometheus, &one.text, "phi3");
            if series.is_empty() {
                series = answer(prometheus, &one.text, "mixtral");
            }
            // Of a heat map's two queries one is for each kind of histogram.
            let other_kind = one.kind == "heatmap" && (*name == "native") == one.text.contains("_bucket");
            if series.is_empty() != other_kind {
                empty.push(format!("{name}, {}: {} series: {}", one.at, series.len(), one.text));
            }
            if one.kind == "table" {
                // Grafana joins the columns by all labels, and a name would keep them apart.
                assert!(series.iter().all(|labels| labels.get("__name__").is_none()), "{}: {}", one.at, one.text);
            }
        }
    }
    assert!(empty.is_empty(), "{}", empty.join("\n"));
    fleet_page::assert_cost(&both[0].1.0);
}

#[test]
fn victoria_metrics_takes_every_expression() {
    let victoria = Prometheus::victoria_metrics();
    // It has scraped nothing: that it answers shows that it understood.
    for one in expressions() {
        answer(&victoria, &one.text, "phi3");
    }
}

/// The labels of what a panel's query gives for a model, as Grafana asks it.
fn answer(prometheus: &Prometheus, expression: &str, model: &str) -> Vec<Json> {
    let values =
        [("$__rate_interval", "15s"), ("$instance", fleet_page::HOST), ("${model:regex}", model), ("$model", model)];
    let text = values.iter().fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = prometheus.get(&format!("/api/v1/query?query={escaped}")).unwrap();
    assert_eq!(answer["status"], "success", "{text}: {answer}");
    answer["data"]["result"].as_array().unwrap().iter().map(|one| one["metric"].clone()).collect()
}

#[test]
fn an_unknown_name_is_found() {
    assert_eq!(
        names::unknown("rate(citadel_no_such_thing_total[5m])"),
        ["citadel_no_such_thing_total is in no catalogue"]
    );
    assert_eq!(
        names::unknown("sum by (planet) (citadel_model_connections_open{modle=\"a\"})"),
        ["citadel_model_connections_open has no label modle", "no metric has the label planet"]
    );
    assert_eq!(
        names::unknown("instance_model:no_such_rule:sum"),
        ["instance_model:no_such_rule:sum is in no catalogue"]
    );
    assert_eq!(names::unknown_dcgm("dcgm-exporter: DCGM_FI_DEV_GPU_UTIL, DCGM_FI_NO_SUCH."), ["DCGM_FI_NO_SUCH"]);
}
