//! Logs compared with `systemd-journal-upload`: CPU and memory while a unit logs thousands of lines per second.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::agent::{bytes, cpu_ticks, free_port};
use super::{Stage, document, go_on, report};
use crate::group::{self, Group};
use crate::workspace::Workspace;
use crate::{build, scrape};

/// Arguments of `cargo xtask bench logs`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long the unit logs, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Lines per second.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Print the figures only; docs/overhead.md stays as it is.
    #[arg(long)]
    quick: bool,
}

/// The section of docs/overhead.md that this benchmark writes.
const HEADING: &str = "## Logs, beside systemd-journal-upload";

/// Folder of systemd's programs.
const SYSTEMD: &str = "/usr/lib/systemd";

/// The unit that logs; its name makes it a model's.
const UNIT: &str = "citadel-phi3.service";

/// Idle time at the start, so that each has read the existing entries.
const SETTLE: Duration = Duration::from_secs(5);

/// Time limit for the last lines to arrive.
const DRAIN: Duration = Duration::from_secs(120);

/// Runs `cargo xtask bench logs`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let folder = stage.folder.join("logs");
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut journal = Journal::start(&folder)?;
    journal.line("the journal begins")?;
    // So that none starts with an empty journal.
    thread::sleep(Duration::from_secs(1));
    let mut subjects = Vec::new();
    for (what, destination) in [
        ("agent, no logs (`logs.enabled: false`)", None),
        ("agent, counts what models log (the default)", Some("")),
        ("agent, to systemd-journal-remote", Some("journal")),
        ("agent, to OTLP", Some("otlp")),
        ("agent, to Loki", Some("loki")),
    ] {
        subjects.push(Subject::agent(stage, &folder, what, destination, &journal.folder)?);
    }
    subjects.push(Subject::upload(&folder, &journal.folder)?);
    thread::sleep(SETTLE);
    let idle = measure(&subjects, SETTLE)?;
    let before = subjects.iter().map(Subject::usage).collect::<Result<Vec<_>>>()?;
    let took = journal.log(args)?;
    let lines = args.rate * args.seconds;
    let begun = Instant::now();
    while subjects.iter().any(|subject| subject.arrived() < lines) {
        go_on()?;
        ensure!(begun.elapsed() < DRAIN, "not all lines arrive: {:?}", arrived(&subjects));
        thread::sleep(Duration::from_millis(200));
    }
    // The counting child is not waited for.
    thread::sleep(Duration::from_secs(2));
    let mut rows = Vec::new();
    for ((subject, before), idle) in subjects.iter().zip(before).zip(idle) {
        let after = subject.usage()?;
        rows.push(Row {
            what: subject.what,
            idle,
            cpu: after.cpu - before.cpu,
            memory: after.memory,
            sent: subject.sink.as_ref().map(|sink| sink.bytes.load(Ordering::Relaxed)),
        });
    }
    let section = section(args, lines, took, &rows)?;
    println!("{section}");
    if !args.quick {
        document::write_section(workspace, &section)?;
    }
    Ok(())
}

/// The result of one program.
struct Row {
    what: &'static str,
    /// CPU seconds per second while nothing is logged.
    idle: f64,
    /// CPU seconds until all lines have arrived.
    cpu: f64,
    memory: Memory,
    /// Bytes of its request bodies.
    sent: Option<u64>,
}

fn arrived(subjects: &[Subject]) -> Vec<(&'static str, u64)> {
    subjects.iter().map(|subject| (subject.what, subject.arrived())).collect()
}

/// CPU seconds per second of each program over some time.
fn measure(subjects: &[Subject], time: Duration) -> Result<Vec<f64>> {
    let cpu = || subjects.iter().map(|subject| Ok(subject.usage()?.cpu)).collect::<Result<Vec<_>>>();
    let before = cpu()?;
    thread::sleep(time);
    Ok(cpu()?.iter().zip(before).map(|(after, before)| (after - before) / time.as_secs_f64()).collect())
}

