//! A real Prometheus, or VictoriaMetrics, as a process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client;

/// Start, a scrape and its result take 3 s; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `cargo xtask setup test` unpacks Prometheus 3.
const PROMETHEUS_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/prometheus-3/usr/bin/prometheus");

/// Where it unpacks VictoriaMetrics.
const VICTORIA_METRICS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/victoria-metrics/usr/bin/victoria-metrics");

/// Which Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Debian's own, 2.42 in Debian 12: knows remote write 1.0.
    Old,
    /// 3.x: knows 2.0 too.
    New,
}

/// A Prometheus that ends with this value.
pub struct Prometheus {
    command: Command,
    process: Child,
    pub addr: SocketAddr,
    /// Its configuration, data and log.
    dir: TempDir,
}

impl Prometheus {
    /// One that scrapes `target` each second.
    pub fn scraping(target: SocketAddr, flags: &[&str]) -> Self {
        let yaml = format!(
            "scrape_configs:\n- job_name: agent\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        Self::start(Version::Old, &yaml, flags)
    }

    /// One that does what `yaml` says.
    pub fn configured(version: Version, yaml: &str, flags: &[&str]) -> Self {
        Self::start(version, yaml, flags)
    }

    /// One that scrapes nothing and takes remote write.
    pub fn receiving(version: Version, flags: &[&str]) -> Self {
        Self::receiving_with(version, "global: {}\n", flags)
    }

    /// The same, configured.
    pub fn receiving_with(version: Version, yaml: &str, flags: &[&str]) -> Self {
        let flags: Vec<_> = ["--web.enable-remote-write-receiver"].iter().chain(flags).copied().collect();
        let prometheus = Self::start(version, yaml, &flags);
        prometheus.wait_for("vector(1)");
        prometheus
    }

    /// Where it takes remote write.
    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.addr)
    }

    fn start(version: Version, yaml: &str, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("prometheus.yml");
        fs::write(&config, yaml).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        // Free now; were it taken by the time Prometheus binds it, the test would fail and say so.
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut command = Command::new(if version == Version::Old { "prometheus" } else { PROMETHEUS_3 });
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .args(flags)
            .stderr(log);
        Self::spawn(command, addr, dir)
    }

    /// A VictoriaMetrics: it takes remote write and answers queries at the same paths.
    pub fn victoria_metrics() -> Self {
        let dir = TempDir::new().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut command = Command::new(VICTORIA_METRICS);
        command
            .arg(format!("-storageDataPath={}", dir.path().join("data").display()))
            .arg(format!("-httpListenAddr={addr}"))
            // What has just come is asked for at once.
            .args(["-search.latencyOffset=1ms", "-memory.allowedBytes=256MB"])
            .stderr(log);
        let victoria = Self::spawn(command, addr, dir);
        victoria.wait_for("vector(1)");
        victoria
    }

    fn spawn(mut command: Command, addr: SocketAddr, dir: TempDir) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: cargo xtask setup test"));
        Self { command, process, addr, dir }
    }

    /// Ends it, as a power cut would.
    pub fn kill(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// Ends it as a service manager does.
    pub fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        _ = self.process.wait();
    }

    /// Starts it again where it was, with what it had.
    pub fn start_again(&mut self) {
        self.process = self.command.spawn().expect("it ran before");
        self.wait_for("vector(1)");
    }

    /// The series that `query` gives, once there are any.
    pub fn wait_for(&self, query: &str) -> Vec<(Value, f64)> {
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
    pub fn value(&self, query: &str) -> f64 {
        match self.wait_for(query).as_slice() {
            [(_, value)] => *value,
            more => panic!("{query} gives {more:?}"),
        }
    }

    /// Labels and values of the series that are numbers; `None` while it does not answer yet.
    pub fn query(&self, query: &str) -> Option<Vec<(Value, f64)>> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}"))?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array()?.iter().filter(|one| one["value"].is_array());
        series.map(|one| Some((one["metric"].clone(), one["value"][1].as_str()?.parse().ok()?))).collect()
    }

    /// HTTP/1.0, so that the answer is not chunked.
    pub fn get(&self, path: &str) -> Option<Value> {
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
