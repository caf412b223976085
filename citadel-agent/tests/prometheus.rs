//! A real Prometheus scrapes the real listener: with native histograms on it takes protobuf, else OpenMetrics.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::http::{Content, Limits};
use serde_json::Value;
use support::{Fake, NASTY, Server, client, histogram, page};
use tempfile::TempDir;

/// Start, a scrape and its result take 3 s; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus that scrapes one target, and ends with this value.
struct Prometheus {
    process: Child,
    addr: SocketAddr,
    /// Its configuration, data and log.
    dir: TempDir,
}

impl Prometheus {
    fn scraping(target: SocketAddr, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("prometheus.yml");
        let yaml = format!(
            "scrape_configs:\n- job_name: agent\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        fs::write(&config, yaml).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        // Free now; were it taken by the time Prometheus binds it, the test would fail and say so.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is needed: apt-get install prometheus (cargo xtask test does it)");
        Self { process, addr, dir }
    }

    /// The series that `query` gives, once there are any.
    fn wait_for(&self, query: &str) -> Vec<(Value, f64)> {
        let start = Instant::now();
        loop {
            let series = self.query(query).unwrap_or_default();
            if !series.is_empty() {
                return series;
            }
            if start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("no result for {query}\ntargets: {:?}\nlog: {log}", self.get("/api/v1/targets"));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The only value that `query` gives.
    fn value(&self, query: &str) -> f64 {
        match self.wait_for(query).as_slice() {
            [(_, value)] => *value,
            more => panic!("{query} gives {more:?}"),
        }
    }

    /// Labels and values; `None` while it does not answer yet.
    fn query(&self, query: &str) -> Option<Vec<(Value, f64)>> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}"))?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array()?.iter();
        series.map(|one| Some((one["metric"].clone(), one["value"][1].as_str()?.parse().ok()?))).collect()
    }

    /// HTTP/1.0, so that the answer is not chunked.
    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = std::net::TcpStream::connect(self.addr).ok()?;
        stream.set_read_timeout(Some(client::PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let answer = client::parse(&bytes);
        serde_json::from_slice(&answer.body).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn agent() -> Server {
    Server::start(Content::Metrics, Fake::new(|_| Ok(page(&NASTY))), Limits::default())
}

fn assert_close(got: f64, want: f64, ratio: f64) {
    assert!(got / want < ratio && want / got < ratio, "{got} is not within a factor of {ratio} of {want}");
}

/// The 50th of the 100 observations in each of the page's histograms, in seconds: `1e-6 * 10^(8 * 49 / 100)`.
const MEDIAN: f64 = 0.008_318;

fn assert_names_came_through(prometheus: &Prometheus) {
    let series = prometheus.wait_for("citadel_model_connections_open");
    let names: BTreeSet<&str> = series.iter().filter_map(|(labels, _)| labels["model"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(NASTY));
    assert_eq!(prometheus.value("up"), 1.0);
}

#[test]
fn with_native_histograms_it_reads_protobuf() {
    let server = agent();
    let prometheus = Prometheus::scraping(server.addr, &["--enable-feature=native-histograms"]);
    assert_names_came_through(&prometheus);

    let truth = histogram(100);
    let name = "citadel_model_request_duration_seconds{port=\"11400\"}";
    assert_eq!(prometheus.value(&format!("histogram_count({name})")), 100.0);
    assert_close(prometheus.value(&format!("histogram_sum({name})")), truth.sum_ns() as f64 / 1e9, 1.000_001);
    // A native bucket is 9 % wide.
    assert_close(prometheus.value(&format!("histogram_quantile(0.5, {name})")), MEDIAN, 1.1);
    let below_a_second = truth.cumulative_to_octave(0) as f64 / 100.0;
    assert_close(prometheus.value(&format!("histogram_fraction(0, 1, {name})")), below_a_second, 1.01);
    assert_eq!(prometheus.value("citadel_model_requests_total{port=\"11401\"}"), 43.0);
}

#[test]
fn without_them_it_reads_open_metrics() {
    let server = agent();
    let prometheus = Prometheus::scraping(server.addr, &[]);
    assert_names_came_through(&prometheus);

    let truth = histogram(100);
    let name = "citadel_model_request_duration_seconds";
    for (le, octave) in [("9.5367431640625e-07", -20), ("6.103515625e-05", -14), ("1.0", 0), ("1024.0", 10)] {
        let bucket = format!("{name}_bucket{{port=\"11400\",le=\"{le}\"}}");
        assert_eq!(prometheus.value(&bucket), truth.cumulative_to_octave(octave) as f64, "{le}");
    }
    // A classic bucket is an octave wide.
    let median = format!("histogram_quantile(0.5, {name}_bucket{{port=\"11400\"}})");
    assert_close(prometheus.value(&median), MEDIAN, 2.0);
    assert_eq!(prometheus.value("citadel_model_requests_total{port=\"11401\"}"), 43.0);
    assert_eq!(prometheus.value("process_start_time_seconds"), 1_700_000_000.25);
}