/// A program that ships logs.
struct Subject {
    what: &'static str,
    group: Group,
    sink: Option<Arc<Sink>>,
    /// The agent's account of acknowledged entries.
    account: Option<PathBuf>,
}

/// Usage of the process and its children.
struct Usage {
    /// CPU seconds so far.
    cpu: f64,
    memory: Memory,
}

/// Resident memory in bytes: in total, and without file mappings. The files are mostly the journal's, which all of its
/// readers map.
#[derive(Clone, Copy, Default)]
struct Memory {
    resident: f64,
    anonymous: f64,
}

impl Subject {
    /// The agent without kernel programs and discovery; `destination`: no logs, counting only, or a format to send.
    fn agent(
        stage: &Stage,
        folder: &Path,
        what: &'static str,
        destination: Option<&str>,
        journal: &Path,
    ) -> Result<Self> {
        let (metrics, health) = (free_port()?, free_port()?);
        let name = destination.map_or("none", |format| if format.is_empty() { "counts" } else { format });
        let sink =
            destination.filter(|format| !format.is_empty()).map(|format| Sink::start(format == "loki")).transpose()?;
        let destinations = sink.as_ref().map_or_else(
            || "{}".to_owned(),
            |sink| format!("{{sink: {{url: 'http://127.0.0.1:{}/upload', format: {name}}}}}", sink.port),
        );
        // The model exists by name only, and is not probed.
        let text = format!(
            "local_collection: {{listen_address: 127.0.0.1, metrics_port: {metrics}, health_check_port: {health}, \
             log_level: WARN, control_socket: {control}}}\n\
             model_monitoring: {{ports: {{phi3: 11403}}, discover: none, health_endpoints: []}}\n\
             gpu: {{enabled: false}}\nebpf: {{net: false, recvq: false, sched: false, syscalls: false}}\n\
             services: {{units: []}}\nlogs:\n  enabled: {enabled}\n  rate_limit: 0\n  journal: {journal}\n  \
             directory: {state}\n  destinations: {destinations}\n",
            control = folder.join(format!("{name}.sock")).display(),
            enabled = destination.is_some(),
            journal = journal.display(),
            state = folder.join(name).display(),
        );
        let config = folder.join(format!("{name}.yaml"));
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = build::agent_command(&stage.agent, Some(&config))?;
        let mut group = Group::spawn(what, &mut command, group::log(folder, name), false)?;
        group.wait_until(Duration::from_secs(30), || scrape::get(health, "/ready").is_ok())?;
        let cursor = folder.join(name).join("sink.json");
        if sink.is_some() {
            group.wait_until(Duration::from_secs(30), || cursor.exists())?;
        }
        let account = sink.is_some().then_some(cursor);
        Ok(Self { what, group, sink, account })
    }

    fn upload(folder: &Path, journal: &Path) -> Result<Self> {
        let what = "systemd-journal-upload";
        let sink = Sink::start(false)?;
        let mut command = Command::new(Path::new(SYSTEMD).join(what));
        command.arg(format!("--url=http://127.0.0.1:{}", sink.port)).arg("--follow");
        command.arg(format!("--directory={}", journal.display()));
        command.arg(format!("--save-state={}", folder.join("upload.state").display()));
        let group = Group::spawn(what, &mut command, group::log(folder, what), false)?;
        Ok(Self { what, group, sink: Some(sink), account: None })
    }

