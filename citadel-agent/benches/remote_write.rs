//! What remote write costs while its receiver is away and when it comes back, beside Prometheus in agent mode on the same
//! input: 2,000 series each second. Run by `cargo xtask bench remote-write`; prints a section of `docs/overhead.md`.
//!
//! Four processes: the receiver and the target that Prometheus scrapes are this one (its costs are nobody's), the agent's
//! remote write is this program again, and Prometheus is itself. CPU and memory are read from `/proc`.

#[path = "../tests/support/pages.rs"]
mod pages;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config;
use citadel_agent::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUEST_BYTES};
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::{self, format::Format};
use citadel_agent::remote_write;
use citadel_agent::slot::Slot;
use pages::every;

/// Models, with two series each.
const MODELS: u64 = 1000;

/// So long both run with the receiver there, before it goes.
const WARM: Duration = Duration::from_secs(20);

/// The variable that makes this program the agent's remote write.
const ROLE: &str = "CITADEL_BENCH_SENDER";

fn main() {
    if let Ok(configuration) = env::var(ROLE) {
        return sender(&configuration);
    }
    let mut seconds = 600;
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => seconds = words.next().and_then(|number| number.parse().ok()).expect("a number of seconds"),
            // cargo's own.
            "--bench" => {}
            other => panic!("{other} is no option; there is --seconds N"),
        }
    }
    compare(Duration::from_secs(seconds));
}

/// The page of the second `tick`: counters that grow and gauges that move.
fn page(tick: u64) -> Page {
    let mut page = Page::default();
    for model in 0..MODELS {
        let labels = [format!("model-{model}"), (11_400 + model % 100).to_string()];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        page.add(&REQUEST_BYTES, labels, Value::Integer(tick * 1000 + tick * model));
        page.add(&CONNECTIONS_OPEN, labels, Value::Integer((tick + model) % 17));
    }
    page
}

/// The agent's remote write alone, until it is killed.
fn sender(configuration: &str) {
    let config = config::parse("bench", configuration).unwrap_or_else(|errors| panic!("{errors}"));
    let prepared = remote_write::prepare(&config).expect("a client").expect("a destination");
    let mut tick = 0;
    let collect = move || {
        tick += 1;
        Some(page(tick))
    };
    let numbers = Slot::default();
    let _handle = remote_write::start(prepared, numbers.clone(), every(collect)).expect("a thread");
    println!("ready");
    loop {
        thread::sleep(Duration::from_millis(100));
        if let Some(newest) = numbers.newest() {
            let numbers = &newest.value[0];
            println!("{} {} {}", numbers.collected, numbers.acknowledged, numbers.pending);
        }
    }
}

/// Takes everything and keeps nothing, or is away.
struct Sink {
    addr: SocketAddr,
    open: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (open, bytes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (door, count) = (Arc::clone(&open), Arc::clone(&bytes));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (door, count) = (Arc::clone(&door), Arc::clone(&count));
                thread::spawn(move || take(stream, &door, &count));
            }
        });
        Self { addr, open, bytes }
    }
}

