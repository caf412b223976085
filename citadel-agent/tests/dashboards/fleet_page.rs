//! Pages that have every metric of the catalogue, and a Prometheus that scrapes them and evaluates the shipped rules.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use citadel_agent::http::{Content, Limits};
use citadel_agent::metrics::catalogue::{self, Desc, Kind};
use citadel_agent::metrics::family::{Family, Page, Sample, Value};
use tempfile::TempDir;

use super::support::prometheus::{Prometheus, Version};
use super::support::{Fake, Server, histogram};

/// What the host is called.
pub(crate) const HOST: &str = "host1.example";

/// Labels that belong together: of the first model and GPU, and of the second.
const TOGETHER: [(&str, [&str; 2]); 10] = [
    ("model", ["phi3", "mixtral"]),
    ("port", ["11400", "11401"]),
    ("unit", ["citadel-phi3.service", "citadel-mixtral.service"]),
    ("name", ["citadel-phi3.service", "citadel-mixtral.service"]),
    ("gpu", ["GPU-0", "GPU-1"]),
    ("index", ["0", "1"]),
    ("pci_bus_id", ["0000:01:00.0", "0000:41:00.0"]),
    ("engine", ["vllm", "llama.cpp"]),
    ("pid", ["4711", "4712"]),
    ("destination", ["prometheus", "loki"]),
];

/// Values that dashboards and rules choose by; of any other label there are two.
const VALUES: &[(&str, &[&str])] = &[
    ("endpoint", &["chat_completions", "completions", "health"]),
    ("code", &["200", "503", "404"]),
    ("side", &["client", "server"]),
    ("phase", &["queue", "prefill", "decode", "first_token", "inter_token", "waiting", "streaming"]),
    ("state", &["up", "failed", "active"]),
    ("status", &["ok", "broken"]),
    ("severity", &["info", "error", "warning", "critical"]),
    ("sensor", &["gpu", "memory", "margin"]),
    ("clock", &["sm", "memory"]),
    ("kind", &["pss", "uncorrected", "generated"]),
    ("action", &["none", "reset"]),
    ("mode", &["idle", "user"]),
    ("fstype", &["ext4", "xfs"]),
    ("device", &["sda", "eth0"]),
    ("outcome", &["accepted", "proposed", "acknowledged"]),
    ("event", &["xid", "oom_kill"]),
    ("reason", &["hw_slowdown", "sw_power_cap"]),
    ("result", &["success", "exit-code"]),
    ("errno", &["EPIPE", "EAGAIN"]),
    ("protocol", &["http1", "tls"]),
    ("job", &["a", "b"]),
];

fn values(label: &str) -> &'static [&'static str] {
    VALUES.iter().find(|(name, _)| *name == label).map_or(&["one", "two"], |(_, values)| values)
}

/// The labels of one series: the `owner`th model or GPU, the `turn`th value of what is counted of it.
fn labels(desc: &Desc, owner: usize, turn: usize) -> Vec<String> {
    let one = |label: &&str| match TOGETHER.iter().find(|(name, _)| name == label) {
        Some((_, both)) => both[owner].to_owned(),
        None => values(label)[turn % values(label).len()].to_owned(),
    };
    desc.labels.iter().map(one).collect()
}

/// A page with every metric, as it is at the `reading`th scrape: counters grow by what they have.
fn page(reading: u64) -> Page {
    let mut page = Page::default();
    for desc in catalogue::all() {
        let owned = desc.labels.iter().any(|label| TOGETHER.iter().any(|(name, _)| name == label));
        let counted = desc.labels.iter().filter(|label| !TOGETHER.iter().any(|(name, _)| name == *label));
        let turns = counted.map(|label| values(label).len()).max().unwrap_or(1);
        let mut samples = Vec::new();
        // The second model's engine does not say how long its phases take.
        let owners = if owned && !desc.name.starts_with("citadel_engine_phase") { 2 } else { 1 };
        for owner in 0..owners {
            for turn in 0..turns {
                let labels = labels(desc, owner, turn).into_iter().map(Into::into).collect();
                samples.push(Sample { labels, value: value(desc, reading, owner, turn) });
            }
        }
        page.families.push(Family { desc, samples, began: None });
    }
    page
}

fn value(desc: &Desc, reading: u64, owner: usize, turn: usize) -> Value {
    match desc.kind {
        Kind::Histogram => Value::Histogram(Box::new(histogram(u32::try_from(100 * reading).unwrap()))),
        Kind::Counter => Value::Integer(reading * (turn as u64 + 1)),
        // Each kind of unit, GPU and disk is both: well, and not. A start time that changes is a restart.
        Kind::Gauge | Kind::Unknown
            if ["start_time_seconds", "reload_success_timestamp_seconds"]
                .iter()
                .any(|end| desc.name.ends_with(end)) =>
        {
            Value::Integer(1_700_000_000 + reading)
        }
        Kind::Gauge | Kind::Unknown => Value::Integer((owner + turn) as u64),
    }
}

/// An agent whose numbers grow with each scrape.
pub(crate) fn serve() -> Server {
    let scrapes = AtomicU64::new(1);
    let page = move |_| Ok(page(scrapes.fetch_add(1, Ordering::Relaxed)));
    Server::start(Content::Metrics, Fake::new(page), Limits::default())
}

/// A Prometheus with the shipped rules, evaluated each second, and where these are.
pub(crate) fn scrape(target: SocketAddr, flags: &[&str]) -> (Prometheus, TempDir) {
    let rules = TempDir::new().unwrap();
    for name in ["fleet", "citadel-recording", "native-histograms", "citadel-agent"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/prometheus/{name}.rules.yml"));
        let text = fs::read_to_string(shipped).unwrap();
        // What fires after ten minutes fires at once.
        let lines = text.lines().filter(|line| !["for: ", "interval: "].iter().any(|key| line.trim().starts_with(key)));
        fs::write(rules.path().join(format!("{name}.yml")), lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let yaml = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}/*.yml']\n\
         scrape_configs:\n- job_name: citadel-agent\n  static_configs: [{{targets: ['{target}'], labels: {{instance: {HOST}}}}}]\n",
        rules.path().display()
    );
    (Prometheus::configured(Version::Old, &yaml, flags), rules)
}

/// Until counters have grown twice and the rules that read other rules were evaluated.
pub(crate) fn wait_for_rules(prometheus: &Prometheus) {
    prometheus.wait_for("count_over_time(citadel:frontend_delay_seconds:mean5m[1m]) >= 2");
    prometheus.wait_for("instance:citadel_verdict:max > 0");
}

/// What `deploy/README.md` says that the recording rules cost a host: so many series a model, and so many besides.
pub(crate) fn assert_cost(prometheus: &Prometheus) {
    let count = |matchers: &str| prometheus.value(&format!("count({{{matchers}}})"));
    let per_model = count(r#"__name__=~"(instance_model|citadel):.*",model="phi3""#);
    let per_host = count(r#"__name__=~"instance:.*""#);
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md")).unwrap();
    let written = format!("{per_model} series a model and {per_host} a host");
    assert!(text.contains(&written), "deploy/README.md does not say: {written}");
}
