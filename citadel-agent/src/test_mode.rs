//! `citadel-agent run --model NAME --test-mode`: measures one model for a limited time and prints a report with the
//! overhead and a verdict. Nothing is sent or served, and the model is not probed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use citadel_agent_common::hist::Histogram;

use crate::agent::{self, Examined, Measured};
use crate::alerts::histogram::{Buckets, Distribution};
use crate::config::Config;
use crate::config::resolved::probing::HealthEndpoints;
use crate::discovery::inventory::Model;
use crate::ebpf::status::Verdict;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::agent::{EVENTS_LOST, PROBE_SECONDS};
use crate::metrics::catalogue::models::{
    CONNECTIONS, INTER_TOKEN_LATENCY, RECEIVE_QUEUE, REQUEST_DURATION, REQUESTS, REQUESTS_ABORTED, REQUESTS_IN_FLIGHT,
    STREAM_CHUNKS, TIME_TO_FIRST_TOKEN,
};
use crate::metrics::family::{LabelValues, Value};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum TestModeError {
    /// The model does not exist.
    #[error("unknown model {name:?}: {known}")]
    Unknown {
        /// The requested name.
        name: String,
        /// The existing ones.
        known: String,
    },
    /// The agent cannot start.
    #[error("{0:#}")]
    Agent(#[from] anyhow::Error),
}

/// Measures the model with this name or port for `time`. Returns the report, and whether requests of the model were
/// measured.
///
/// # Errors
/// See [`TestModeError`].
pub fn run(config: &Config, name: &str, time: Duration) -> Result<(String, bool), TestModeError> {
    let port = find(config, name)?;
    let measured = agent::measure(&only(config, port, name), time)?;
    Ok(Report { name, port, measured: &measured }.write())
}

/// The port of the model: configured or discovered.
fn find(config: &Config, name: &str) -> Result<u16, TestModeError> {
    let configured = config.models.ports.iter().find(|(port, model)| *model == name || port.to_string() == name);
    if let Some((&port, _)) = configured {
        return Ok(port);
    }
    let models = agent::find_models(&quiet(config))?;
    if let Some(model) = models.iter().find(|model| model.name == name || model.port.to_string() == name) {
        return Ok(model.port);
    }
    let known: Vec<_> = models.iter().map(|model| format!("{} ({})", model.name, model.port)).collect();
    let known = if known.is_empty() {
        "none is configured and none is listening on a measured port".to_owned()
    } else {
        format!("known models are {}", known.join(", "))
    };
    Err(TestModeError::Unknown { name: name.to_owned(), known })
}

/// A configuration without any effect outside of this process.
fn quiet(config: &Config) -> Config {
    let mut config = config.clone();
    let models = &mut config.models;
    models.health_endpoints = HealthEndpoints::Listed(Vec::new());
    models.own.clear();
    (models.relay, models.engine_metrics, models.ask_for_names) = (false, false, false);
    config.remote = None;
    config.remote_write.destinations.clear();
    config
}

/// The same, limited to one model.
fn only(config: &Config, port: u16, name: &str) -> Config {
    let mut config = quiet(config);
    let name = config.models.ports.remove(&port).unwrap_or_else(|| name.to_owned());
    config.models.ports = BTreeMap::from([(port, name)]);
    config.models.discover = None;
    config
}

/// The results. Pure.
struct Report<'a> {
    name: &'a str,
    port: u16,
    measured: &'a Measured,
}