    /// Lines acknowledged by the receiver; all lines if there is none.
    fn arrived(&self) -> u64 {
        let acknowledged = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let (_, rest) = text.split_once("\"acknowledged\":")?;
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
        };
        match (&self.account, &self.sink) {
            (Some(account), _) => acknowledged(account).unwrap_or(0),
            (None, Some(sink)) => sink.entries.load(Ordering::Relaxed),
            (None, None) => u64::MAX,
        }
    }

    fn usage(&self) -> Result<Usage> {
        // SAFETY: sysconf reads a constant.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let mut usage = Usage { cpu: 0.0, memory: Memory::default() };
        let own = self.group.child.id();
        for pid in std::iter::once(own).chain(children(own)?) {
            let read = |file: &str| {
                fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("{} has ended", self.what))
            };
            usage.cpu += cpu_ticks(&read("stat")?).context("no CPU times")? as f64 / per_second;
            let status = read("status")?;
            let field = |name| bytes(&status, name).with_context(|| format!("no {name} of {}", self.what));
            usage.memory.resident += field("VmRSS:")?;
            usage.memory.anonymous += field("RssAnon:")?;
        }
        Ok(usage)
    }
}

/// The child processes of a process.
fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A receiver that accepts and counts everything.
struct Sink {
    port: u16,
    /// Number of entries, if they are not compressed.
    entries: AtomicU64,
    /// Total size of the bodies.
    bytes: AtomicU64,
}

/// Occurs once per entry in the journal's format.
const CURSOR: &[u8] = b"__CURSOR=";

impl Sink {
    fn start(no_content: bool) -> Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let sink = Arc::new(Self {
            port: listener.local_addr()?.port(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let own = Arc::clone(&sink);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                // The other side has closed the connection, or is about to.
                thread::spawn(move || own.serve(stream, no_content).unwrap_or_default());
            }
        });
        Ok(sink)
    }

    /// Answers requests until the connection ends.
    fn serve(&self, stream: TcpStream, no_content: bool) -> Result<()> {
        let mut reader = BufReader::with_capacity(256 << 10, stream.try_clone()?);
        let mut writer = stream;
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let head = head.to_ascii_lowercase();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if field("expect:").is_some() {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut body = Counted { sink: self, tail: Vec::new() };
            if field("transfer-encoding:") == Some("chunked") {
                loop {
                    let mut size = String::new();
                    reader.read_line(&mut size)?;
                    let size = u64::from_str_radix(size.trim(), 16).context("no chunk")?;
                    std::io::copy(&mut (&mut reader).take(size), &mut body)?;
                    reader.read_line(&mut String::new())?;
                    if size == 0 {
                        break;
                    }
                }
            } else {
                let length = field("content-length:").and_then(|length| length.parse().ok()).context("no length")?;
                std::io::copy(&mut (&mut reader).take(length), &mut body)?;
            }
            let answer = if no_content { "204 No Content\r\n\r\n" } else { "200 OK\r\nContent-Length: 0\r\n\r\n" };
            write!(writer, "HTTP/1.1 {answer}")?;
        }
    }
}

/// Counts occurrences in what is written to it.
struct Counted<'a> {
    sink: &'a Sink,
    /// The end of the previous data, shorter than the pattern.
    tail: Vec<u8>,
}

impl std::io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sink.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.tail.extend_from_slice(bytes);
        let found = self.tail.windows(CURSOR.len()).filter(|window| *window == CURSOR).count();
        self.sink.entries.fetch_add(found as u64, Ordering::Relaxed);
        let kept = self.tail.len().saturating_sub(CURSOR.len() - 1);
        self.tail.drain(..kept);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A journal written by systemd-journal-remote, in which a unit logs.
struct Journal {
    folder: PathBuf,
    _group: Group,
    input: BufWriter<ChildStdin>,
    time_us: u64,
    entries: u64,
}

impl Journal {
    fn start(folder: &Path) -> Result<Self> {
        let journal = folder.join("journal");
        fs::create_dir(&journal)?;
        let mut command = Command::new(Path::new(SYSTEMD).join("systemd-journal-remote"));
        command.arg("--output").arg(journal.join("system.journal")).arg("-");
        let log = group::log(folder, "systemd-journal-remote");
        let mut group = Group::spawn("systemd-journal-remote", &mut command, log, true)?;
        let input = group.child.stdin.take().context("its input is not piped")?;
        Ok(Self { folder: journal, _group: group, input: BufWriter::new(input), time_us: 0, entries: 0 })
    }

