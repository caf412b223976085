//! The package's life: installed, reloaded, killed, hanging, mistaken, removed, purged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::guest::{HEALTH, METRICS};
use super::check::{SOON, show, systemctl};
use super::image::PACKAGE;
use crate::process;
use crate::scrape;

const UNIT: &str = "citadel-agent.service";
const CONFIG: &str = "/etc/citadel-agent/monitoring-integration.yaml";

/// No model is configured, so that units give the names.
const CONFIG_TEXT: &str =
    "local_collection:\n  collection_interval: 2\nmodel_monitoring:\n  ports: {}\n  health_endpoints: []\n";

/// What a machine without the package has.
pub(super) struct Fresh {
    files: BTreeSet<String>,
    users: String,
}

/// Where a package and what runs leave files that are not the package's.
const NOT_LOOKED_AT: [&str; 10] =
    ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/dpkg", "/var/lib/systemd", "/new-root"];

/// What is made for any package: copies that a change of the users leaves, its lock, and folders that systemd and `systemctl enable` make.
const OF_OTHERS: [&str; 7] = [
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/var/lib/private",
    "/etc/systemd/system/multi-user.target.wants",
];

impl Fresh {
    pub(super) fn look() -> Result<Self> {
        let mut files = BTreeSet::new();
        let mut left = vec![Path::new("/").to_owned()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                let path = entry?.path();
                let name = path.display().to_string();
                if NOT_LOOKED_AT.contains(&name.as_str()) {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    left.push(path);
                }
                files.insert(name);
            }
        }
        files.retain(|name| !OF_OTHERS.contains(&name.as_str()));
        let users =
            ["passwd", "group"].map(|name| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default());
        Ok(Self { files, users: users.concat() })
    }
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
    ensure!(show(UNIT, "ActiveState")? == "active", "it is {} after dpkg", show(UNIT, "ActiveState")?);
    ensure!(show(UNIT, "UnitFileState")? == "enabled", "it is {}", show(UNIT, "UnitFileState")?);
    scrape::get(HEALTH, "/ready").context("active means ready")?;
    ensure!(fs::read_to_string(CONFIG)? == CONFIG_TEXT, "the configuration was overwritten");
    let status = show(UNIT, "StatusText")?;
    ensure!(status.contains("models; probes: net"), "its status is {status:?}");
    Ok(format!("installed and ready in {:.0} s", took.as_secs_f64()))
}

/// `systemctl reload` waits for the outcome, and fails where the agent refuses.
pub(super) fn reloads() -> Result<()> {
    let pid = show(UNIT, "MainPID")?;
    let moved = CONFIG_TEXT.replace("model_monitoring", "  endpoints: {system_metrics: /host}\nmodel_monitoring");
    fs::write(CONFIG, &moved)?;
    systemctl(&["reload", UNIT])?;
    scrape::get(METRICS, "/host").context("a good file is in force when the reload has ended")?;
    for bad in ["local_collection:\n  metrcs_port: 1\n", ""] {
        fs::write(CONFIG, bad)?;
        ensure!(systemctl(&["reload", UNIT]).is_err(), "a reload with a bad file ({bad:?}) succeeds");
        ensure!(show(UNIT, "ActiveState")? == "active", "a refused reload ends the service");
        scrape::get(METRICS, "/host").context("the old configuration stays in force")?;
    }
    ensure!(show(UNIT, "MainPID")? == pid, "a reload restarts the agent");
    fs::write(CONFIG, CONFIG_TEXT)?;
    systemctl(&["reload", UNIT])?;
    ensure!(scrape::get(METRICS, "/host").is_err(), "the first configuration is in force again");
    Ok(())
}

/// Waits until another process of the agent is ready, and says how long that took.
fn another(old: &str) -> Result<Duration> {
    let begun = Instant::now();
    while show(UNIT, "ActiveState")? != "active"
        || show(UNIT, "MainPID")? == old
        || scrape::get(HEALTH, "/ready").is_err()
    {
        // A hang is noticed after a minute.
        if begun.elapsed() > Duration::from_secs(120) + SOON {
            bail!("it does not come back: {}, {}", show(UNIT, "ActiveState")?, show(UNIT, "Result")?);
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(begun.elapsed())
}

fn main_process() -> Result<(libc::pid_t, String)> {
    let pid = show(UNIT, "MainPID")?;
    Ok((pid.parse()?, pid))
}

/// Killed, it is started again.
pub(super) fn comes_back() -> Result<String> {
    let (pid, shown) = main_process()?;
    // SAFETY: a signal to a process that is not ours to lose.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let took = another(&shown)?;
    Ok(format!("back {:.0} s after kill -9", took.as_secs_f64()))
}

/// Stopped, it no longer says that it lives, and systemd starts another one.
pub(super) fn hangs() -> Result<()> {
    let (pid, shown) = main_process()?;
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    another(&shown).context("the watchdog")?;
    Ok(())
}

/// It fails at once and stays so: no later start would do better.
pub(super) fn a_mistake_is_not_tried_again() -> Result<()> {
    fs::write(CONFIG, "local_collection:\n  metrcs_port: 1\n")?;
    ensure!(systemctl(&["restart", UNIT]).is_err(), "a mistaken configuration starts");
    // Longer than RestartSec=.
    thread::sleep(Duration::from_secs(8));
    ensure!(show(UNIT, "ActiveState")? == "failed", "it is {}", show(UNIT, "ActiveState")?);
    ensure!(show(UNIT, "ExecMainStatus")? == "2", "it ended with {}", show(UNIT, "ExecMainStatus")?);
    fs::write(CONFIG, CONFIG_TEXT)?;
    systemctl(&["start", UNIT])?;
    scrape::get(HEALTH, "/ready").context("started again")?;
    Ok(())
}

/// Removed it is gone but for configuration and state; purged, without a trace.
pub(super) fn goes(fresh: &Fresh) -> Result<String> {
    fs::write("/var/lib/citadel-agent/left", "by the agent").context("the state directory")?;
    dpkg(&["--remove", "citadel-agent"])?;
    ensure!(scrape::get(HEALTH, "/ready").is_err(), "it runs on after its removal");
    ensure!(show(UNIT, "ActiveState")? != "active", "systemd still has it");
    ensure!(Path::new(CONFIG).is_file(), "a removal takes the configuration");
    dpkg(&["--purge", "citadel-agent"])?;
    let now = Fresh::look()?;
    let left: Vec<_> = now.files.difference(&fresh.files).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(now.users == fresh.users, "a user is left behind: {}", now.users);
    Ok("purged without a trace".to_owned())
}
