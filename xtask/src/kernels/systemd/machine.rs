//! What the checks share: the models, waiting for a page, and systemd.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::image::METRICS;
use crate::process;
use crate::scrape::{self, Page};

/// Models and their ports: two that exist from the beginning, one that is started later, one that systemd starts on the
/// first connection.
pub(super) const PHI3: (&str, u16) = ("phi3", 11403);
pub(super) const YI: (&str, u16) = ("yi", 11450);
pub(super) const LATE: (&str, u16) = ("late", 11460);
pub(super) const LAZY: (&str, u16) = ("lazy", 11470);

/// Time limit for a condition to become true: several of the agent's intervals on a slow machine.
pub(super) const SOON: Duration = Duration::from_secs(40);

pub(super) const CPU: &str = "citadel_model_cpu_seconds_total";
pub(super) const MEMORY: &str = "citadel_model_memory_bytes";
pub(super) const INFO: &str = "citadel_model_info";
pub(super) const REQUESTS: &str = "citadel_model_requests_total";

/// Scrapes the models' page until `condition` holds.
pub(super) fn page_when(what: &str, condition: impl Fn(&Page) -> bool) -> Result<Page> {
    let begun = Instant::now();
    loop {
        let page = Page::parse(&scrape::get(METRICS, "/metrics/models")?);
        if condition(&page) {
            return Ok(page);
        }
        if begun.elapsed() > SOON {
            bail!("not within {} s: {what}", SOON.as_secs());
        }
        thread::sleep(Duration::from_millis(250));
    }
}

/// The sum of the series with these labels.
pub(super) fn value(page: &Page, name: &str, labels: &[(String, String)]) -> Option<f64> {
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    page.sum(name, &labels)
}

/// Sends a unit's main process a signal; which process that was.
pub(super) fn kill(unit: &str, signal: libc::c_int) -> Result<String> {
    let pid = show(unit, "MainPID")?;
    let number: libc::pid_t = pid.parse().context("MainPID")?;
    ensure!(number > 1, "{unit} has no main process");
    // SAFETY: two numbers.
    ensure!(unsafe { libc::kill(number, signal) } == 0, "process {pid} does not exist");
    Ok(pid)
}

pub(super) fn systemctl(words: &[&str]) -> Result<String> {
    process::output(Command::new("systemctl").args(words))
}

pub(super) fn show(unit: &str, property: &str) -> Result<String> {
    Ok(systemctl(&["show", "--value", "--property", property, unit])?.trim().to_owned())
}
