//! The processes that are measured: the agent's remote write, Prometheus and vmagent.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use citadel_agent::collector::Collector;
use citadel_agent::config;
use citadel_agent::remote_write;
use citadel_agent::slot::Slot;

use crate::pages::{Shape, Source};
use crate::sink::Sink;

/// The environment variable that makes this program the agent's remote write, with this configuration.
pub(crate) const ROLE: &str = "CITADEL_BENCH_SENDER";

/// The page that it sends.
const SHAPE: &str = "CITADEL_BENCH_SHAPE";

/// Where `cargo xtask setup bench` unpacks packages of Debian's newest release.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools");

/// Runs the agent's remote write alone, on its own thread as in the agent, until it is killed.
pub(crate) fn sender(configuration: &str) {
    let config = config::parse("bench", configuration).unwrap_or_else(|errors| panic!("{errors}"));
    let prepared = remote_write::prepare(&config).expect("a client").expect("a destination");
    let numbers = Slot::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let collector = Collector::start(Source::new(Shape::of(&env::var(SHAPE).unwrap_or_default())));
        let _handle = remote_write::start(prepared, numbers.clone(), collector.pages()).expect("a thread");
        println!("ready");
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(newest) = numbers.newest() {
                let numbers = &newest.value[0];
                println!("{} {} {}", numbers.collected, numbers.acknowledged, numbers.pending);
            }
        }
    });
}

/// A measured process, killed on drop.
pub(crate) struct Measured {
    process: Child,
    folder: PathBuf,
}

#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time of the process.
    pub(crate) cpu_seconds: f64,
    /// CPU time of its thread `remote-write`.
    pub(crate) thread_seconds: f64,
    /// Resident memory in MB.
    pub(crate) resident: f64,
    /// Size of its files in bytes.
    pub(crate) disk: u64,
}