    /// An entry with the fields that journald adds to a line of a unit's standard output.
    fn line(&mut self, text: &str) -> Result<()> {
        // Some come before the clock has moved.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as u64;
        self.time_us = now.max(self.time_us + 1);
        self.entries += 1;
        write!(
            self.input,
            "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             _TRANSPORT=stdout\nPRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=python3\n_PID=4711\n_UID=999\n_GID=999\n\
             _COMM=python3\n_EXE=/usr/bin/python3.11\n_CMDLINE=/usr/bin/python3 -m vllm.entrypoints.openai.api_server --port 11403\n\
             _CAP_EFFECTIVE=0\n_SYSTEMD_CGROUP=/system.slice/{UNIT}\n_SYSTEMD_UNIT={UNIT}\n_SYSTEMD_SLICE=system.slice\n\
             _SYSTEMD_INVOCATION_ID=fedcba9876543210fedcba9876543210\n_STREAM_ID=00112233445566778899aabbccddeeff\n\
             _MACHINE_ID=ffeeddccbbaa99887766554433221100\n_HOSTNAME=gpu-host-1\nMESSAGE={text}\n\n",
            time = self.time_us,
            number = self.entries,
        )?;
        Ok(self.input.flush()?)
    }

    /// Logs the requested number of lines, in a batch every 10 ms; returns how long that took.
    fn log(&mut self, args: &Args) -> Result<Duration> {
        let begun = Instant::now();
        let mut logged = 0;
        while logged < args.rate * args.seconds {
            go_on()?;
            let due = (begun.elapsed().as_millis() as u64 * args.rate / 1000).min(args.rate * args.seconds);
            for number in logged..due {
                let port = 32768 + number % 28000;
                let line =
                    format!("INFO:     10.0.0.7:{port} - \"POST /v1/chat/completions HTTP/1.1\" 200 OK ({number})");
                self.line(&line)?;
            }
            logged = due;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(begun.elapsed())
    }
}

/// The text of the section.
fn section(args: &Args, lines: u64, took: Duration, rows: &[Row]) -> Result<String> {
    let mut text = format!("{HEADING}\n\nWritten by `cargo xtask bench logs`. {}\n\n", report::environment()?);
    writeln!(
        text,
        "A unit logs {} lines a second for {} s (it took {:.0} s), as a model's access log has them, with the fields that journald \
         adds. All of these follow the journal at the same time, each to a receiver of its own on this host that takes everything; \
         {lines} lines arrived at each. CPU and memory are those of the process and of the `journalctl` that it has started. Files \
         that are resident are the journal's, for the most part, which all of its readers share.\n",
        args.rate,
        args.seconds,
        took.as_secs_f64(),
    )?;
    text += "| what | CPU, % of a core | while nothing is logged | ms a thousand lines | resident memory, MB | without files, MB | bytes sent a line |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for Row { what, idle, cpu, memory, sent } in rows {
        let sent = sent.map_or(String::new(), |sent| format!("{:.0}", sent as f64 / lines as f64));
        writeln!(
            text,
            "| {what} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {sent} |",
            cpu / took.as_secs_f64() * 100.0,
            idle * 100.0,
            cpu * 1e6 / lines as f64,
            memory.resident * 1e-6,
            memory.anonymous * 1e-6,
        )?;
    }
    text += "\nCPU is from `/proc/PID/stat`, in steps of 10 ms.\n";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_however_they_are_cut() {
        let sink = Sink { port: 0, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) };
        let text = b"__CURSOR=a\nMESSAGE=x\n\n__CURSOR=b\n";
        for piece in 1..text.len() {
            let mut counted = Counted { sink: &sink, tail: Vec::new() };
            text.chunks(piece).for_each(|piece| _ = counted.write(piece).unwrap());
            assert_eq!(sink.entries.swap(0, Ordering::Relaxed), 2, "{piece}");
        }
    }
}
