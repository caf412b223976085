//! The package: installed, reloaded, restarted.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::guest::HEALTH;
use super::check::{SOON, show, systemctl};
use super::image::PACKAGE;
use crate::process;
use crate::scrape;

pub(super) const AGENT: &str = "citadel-agent.service";
const CONFIG: &str = "/etc/citadel-agent/monitoring-integration.yaml";

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
    systemctl(&["reload", AGENT]).map(drop)
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
