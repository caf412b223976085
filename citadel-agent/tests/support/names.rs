//! Names in expressions, held against the catalogue, the recording rules and what Prometheus makes itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use citadel_agent::metrics::catalogue::{self, Desc, Kind, Section};

use super::promql;

/// Labels that Prometheus adds.
const TARGET: [&str; 2] = ["instance", "job"];

/// What Prometheus makes itself, and its labels.
const PROMETHEUS: [(&str, &[&str]); 3] =
    [("up", &[]), ("scrape_samples_scraped", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "model"])];

/// The pages that have metrics of their own.
pub fn sections() -> [Section; 6] {
    use Section::{Agent, Gpu, Models, Services, Storage, System};
    [Models, Gpu, System, Storage, Services, Agent]
}

/// The metrics of a page.
pub fn of(section: Section) -> impl Iterator<Item = &'static str> {
    catalogue::all().filter(move |desc| desc.section == section).map(|desc| desc.name)
}

/// Names of the recording rules.
static RECORDED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    let files = ["citadel-recording.rules.yml", "native-histograms.rules.yml", "fleet.rules.yml"]
        .map(|name| fs::read_to_string(folder.join(name)));
    let texts = files.map(Result::unwrap);
    let names = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.trim().strip_prefix("- record: "));
    names.map(str::to_owned).collect()
});

/// The labels of a metric, but for those of its target; `None` where there is no such metric.
fn labels(name: &str) -> Option<BTreeSet<&str>> {
    if let Some((_, labels)) = PROMETHEUS.iter().find(|(known, _)| *known == name) {
        return Some(labels.iter().copied().collect());
    }
    if let Some((level, _)) = name.split_once(':') {
        let labels = if level == "citadel" { "model_port" } else { level };
        return RECORDED.contains(name).then(|| labels.split('_').collect());
    }
    let exact = |name: &str| catalogue::all().find(|desc| desc.name == name);
    let part = |suffix: &str| exact(name.strip_suffix(suffix)?).filter(|desc: &&Desc| desc.kind == Kind::Histogram);
    let own = |desc: &'static Desc| desc.labels.iter().copied().collect();
    if let Some(desc) = part("_bucket") {
        return Some(desc.labels.iter().copied().chain(["le"]).collect());
    }
    exact(name).or_else(|| part("_sum")).or_else(|| part("_count")).map(own)
}

/// What is wrong with the names in an expression.
pub fn unknown(expression: &str) -> Vec<String> {
    let (metrics, grouped) = promql::names(expression);
    assert!(!metrics.is_empty(), "{expression} names no metric");
    let mut wrong = Vec::new();
    let mut known: BTreeSet<&str> = TARGET.into();
    // A label that the expression makes itself.
    known.extend(expression.contains("label_replace(").then_some("name"));
    for (name, matched) in &metrics {
        let Some(own) = labels(name) else {
            wrong.push(format!("{name} is in no catalogue"));
            continue;
        };
        let has = |label: &&String| own.contains(label.as_str()) || TARGET.contains(&label.as_str());
        wrong.extend(matched.iter().filter(|label| !has(label)).map(|label| format!("{name} has no label {label}")));
        known.extend(own);
    }
    let unknown = grouped.iter().filter(|label| !known.contains(label.as_str()));
    wrong.extend(unknown.map(|label| format!("no metric has the label {label}")));
    wrong
}

/// Names of dcgm-exporter in a text that the agent does not have.
pub fn unknown_dcgm(text: &str) -> Vec<String> {
    let words =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("DCGM_FI_"));
    let all: BTreeSet<&str> = catalogue::all().map(|desc| desc.name).collect();
    words.filter(|word| !all.contains(word)).map(str::to_owned).collect()
}