impl Report<'_> {
    /// The text of the report, and whether requests of the model were measured.
    fn write(&self) -> (String, bool) {
        let mut text = String::new();
        let time = self.measured.time.as_secs_f64();
        _ = writeln!(text, "model {} on port {}, {time:.0} s", self.name, self.port);
        self.who(&mut text);
        self.seen(&mut text);
        self.missing(&mut text);
        self.cost(&mut text);
        let (verdict, good) = self.verdict();
        _ = writeln!(text, "verdict: {verdict}");
        (text, good)
    }

    fn examined(&self) -> &Examined {
        &self.measured.examined
    }

    fn model(&self) -> Option<&Model> {
        self.examined().models.iter().find(|model| model.port == self.port && model.listens)
    }

    fn who(&self, text: &mut String) {
        match self.model() {
            None => _ = writeln!(text, "served by: no process is listening on the port"),
            Some(model) => {
                let unit = model.unit.as_deref().unwrap_or("no unit");
                let exe =
                    model.exe.as_ref().map_or_else(|| "program not known".to_owned(), |exe| exe.display().to_string());
                _ = writeln!(text, "served by: {unit}, {} processes, {exe}", model.pids.len());
            }
        }
    }

    /// Samples of the model's counters and gauges: the labels after model and port, and the value.
    fn samples(&self, desc: &'static Desc) -> impl Iterator<Item = (String, f64)> {
        let port = self.port.to_string();
        let of_port = move |labels: &LabelValues| labels.get(1).is_some_and(|label| *label == port);
        let samples = self.examined().samples(desc).filter(move |(labels, _)| of_port(labels));
        samples.map(|(labels, value)| (labels[2..].join(" "), value))
    }

    fn sum(&self, desc: &'static Desc) -> f64 {
        // Not `sum`, which is -0 for an empty iterator.
        self.samples(desc).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The sum of the model's histograms with this name.
    fn distribution(&self, desc: &'static Desc) -> Distribution {
        let port = self.port.to_string();
        let families = self.examined().page.families.iter().filter(|family| std::ptr::eq(family.desc, desc));
        let mut all = Distribution::empty();
        for sample in families
            .flat_map(|family| &family.samples)
            .filter(|sample| sample.labels.get(1).is_some_and(|label| *label == port))
        {
            if let Value::Histogram(histogram) = &sample.value {
                let histogram: &Histogram = histogram;
                all.add(&Buckets::from(histogram), 1.0);
            }
        }
        all
    }

    fn seen(&self, text: &mut String) {
        _ = writeln!(
            text,
            "requests: {:.0} completed, {:.0} aborted, {:.0} in flight",
            self.sum(&REQUESTS),
            self.sum(&REQUESTS_ABORTED),
            self.sum(&REQUESTS_IN_FLIGHT)
        );
        for (labels, value) in self.samples(&REQUESTS).filter(|(_, value)| *value > 0.0) {
            _ = writeln!(text, "  {labels}: {value:.0}");
        }
        const LATENCIES: [(&str, &Desc); 4] = [
            ("time to first token", &TIME_TO_FIRST_TOKEN),
            ("between tokens", &INTER_TOKEN_LATENCY),
            ("duration", &REQUEST_DURATION),
            ("in the receive queue", &RECEIVE_QUEUE),
        ];
        for (title, desc) in LATENCIES {
            let all = self.distribution(desc);
            match all.count() {
                0.0 => _ = writeln!(text, "{title}: none observed"),
                count => {
                    let [half, most] = [0.5, 0.99].map(|quantile| seconds(all.quantile(quantile)));
                    _ = writeln!(text, "{title}: {count:.0} observed, p50 {half}, p99 {most}");
                }
            }
        }
        _ = writeln!(text, "stream chunks: {:.0}", self.sum(&STREAM_CHUNKS));
    }

    fn missing(&self, text: &mut String) {
        let families = self.examined().families.iter();
        let mut missing: Vec<_> = families
            .filter(|family| family.status != Verdict::Ok)
            .map(|family| format!("{} ({}; to fix it: {})", family.family, family.reason, family.remedy))
            .collect();
        for (protocol, count) in
            self.samples(&CONNECTIONS).filter(|(protocol, count)| protocol != "http1" && *count > 0.0)
        {
            missing.push(format!("requests on {count:.0} {protocol} connections"));
        }
        for (labels, count) in self.examined().samples(&EVENTS_LOST).filter(|(_, count)| *count > 0.0) {
            missing.push(format!("{count:.0} events lost ({})", labels[0]));
        }
        let missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") };
        _ = writeln!(text, "not measured: {missing}");
    }

    fn cost(&self, text: &mut String) {
        let Measured { time, cpu_seconds, resident_bytes, .. } = self.measured;
        let percent = cpu_seconds / time.as_secs_f64() * 100.0;
        let mib = *resident_bytes as f64 / f64::from(1 << 20);
        _ = write!(text, "overhead: {percent:.2} % of a core, {mib:.1} MiB");
        let in_kernel: f64 = self
            .examined()
            .samples(&PROBE_SECONDS)
            .filter(|(labels, _)| labels[0].starts_with("net_"))
            .map(|(_, seconds)| seconds)
            .sum();
        let requests = self.sum(&REQUESTS) + self.sum(&REQUESTS_ABORTED);
        // Includes the kernel's own clock reads, two per run.
        match in_kernel > 0.0 && requests > 0.0 {
            true => {
                _ = writeln!(
                    text,
                    ", {:.0} ns per request in the kernel (including the cost of measuring this)",
                    in_kernel / requests * 1e9
                );
            }
            false => text.push('\n'),
        }
    }

    fn verdict(&self) -> (String, bool) {
        let net = self.examined().families.iter().find(|family| family.family == "net");
        if let Some(net) = net.filter(|net| net.status != Verdict::Ok) {
            return (format!("nothing can be measured: {}; to fix it: {}", net.reason, net.remedy), false);
        }
        if self.model().is_none() {
            return (format!("nothing could be measured: no process is listening on port {}", self.port), false);
        }
        let ended = self.sum(&REQUESTS) + self.sum(&REQUESTS_ABORTED);
        if ended > 0.0 {
            return (format!("{} can be measured", self.name), true);
        }
        if self.sum(&REQUESTS_IN_FLIGHT) > 0.0 {
            return ("requests started but none completed; measure for longer (--for)".to_owned(), false);
        }
        let others = self.sum(&CONNECTIONS);
        if others > 0.0 {
            return (format!("nothing could be measured: {others:.0} connections, but no HTTP/1.x requests"), false);
        }
        ("nothing could be measured: there were no requests; send one, or measure for longer (--for)".to_owned(), false)
    }
}