impl Measured {
    fn start(command: &mut Command, folder: PathBuf) -> Self {
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("{command:?}: {error}: cargo xtask setup bench"));
        Self { process, folder }
    }

    pub(crate) fn usage(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.process.id()));
        let stat = fs::read_to_string(proc.join("stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
        let status = fs::read_to_string(proc.join("status")).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let own = |task: PathBuf| {
            let comm = fs::read_to_string(task.join("comm")).ok()?;
            let ran = fs::read_to_string(task.join("schedstat")).ok().filter(|_| comm.trim() == "remote-write")?;
            ran.split(' ').next()?.parse::<f64>().ok()
        };
        let threads = fs::read_dir(proc.join("task")).expect("it runs").flatten().filter_map(|task| own(task.path()));
        Usage {
            cpu_seconds: ticks / citadel_agent::host::process::ticks_per_second(),
            thread_seconds: threads.sum::<f64>() / 1e9,
            resident: resident.and_then(|kilobytes| kilobytes.trim().parse::<f64>().ok()).expect("VmRSS") / 1024.0,
            disk: disk(&self.folder),
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Total size of the files below `folder` in bytes.
fn disk(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes the scrape configuration of Prometheus and vmagent.
fn scrapes(folder: &Path, target: SocketAddr, more: &str) -> PathBuf {
    let yaml = format!(
        "scrape_configs:\n- job_name: agent\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{target}']}}]\n{more}"
    );
    let file = folder.join("scrape.yml");
    fs::write(&file, yaml).expect("a configuration");
    file
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address")
}

/// A Prometheus version.
#[derive(Clone, Copy)]
pub(crate) enum Prometheus {
    /// The installed one, from this Debian release.
    Installed,
    /// Version 3, from Debian's newest release.
    Newest,
}

impl Prometheus {
    fn program(self) -> String {
        match self {
            Self::Installed => "prometheus".to_owned(),
            Self::Newest => format!("{TOOLS}/prometheus-3/usr/bin/prometheus"),
        }
    }

    /// For example `Prometheus 2.42.0`, from its own output.
    pub(crate) fn version(self) -> String {
        let said = Command::new(self.program()).arg("--version").output();
        let said = said.unwrap_or_else(|error| panic!("{}: {error}: cargo xtask setup bench", self.program()));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        format!("Prometheus {}", said.split_whitespace().nth(2).unwrap_or("of an unknown version"))
    }

    /// Starts it in agent mode, scraping `target` every second; version 3 sends remote write 2.0, as the agent does.
    pub(crate) fn start(self, folder: &Path, sink: &Sink, target: SocketAddr) -> Measured {
        let protocol = match self {
            Self::Installed => "",
            Self::Newest => "  protobuf_message: io.prometheus.write.v2.Request\n",
        };
        let mode = match self {
            Self::Installed => "--enable-feature=agent",
            Self::Newest => "--agent",
        };
        let file = scrapes(folder, target, &format!("remote_write:\n- url: http://{}/write\n{protocol}", sink.addr));
        let data = folder.join("data");
        let mut command = Command::new(self.program());
        command
            .arg(mode)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.agent.path={}", data.display()))
            .arg(format!("--web.listen-address={}", free_address()))
            .stdout(Stdio::null());
        Measured::start(&mut command, data)
    }
}

fn vmagent() -> String {
    format!("{TOOLS}/victoria-metrics/usr/bin/vmagent")
}

/// For example `vmagent 1.145.0+ds1-2`, from the package, because the program does not print it.
pub(crate) fn vmagent_version() -> String {
    let changes = format!("{TOOLS}/victoria-metrics/usr/share/doc/victoria-metrics/changelog.Debian.gz");
    let said = Command::new("zcat").arg(changes).output().expect("zcat");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.split(['(', ')']).nth(1).unwrap_or("of an unknown version");
    format!("vmagent {version}")
}

/// Starts vmagent, scraping `target` every second. It sends remote write 1.0 with snappy, which costs it less than its
/// own protocol with zstd.
pub(crate) fn start_vmagent(folder: &Path, sink: &Sink, target: SocketAddr) -> Measured {
    let file = scrapes(folder, target, "");
    let data = folder.join("data");
    let mut command = Command::new(vmagent());
    command
        .arg(format!("-promscrape.config={}", file.display()))
        .arg(format!("-remoteWrite.url=http://{}/write", sink.addr))
        .arg("-remoteWrite.forcePromProto")
        .arg(format!("-remoteWrite.tmpDataPath={}", data.display()))
        .arg(format!("-httpListenAddr={}", free_address()))
        .stdout(Stdio::null());
    Measured::start(&mut command, data)
}

/// The sender's latest numbers.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<[AtomicU64; 3]>);

impl Said {
    pub(crate) fn collected(&self) -> u64 {
        self.0[0].load(Ordering::SeqCst)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.0[1].load(Ordering::SeqCst)
    }

    pub(crate) fn pending(&self) -> u64 {
        self.0[2].load(Ordering::SeqCst)
    }
}

/// Starts the agent's remote write, from this program or another build of it.
pub(crate) fn start_agent(
    program: &Path,
    folder: PathBuf,
    sink: &Sink,
    shape: Shape,
    [protocol, histograms]: [&str; 2],
) -> (Measured, Said) {
    let configuration = format!(
        "remote_write:\n  interval: 1s\n  directory: {}\n  instance: gpu1\n  min_free_bytes: 0\n  histograms: {histograms}\n  \
         destinations: {{ sink: {{ url: 'http://{}/write', protocol: '{protocol}' }} }}\n",
        folder.display(),
        sink.addr
    );
    let mut command = Command::new(program);
    command.env(ROLE, configuration).env(SHAPE, shape.name()).stdout(Stdio::piped());
    let mut measured = Measured::start(&mut command, folder);
    let mut lines = BufReader::new(measured.process.stdout.take().expect("a pipe")).lines();
    lines.next();
    let said = Said::default();
    let heard = said.clone();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            for (number, word) in heard.0.iter().zip(line.split(' ')) {
                number.store(word.parse().unwrap_or(0), Ordering::SeqCst);
            }
        }
    });
    (measured, said)
}
