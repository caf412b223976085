//! The unit that compares the agent's numbers with the true ones.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::image::{HEALTH, METRICS, READY_WITHIN};
use super::machine::{CPU, INFO, LATE, LAZY, MEMORY, PHI3, REQUESTS, SOON, YI, page_when, show, systemctl, value};
use super::server::{TOUCH, WEIGHTS, ask};
use super::{lifecycle, logs, restart, units};
use crate::process;
use crate::scrape::{self, Page};

/// File systems that a unit may be kept from seeing, and their sizes in MiB; and one that is mounted while the agent runs.
const FILE_SYSTEMS: [(&str, u64); 2] = [("/home", 40), ("/run/user/1000", 8)];
const LATE_FILE_SYSTEM: (&str, u64) = ("/srv/late", 10);

/// The capabilities that the shipped unit grants (`<linux/capability.h>`): BPF, PERFMON, SYSLOG, NET_ADMIN, SYS_PTRACE,
/// DAC_READ_SEARCH.
const CAPABILITIES: u64 = 1 << 39 | 1 << 38 | 1 << 34 | 1 << 12 | 1 << 19 | 1 << 2;

/// Runs all checks and returns the summary.
pub(crate) fn run() -> Result<String> {
    let begun = Instant::now();
    let result = everything();
    if result.is_err() {
        for (port, path) in [(HEALTH, "/status"), (METRICS, "/metrics/models"), (METRICS, "/metrics/services")] {
            println!("--- {path}\n{}", scrape::get(port, path).unwrap_or_else(|error| format!("{error:#}")));
        }
    }
    Ok(format!("{}; {:.0} s", result?, begun.elapsed().as_secs_f64()))
}

fn everything() -> Result<String> {
    FILE_SYSTEMS.into_iter().try_for_each(mount)?;
    let before = lifecycle::System::read().context("what the system consists of")?;
    let installed = lifecycle::installs().context("installing the package")?;
    let agent = the_shipped_unit_measures().context("the shipped unit")?;
    filesystems_are_true().context("file systems")?;
    units_give_names().context("names")?;
    let tree = the_whole_unit_counts().context("CPU time and memory of a unit")?;
    a_restart_keeps_the_series().context("restart")?;
    a_unit_comes_and_goes().context("a new unit")?;
    a_socket_waits_for_its_service().context("socket activation")?;
    let changes = units::changes_are_told().context("changes of units")?;
    let kept = restart::loses_nothing().context("a restart of the agent")?;
    lifecycle::without_programs().context("reload without kernel programs")?;
    let arrived = logs::arrive().context("logs")?;
    let life = lifecycle::to_the_end(&before)?;
    Ok(format!("{installed}; {agent}; {tree}; {changes}; {kept}; {arrived}; {life}"))
}