/// Formats a duration with three digits and a unit.
fn seconds(value: f64) -> String {
    let (value, unit) = match value {
        value if value < 1e-3 => (value * 1e6, "us"),
        value if value < 1.0 => (value * 1e3, "ms"),
        value => (value, "s"),
    };
    format!(
        "{value:.*} {unit}",
        if value < 10.0 {
            2
        } else if value < 100.0 {
            1
        } else {
            0
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::Models;
    use crate::ebpf::family::Family;
    use crate::ebpf::plan::{Decision, Reason};
    use crate::ebpf::status::FamilyStatus;
    use crate::metrics::family::Page;

    /// A host on which one model answered twice, once with a stream, and another was busier.
    fn measured() -> Measured {
        let mut page = Page::default();
        page.add(&REQUESTS, ["phi3", "11403", "chat_completions", "200"], Value::Integer(2));
        page.add(&REQUESTS, ["yi", "11404", "chat_completions", "200"], Value::Integer(70));
        page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11403"], Value::Integer(1));
        page.add(&STREAM_CHUNKS, ["phi3", "11403", "chat_completions"], Value::Integer(9));
        page.add(&CONNECTIONS, ["phi3", "11403", "http1"], Value::Integer(2));
        page.add(&CONNECTIONS, ["phi3", "11403", "tls"], Value::Integer(3));
        page.add(&EVENTS_LOST, ["pipeline_full"], Value::Integer(4));
        page.add(&PROBE_SECONDS, ["net_ingress"], Value::Float(3e-6));
        page.add(&PROBE_SECONDS, ["sched_switch"], Value::Float(1.0));
        let mut first = Histogram::EMPTY;
        first.observe(250_000_000);
        page.add(&TIME_TO_FIRST_TOKEN, ["phi3", "11403", "chat_completions"], Value::Histogram(Box::new(first)));
        let model = Model {
            name: "phi3".to_owned(),
            port: 11403,
            listens: true,
            pids: [7, 8].into(),
            main: Some(7),
            exe: Some("/opt/vllm".into()),
            unit: Some("citadel-phi3.service".to_owned()),
            cgroup: None,
            served: None,
            engine: None,
            dormant: false,
            unnamed: false,
        };
        let families = vec![
            FamilyStatus::ok(Family::Net, &Decision::Trace),
            FamilyStatus::skipped(Family::Syscalls, &Reason::NoFentry("refused".to_owned())),
        ];
        let examined = Examined { page, families, gpu: serde_json::Value::Null, models: vec![model] };
        Measured { examined, time: Duration::from_secs(60), cpu_seconds: 0.3, resident_bytes: 21 << 20 }
    }

    fn report(measured: &Measured) -> (String, bool) {
        Report { name: "phi3", port: 11403, measured }.write()
    }

    #[test]
    fn it_says_what_was_seen_what_was_not_and_what_that_cost() {
        let (text, good) = report(&measured());
        assert!(good);
        for line in [
            "model phi3 on port 11403, 60 s",
            "served by: citadel-phi3.service, 2 processes, /opt/vllm",
            "requests: 2 completed, 0 aborted, 1 in flight",
            "  chat_completions 200: 2",
            "between tokens: none observed",
            "stream chunks: 9",
            "overhead: 0.50 % of a core, 21.0 MiB, 1500 ns per request in the kernel (including the cost of measuring this)",
            "verdict: phi3 can be measured",
        ] {
            assert!(text.lines().any(|own| own == line), "{line:?} is missing:\n{text}");
        }
        assert!(text.contains("time to first token: 1 observed, p50 2"), "{text}");
        assert!(text.contains("not measured: syscalls (refused; to fix it: "), "{text}");
        assert!(text.contains("requests on 3 tls connections; 4 events lost (pipeline_full)"), "{text}");
    }

    #[test]
    fn where_nothing_could_be_measured_the_verdict_says_why() {
        let verdict = |change: fn(&mut Examined)| {
            let mut measured = measured();
            change(&mut measured.examined);
            let (text, good) = report(&measured);
            assert!(!good, "{text}");
            text.lines().last().unwrap().to_owned()
        };
        let no_requests = |examined: &mut Examined| {
            examined.page.families.retain(|family| !std::ptr::eq(family.desc, &raw const REQUESTS));
        };
        assert_eq!(verdict(no_requests), "verdict: requests started but none completed; measure for longer (--for)");
        assert!(verdict(|examined| examined.models.clear()).ends_with("no process is listening on port 11403"));
        assert!(verdict(|examined| examined.page.families.clear()).contains("there were no requests"));
        let foreign = verdict(|examined| {
            examined.page.families.retain(|family| std::ptr::eq(family.desc, &raw const CONNECTIONS));
        });
        assert!(foreign.contains("5 connections, but no HTTP/1.x requests"), "{foreign}");
        let blind = verdict(|examined| examined.families[0] = FamilyStatus::skipped(Family::Net, &Reason::NoCgroup2));
        assert!(blind.contains("no cgroup v2 file system is mounted; to fix it: run `mount"), "{blind}");
    }

    #[test]
    fn only_the_model_is_measured_and_nobody_is_asked_or_told() {
        let text = "model_monitoring: {ports: {phi3: 11403, yi: 11404}, relay: true}\n\
                    remote_monitoring: {enabled: true, dev_ops_server: x, prometheus: {remote_write_url: 'http://x/'}}\n\
                    remote_write: {destinations: {a: {url: 'http://x/'}}}";
        let config = crate::config::parse("FILE", text).unwrap();
        for name in ["phi3", "11403"] {
            assert_eq!(find(&config, name).unwrap(), 11403);
        }
        let only = only(&config, 11403, "phi3");
        assert_eq!(only.models.measured_ports(), [11403].into());
        assert_eq!(only.models.ports[&11403], "phi3");
        assert!(only.destinations().is_empty() && only.remote.is_none());
        let Models { health_endpoints, relay, engine_metrics, ask_for_names, own, .. } = &only.models;
        assert_eq!(*health_endpoints, HealthEndpoints::Listed(Vec::new()));
        assert!(!relay && !engine_metrics && !ask_for_names && own.is_empty());
    }
}
