//! The package: installed, reloaded, killed, hung, misconfigured, upgraded, downgraded, removed, purged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::image::{HEALTH, METRICS};
use super::machine::{SOON, kill, show, systemctl};
use crate::process;
use crate::scrape;

pub(super) const AGENT: &str = "citadel-agent.service";
const CONFIG: &str = "/etc/citadel-agent/monitoring-integration.yaml";

/// The package in the machine, and the same as a later version.
pub(super) const PACKAGE: &str = "/citadel-agent.deb";
pub(super) const NEXT: &str = "/citadel-agent-next.deb";

/// No model is configured, so that units give the names.
const CONFIG_TEXT: &str = "local_collection:\n  collection_interval: 2\nmodel_monitoring:\n  ports: {}\n  health_endpoints: []\n\
    logs:\n  destinations: {centre: {url: 'http://127.0.0.1:19532/upload', format: journal}}\n";

/// The same without kernel programs, which the emulated machine's verifier takes long for at each start.
fn light() -> String {
    format!("{CONFIG_TEXT}ebpf: {{net: false, recvq: false, sched: false, syscalls: false}}\n")
}

/// From here on the agent starts fast.
pub(super) fn without_programs() -> Result<()> {
    fs::write(CONFIG, light())?;
    systemctl(&["reload", AGENT])?;
    // Only the file that says that there is nothing.
    let kept = show(AGENT, "NFileDescriptorStore")?;
    ensure!(kept == "1", "systemd still keeps {kept} descriptors");
    Ok(())
}

fn dpkg(words: &[&str]) -> Result<()> {
    // What the package depends on was unpacked, not installed.
    process::run(Command::new("dpkg").args(["--force-depends", "--force-confold"]).args(words))
}

/// The package, over a configuration that an administrator has written before. Once dpkg is done, the service is up.
pub(super) fn installs() -> Result<String> {
    fs::create_dir_all("/etc/citadel-agent")?;
    fs::write(CONFIG, CONFIG_TEXT)?;
    let begun = Instant::now();
    dpkg(&["--install", PACKAGE])?;
    let took = begun.elapsed();
    ensure!(show(AGENT, "ActiveState")? == "active", "it is {} after dpkg", show(AGENT, "ActiveState")?);
    ensure!(show(AGENT, "UnitFileState")? == "enabled", "it is {}", show(AGENT, "UnitFileState")?);
    scrape::get(HEALTH, "/ready").context("active means ready")?;
    ensure!(fs::read_to_string(CONFIG)? == CONFIG_TEXT, "the configuration was overwritten");
    let status = show(AGENT, "StatusText")?;
    ensure!(status.contains("models; probes: net"), "its status is {status:?}");
    Ok(format!("installed and ready in {:.0} s", took.as_secs_f64()))
}