fn take(mut stream: TcpStream, open: &AtomicBool, bytes: &AtomicU64) {
    while let Some((head, body)) = request(&mut stream) {
        if !open.load(Ordering::SeqCst) {
            return;
        }
        bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        // As many as it may be: nobody counts here.
        let written =
            if head.contains("write.v2") { "X-Prometheus-Remote-Write-Samples-Written: 2000\r\n" } else { "" };
        if stream.write_all(format!("HTTP/1.1 204 No Content\r\n{written}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// What Prometheus scrapes: the same pages, one a second.
fn target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let begin = Instant::now();
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while request(&mut stream).is_some() {
                    let body = metrics::encode(page(begin.elapsed().as_secs()), Format::Text).expect("a page");
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
                        Format::Text.content_type(),
                        body.len()
                    );
                    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// A process under measurement; it ends with this value.
struct Measured {
    process: Child,
    folder: PathBuf,
}

#[derive(Clone, Copy)]
struct Usage {
    cpu_seconds: f64,
    resident: f64,
    disk: u64,
}

impl Measured {
    fn usage(&self) -> Usage {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Usage {
            cpu_seconds: ticks / citadel_agent::host::process::ticks_per_second(),
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

/// Bytes of the files below `folder`.
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

fn start_prometheus(folder: &Path, sink: &Sink, target: SocketAddr) -> Measured {
    let yaml = format!(
        "scrape_configs:\n- job_name: agent\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{target}']}}]\n\
         remote_write:\n- url: http://{}/write\n",
        sink.addr
    );
    fs::write(folder.join("prometheus.yml"), yaml).expect("a configuration");
    let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let process = Command::new("prometheus")
        .arg("--enable-feature=agent")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.agent.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus: cargo xtask setup test");
    Measured { process, folder: folder.join("data") }
}

/// `Prometheus 2.42.0`, as it says itself.
fn prometheus_version() -> String {
    let said = Command::new("prometheus").arg("--version").output().expect("prometheus: cargo xtask setup test");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    format!("Prometheus {}", said.split_whitespace().nth(2).unwrap_or("of an unknown version"))
}

/// What the sender has said last: collected, acknowledged, pending.
type Said = Arc<[AtomicU64; 3]>;

fn start_agent(folder: PathBuf, sink: &Sink) -> (Measured, Said) {
    let configuration = format!(
        "remote_write:\n  interval: 1s\n  directory: {}\n  instance: gpu1\n  min_free_bytes: 0\n  \
         destinations: {{ sink: {{ url: 'http://{}/write' }} }}\n",
        folder.display(),
        sink.addr
    );
    let mut process = Command::new(env::current_exe().expect("this program"))
        .env(ROLE, configuration)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    lines.next();
    let said: Said = Arc::default();
    let heard = Arc::clone(&said);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            for (number, word) in heard.iter().zip(line.split(' ')) {
                number.store(word.parse().unwrap_or(0), Ordering::SeqCst);
            }
        }
    });
    (Measured { process, folder }, said)
}

fn compare(outage: Duration) {
    let dir = env::temp_dir().join(format!("citadel-bench-{}", std::process::id()));
    for name in ["agent", "prometheus"] {
        fs::create_dir_all(dir.join(name)).expect("a folder");
    }
    // A receiver each, so that bytes can be told apart.
    let (sink, prometheus_sink) = (Sink::start(), Sink::start());
    let (agent, said) = start_agent(dir.join("agent"), &sink);
    let prometheus = start_prometheus(&dir.join("prometheus"), &prometheus_sink, target());
    let number = |which: usize| said[which].load(Ordering::SeqCst);
    thread::sleep(WARM);
    let begin = [agent.usage(), prometheus.usage()];
    let collected = number(0);

    for sink in [&sink, &prometheus_sink] {
        sink.open.store(false, Ordering::SeqCst);
        sink.bytes.store(0, Ordering::SeqCst);
    }
    thread::sleep(outage);
    let away = [agent.usage(), prometheus.usage()];
    let (waiting, acknowledged) = (number(2), number(1));

    for sink in [&sink, &prometheus_sink] {
        sink.open.store(true, Ordering::SeqCst);
    }
    // The longest wait between two tries is half a minute; what is drained after it counts.
    while number(1) == acknowledged {
        thread::sleep(Duration::from_millis(20));
    }
    let (back, before) = (Instant::now(), number(1));
    let mut most: f64 = 0.0;
    while number(2) > 2 * 2 * MODELS {
        thread::sleep(Duration::from_millis(500));
        most = most.max(agent.usage().resident);
    }
    let (drained, drain_seconds) = (number(1) - before, back.elapsed().as_secs_f64());
    // Prometheus drains in its own way; both are given the same time in all.
    thread::sleep(Duration::from_secs(30));
    let end = [agent.usage(), prometheus.usage()];
    let samples = (number(0) - collected) as f64;

    let millions = samples / 1e6;
    let cpu = |i: usize| (end[i].cpu_seconds - begin[i].cpu_seconds) / millions;
    let bytes = |i: usize| away[i].disk.saturating_sub(begin[i].disk) as f64 / waiting as f64;
    let sent = [&sink, &prometheus_sink].map(|sink| sink.bytes.load(Ordering::SeqCst) as f64 / samples);
    let row = |what: &str, of: [f64; 2], digits: usize| {
        println!("| {what} | {:.digits$} | {:.digits$} | {:.2} |", of[0], of[1], of[0] / of[1]);
    };
    println!(
        "{} series each second; the receiver goes away for {} s and comes back. Beside the agent runs {} in agent mode, \
         scraping the same page; it sends remote write 1.0, the agent 2.0.\n",
        2 * MODELS,
        outage.as_secs(),
        prometheus_version()
    );
    println!("| what | agent | Prometheus agent mode | ratio |\n| --- | ---: | ---: | ---: |");
    row("CPU, seconds a million samples, outage and return included", [cpu(0), cpu(1)], 2);
    row("resident memory before the outage, MB", [begin[0].resident, begin[1].resident], 1);
    row("resident memory at its end, MB", [away[0].resident, away[1].resident], 1);
    row("bytes on disk a sample", [bytes(0), bytes(1)], 1);
    row("bytes sent a sample", sent, 1);
    println!(
        "\nThe agent's resident memory grew by {:.1} MB while {waiting} samples waited (target: below 5 MB), and was {most:.1} \
         MB at most while they drained: {drained} samples in {drain_seconds:.0} s, {:.0} a second (ten times the live rate \
         is {}).",
        away[0].resident - begin[0].resident,
        drained as f64 / drain_seconds,
        10 * 2 * MODELS
    );
    drop((agent, prometheus));
    _ = fs::remove_dir_all(dir);
}