/// The agent runs with exactly what its unit grants, and its programs are attached.
fn the_shipped_unit_measures() -> Result<String> {
    let begun = Instant::now();
    while scrape::get(HEALTH, "/ready").is_err() {
        let state = show("citadel-agent.service", "ActiveState")?;
        if state != "active" && state != "activating" || begun.elapsed() > READY_WITHIN {
            let status = show("citadel-agent.service", "ExecMainStatus")?;
            bail!("the agent is not ready: {state}, exit status {status}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    let page = Page::parse(&scrape::get(METRICS, "/metrics/models")?);
    let programs = |labels: &[(&str, &str)]| page.sum("citadel_probe_status", labels);
    ensure!(programs(&[("family", "net"), ("status", "ok")]) >= Some(4.0), "the net family is not measuring");
    let pid = show("citadel-agent.service", "MainPID")?;
    let proc = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = proc.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let hex = |name| u64::from_str_radix(&field(name), 16).with_context(|| format!("{name} in /proc/{pid}/status"));
    ensure!(field("Uid") != "0", "it runs as root");
    ensure!(field("NoNewPrivs") == "1" && field("Seccomp") == "2", "it is not confined: {proc}");
    for name in ["CapEff", "CapBnd"] {
        ensure!(hex(name)? == CAPABILITIES, "{name} is {:x}", hex(name)?);
    }
    let kib: u64 = field("VmRSS").parse().unwrap_or(0);
    Ok(format!("agent ready after {:.0} s, {} MiB", begun.elapsed().as_secs_f64(), kib / 1024))
}

/// Mounts a `tmpfs` of this many MiB.
fn mount((place, mib): (&str, u64)) -> Result<()> {
    fs::create_dir_all(place)?;
    process::run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", place]))
}

/// The agent reads file systems under its unit as `df` does outside of it, also one that was mounted later.
fn filesystems_are_true() -> Result<()> {
    mount(LATE_FILE_SYSTEM)?;
    fs::write("/home/file", vec![1; 5 << 20])?;
    for (place, mib) in FILE_SYSTEMS.into_iter().chain([LATE_FILE_SYSTEM]) {
        let begun = Instant::now();
        loop {
            let df = process::output(Command::new("df").args(["--block-size=1", "--output=size,avail", place]))?;
            let df: Vec<f64> = df.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            ensure!(df[0] == (mib << 20) as f64, "{place} has {df:?}");
            let page = Page::parse(&scrape::get(METRICS, "/metrics/storage")?);
            let read = |name: &str| page.sum(name, &[("mountpoint", place)]);
            let agent = ["node_filesystem_size_bytes", "node_filesystem_avail_bytes"].map(read);
            if agent == [Some(df[0]), Some(df[1])] {
                break;
            }
            ensure!(begun.elapsed() < SOON, "{place}: the agent reads {agent:?}, df {df:?}");
            thread::sleep(Duration::from_millis(250));
        }
    }
    process::run(Command::new("umount").arg(LATE_FILE_SYSTEM.0))
}

fn units_give_names() -> Result<()> {
    for (model, port) in [PHI3, YI] {
        let unit = format!("citadel-{model}.service");
        let pid = show(&unit, "MainPID")?;
        let (port, exe) = (port.to_string(), std::env::current_exe()?.display().to_string());
        let labels = [("model", model), ("port", &port), ("unit", &unit), ("pid", &pid), ("exe", &exe)].map(own);
        page_when(&format!("{model} is discovered"), |page| value(page, INFO, &labels) == Some(1.0))?;
    }
    Ok(())
}

/// A process reparented to PID 1 still belongs to its unit.
fn the_whole_unit_counts() -> Result<String> {
    let (phi3, yi) = ([own(("model", PHI3.0))], [own(("model", YI.0))]);
    let cpu = |page: &Page, labels: &[(String, String)]| value(page, CPU, labels).unwrap_or(f64::NAN);
    let rss = |page: &Page| value(page, MEMORY, &[own(("model", PHI3.0)), own(("kind", "rss"))]).unwrap_or(f64::NAN);
    let before = page_when("CPU time and memory are exported", |page| cpu(page, &phi3) > 0.0 && rss(page) > 0.0)?;
    let pss = |page: &Page| value(page, MEMORY, &[own(("model", PHI3.0)), own(("kind", "pss"))]).unwrap_or(f64::NAN);
    fs::write(WEIGHTS.0, vec![1; WEIGHTS.1])?;
    let more = (TOUCH + WEIGHTS.1) as f64;
    let by_systemd = systemd_cpu(PHI3.0)?;
    let truth: f64 = ask(PHI3.1, "POST /work")?.parse().context("the worker's CPU time")?;
    let least = cpu(&before, &phi3) + truth;
    let after = page_when("the worker's CPU time and memory count", |page| {
        cpu(page, &phi3) >= least && rss(page) >= rss(&before) + more && pss(page) >= pss(&before) + more
    })?;
    let used = cpu(&after, &phi3) - cpu(&before, &phi3);
    let used_by_systemd = systemd_cpu(PHI3.0)? - by_systemd;
    // The shell and the server use CPU too, and systemd was queried at other times: at most one emulated second.
    ensure!((used - used_by_systemd).abs() < 1.0, "{used} s, and systemd counts {used_by_systemd} s");
    let grown = rss(&after) - rss(&before);
    ensure!(grown < more + 24e6, "{grown} bytes more, of which {more} were touched");
    ensure!(pss(&after) <= rss(&after), "pss is {}, rss {}", pss(&after), rss(&after));
    // Why memory is counted per process: the cgroup is not charged for pages that another cgroup has faulted in.
    let charged = charged_to(PHI3.0)?;
    ensure!(charged < more, "the cgroup is charged {charged} bytes: count memory by cgroup, then");
    let neighbour = cpu(&after, &yi) - cpu(&before, &yi);
    ensure!(neighbour < 0.5, "the neighbour is charged {neighbour} s");
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Ok(format!(
        "a unit's {truth:.2} s read as {used:.2} s, {:.0} MiB as {:.0} MiB (charged to its cgroup: {:.0})",
        mib(more),
        mib(grown),
        mib(charged)
    ))
}

fn a_restart_keeps_the_series() -> Result<()> {
    let labels = [own(("model", PHI3.0)), own(("port", "11403"))];
    let requests = |page: &Page| value(page, REQUESTS, &labels).unwrap_or(0.0);
    let before = page_when("requests are there", |page| requests(page) >= 1.0)?;
    let cpu_before = value(&before, CPU, &labels).context("no CPU time")?;
    let unit = format!("citadel-{}.service", PHI3.0);
    let old = show(&unit, "MainPID")?;
    systemctl(&["restart", &unit])?;
    let new = show(&unit, "MainPID")?;
    ensure!(new != old, "systemd has not restarted {unit}");
    let pid = |pid: &str| [own(("model", PHI3.0)), own(("pid", pid))];
    let (old, new) = (pid(&old), pid(&new));
    let after = page_when("the new process is discovered", |page| value(page, INFO, &new).is_some())?;
    ensure!(value(&after, INFO, &old).is_none(), "the old process is still attributed to the model");
    ensure!(value(&after, CPU, &labels).is_some_and(|cpu| cpu >= cpu_before), "CPU time decreased");
    ensure!(requests(&after) == requests(&before), "{} requests were {}", requests(&after), requests(&before));
    ask(PHI3.1, "GET /v1/models")?;
    page_when("requests continue to be counted", |page| requests(page) == requests(&before) + 1.0)?;
    Ok(())
}

fn a_unit_comes_and_goes() -> Result<()> {
    let (unit, labels) = (format!("citadel-{}.service", LATE.0), [own(("model", LATE.0))]);
    systemctl(&["start", &unit])?;
    page_when("the new unit is discovered", |page| value(page, INFO, &labels).is_some())?;
    ask(LATE.1, "GET /v1/models")?;
    page_when("it is being measured", |page| value(page, REQUESTS, &labels) == Some(1.0))?;
    systemctl(&["stop", &unit])?;
    page_when("its series have ended", |page| {
        [INFO, REQUESTS, CPU, MEMORY, "citadel_model_connections_open"]
            .iter()
            .all(|name| value(page, name, &labels).is_none())
    })?;
    Ok(())
}

/// systemd holds the socket; the agent sees it, and its own probes do not start the service.
fn a_socket_waits_for_its_service() -> Result<()> {
    let (name, port) = LAZY;
    let unit = format!("citadel-{name}.service");
    let waiting = [own(("model", "port-11470")), own(("pid", "")), own(("unit", ""))];
    page_when("the socket is discovered", |page| value(page, INFO, &waiting).is_some())?;
    ensure!(show(&unit, "ActiveState")? == "inactive", "{unit} was started");
    ask(port, "GET /v1/models")?;
    let served = [own(("model", name)), own(("pid", &show(&unit, "MainPID")?)), own(("unit", &unit))];
    page_when("the service is discovered", |page| value(page, INFO, &served).is_some())?;
    Ok(())
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// What the kernel charges to a unit's cgroup for mapped files, in bytes.
fn charged_to(model: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/sys/fs/cgroup/system.slice/citadel-{model}.service/memory.stat"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    Ok(field("anon ").context("memory.stat has no anon")? + field("file_mapped ").context("no file_mapped")?)
}

/// CPU time by systemd's accounting, in seconds.
fn systemd_cpu(model: &str) -> Result<f64> {
    let ns = show(&format!("citadel-{model}.service"), "CPUUsageNSec")?;
    Ok(ns.parse::<u64>().with_context(|| format!("CPUUsageNSec is {ns:?}"))? as f64 / 1e9)
}