/// Waits until another process of the agent is ready, and says how long that took.
pub(super) fn another(old: &str) -> Result<Duration> {
    let begun = Instant::now();
    while show(AGENT, "ActiveState")? != "active"
        || show(AGENT, "MainPID")? == old
        || scrape::get(HEALTH, "/ready").is_err()
    {
        if begun.elapsed() > SOON {
            bail!("it does not come back: {}, {}", show(AGENT, "ActiveState")?, show(AGENT, "Result")?);
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(begun.elapsed())
}

/// Takes the installed package to its end.
pub(super) fn to_the_end(before: &System) -> Result<String> {
    reloads().context("reload")?;
    hangs().context("a hang")?;
    a_mistake_is_not_tried_again().context("an invalid configuration")?;
    let upgrade = changes_version(NEXT).context("upgrade")?;
    let downgrade = changes_version(PACKAGE).context("downgrade")?;
    goes(before).context("removal")?;
    Ok(format!(
        "not scraped for {:.1} s by an upgrade and {:.1} s by a downgrade, purged without a trace",
        upgrade.as_secs_f64(),
        downgrade.as_secs_f64()
    ))
}

/// `systemctl reload` waits for the outcome, and fails where the agent refuses.
fn reloads() -> Result<()> {
    let pid = show(AGENT, "MainPID")?;
    let moved = light().replace("local_collection:\n", "local_collection:\n  endpoints: {system_metrics: /host}\n");
    fs::write(CONFIG, &moved)?;
    systemctl(&["reload", AGENT])?;
    scrape::get(METRICS, "/host").context("the new configuration is in force once the reload has ended")?;
    for bad in ["local_collection:\n  metrcs_port: 1\n", ""] {
        fs::write(CONFIG, bad)?;
        ensure!(systemctl(&["reload", AGENT]).is_err(), "a reload of {bad:?} succeeds");
        ensure!(show(AGENT, "ActiveState")? == "active", "a refused reload ends the service");
        scrape::get(METRICS, "/host").context("the old configuration stays in force")?;
    }
    ensure!(show(AGENT, "MainPID")? == pid, "a reload restarts the agent");
    fs::write(CONFIG, light())?;
    systemctl(&["reload", AGENT])?;
    ensure!(scrape::get(METRICS, "/host").is_err(), "the page did not move back");
    Ok(())
}

/// An agent that no longer reports to the watchdog is replaced.
fn hangs() -> Result<()> {
    // The shipped unit gives it a minute.
    let folder = format!("/run/systemd/system/{AGENT}.d");
    fs::create_dir_all(&folder)?;
    fs::write(format!("{folder}/impatient.conf"), "[Service]\nWatchdogSec=8s\nTimeoutAbortSec=2s\n")?;
    systemctl(&["daemon-reload"])?;
    let old = show(AGENT, "MainPID")?;
    systemctl(&["restart", AGENT])?;
    another(&old)?;
    let hung = kill(AGENT, libc::SIGSTOP)?;
    another(&hung)?;
    fs::remove_dir_all(&folder)?;
    systemctl(&["daemon-reload"]).map(drop)
}

/// The service fails at once and stays so: another start would fail too.
fn a_mistake_is_not_tried_again() -> Result<()> {
    fs::write(CONFIG, "local_collection:\n  metrcs_port: 1\n")?;
    ensure!(systemctl(&["restart", AGENT]).is_err(), "it starts");
    // Longer than RestartSec=.
    thread::sleep(Duration::from_secs(8));
    ensure!(show(AGENT, "ActiveState")? == "failed", "it is {}", show(AGENT, "ActiveState")?);
    ensure!(show(AGENT, "ExecMainStatus")? == "2", "its status is {}", show(AGENT, "ExecMainStatus")?);
    fs::write(CONFIG, light())?;
    systemctl(&["start", AGENT])?;
    scrape::get(HEALTH, "/ready").map(drop)
}

/// Installs another version; how long the agent could not be scraped.
fn changes_version(package: &str) -> Result<Duration> {
    fs::write(KEPT, "state")?;
    let old = show(AGENT, "MainPID")?;
    let done = AtomicBool::new(false);
    let gap = thread::scope(|scope| {
        let gap = scope.spawn(|| {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                if scrape::get(METRICS, "/metrics/models").is_ok() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                thread::sleep(Duration::from_millis(20));
            }
            longest.max(last.elapsed())
        });
        let changed = dpkg(&["--install", package]).and_then(|()| another(&old));
        done.store(true, Ordering::Relaxed);
        let gap = gap.join().map_err(|_| anyhow::anyhow!("the thread that scrapes has panicked"));
        changed.and(gap)
    })?;
    ensure!(show(AGENT, "UnitFileState")? == "enabled", "it is {}", show(AGENT, "UnitFileState")?);
    ensure!(fs::read_to_string(CONFIG)? == light(), "the configuration was overwritten");
    ensure!(Path::new(KEPT).is_file(), "the state is lost");
    let (version, wanted) = (version_of(&["--show", "citadel-agent"])?, version_in(package)?);
    ensure!(version == wanted, "version {version} is installed, not {wanted}");
    Ok(gap)
}

/// Removed, it leaves its configuration and state; purged, nothing.
fn goes(before: &System) -> Result<()> {
    dpkg(&["--remove", "citadel-agent"])?;
    ensure!(scrape::get(HEALTH, "/ready").is_err(), "it still runs after its removal");
    ensure!(Path::new(CONFIG).is_file(), "the configuration is removed");
    ensure!(Path::new(KEPT).is_file(), "the state is removed");
    dpkg(&["--purge", "citadel-agent"])?;
    let after = System::read()?;
    let left: Vec<_> = after.files.difference(&before.files).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(after.users == before.users, "a user is left behind:\n{}", after.users);
    Ok(())
}

/// A file of the agent's state directory.
const KEPT: &str = "/var/lib/citadel-agent/kept";

fn version_of(words: &[&str]) -> Result<String> {
    process::output(Command::new("dpkg-query").arg("--showformat=${Version}").args(words))
}

fn version_in(package: &str) -> Result<String> {
    process::output(Command::new("dpkg-deb").args(["--field", package, "Version"]))
}

/// What a system consists of, apart from what every package changes.
pub(super) struct System {
    files: BTreeSet<PathBuf>,
    users: String,
}

/// Folders that belong to no package.
const ELSEWHERE: [&str; 12] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/home",
    "/srv",
    "/var/tmp",
    "/var/log",
    "/var/lib/dpkg",
    "/var/lib/systemd",
    "/new-root",
];

/// Files that any package with a user and an enabled unit leaves.
const BOOKKEEPING: [&str; 7] = [
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/var/lib/private",
    "/etc/systemd/system/multi-user.target.wants",
];

impl System {
    pub(super) fn read() -> Result<Self> {
        let mut files = BTreeSet::new();
        let mut folders = vec![PathBuf::from("/")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                let path = entry?.path();
                if ELSEWHERE.iter().chain(&BOOKKEEPING).any(|other| path == Path::new(other)) {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                files.insert(path);
            }
        }
        let users = fs::read_to_string("/etc/passwd")? + &fs::read_to_string("/etc/group")?;
        Ok(Self { files, users })
    }
}
