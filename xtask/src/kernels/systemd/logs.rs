//! Logs under a real systemd: a model's lines in journald's own journal, on their way to the real systemd-journal-remote while both the
//! agent and the receiver are killed and the journal is rotated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::lifecycle::{AGENT, another};
use super::machine::{INFO, SOON, kill, page_when, show, value};
use super::server::{LINES, OUT_OF_MEMORY, ask};
use crate::process;
use crate::scrape::Page;

/// The model that logs.
pub(super) const TALKER: (&str, u16) = ("talker", 11490);

/// The receiver: its unit, where it takes entries, and where it keeps them.
pub(super) const RECEIVER: &str = "receiver.service";
pub(super) const RECEIVER_PORT: u16 = 19532;
pub(super) const RECEIVER_FOLDER: &str = "/run/received";

/// How often the agent and the receiver are killed while the model logs.
const KILLS: usize = 3;

/// Orders the model to log [`LINES`] more lines.
fn talk() -> Result<()> {
    ask(TALKER.1, "POST /log").map(drop)
}

/// Checks that every line arrives and is counted.
pub(super) fn arrive() -> Result<String> {
    let labels = [("model".to_owned(), TALKER.0.to_owned())];
    page_when("the model that logs is known", |page| value(page, INFO, &labels).is_some())?;
    the_child_may_do_nothing()?;
    let event = [("model", TALKER.0), ("event", "cuda_out_of_memory")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let counted = |page: &Page| {
        let lines = value(page, "citadel_model_log_messages_total", &labels).unwrap_or(0.0);
        lines >= LINES as f64 + 1.0 && value(page, "citadel_model_log_events_total", &event) == Some(1.0)
    };
    talk()?;
    ask(TALKER.1, &format!("POST {OUT_OF_MEMORY}"))?;
    page_when("the model's lines and its event count", counted)?;
    received_up_to(LINES)?;

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let talking = thread::spawn(move || {
        let mut times = 0;
        while !stopped.load(Ordering::Relaxed) {
            talk()?;
            times += 1;
        }
        anyhow::Ok(times)
    });
    for _ in 0..KILLS {
        thread::sleep(Duration::from_secs(2));
        let old = kill(AGENT, libc::SIGKILL)?;
        kill(RECEIVER, libc::SIGKILL)?;
        another(&old).context("the agent after kill -9")?;
    }
    stop.store(true, Ordering::Relaxed);
    let times: u64 = talking.join().map_err(|_| anyhow!("the thread that orders lines has panicked"))??;
    let last = LINES * (1 + times);
    received_up_to(last)?;

    process::run(Command::new("journalctl").args(["--quiet", "--rotate"]))?;
    talk()?;
    let last = last + LINES;
    let (lines, again) = received_up_to(last)?;

    Ok(format!("{lines} lines received in order, {again} of them again after {KILLS} kills"))
}

/// `journalctl` has no capabilities, and reads the journal as a member of its group.
fn the_child_may_do_nothing() -> Result<()> {
    let parent = show(AGENT, "MainPID")?;
    let group = fs::read_to_string("/etc/group")?;
    let group = group.lines().find_map(|line| line.strip_prefix("systemd-journal:x:")?.split(':').next());
    let group = group.context("there is no group systemd-journal")?;
    let mut seen = 0;
    for entry in fs::read_dir("/proc")? {
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        if field("PPid:") != parent {
            continue;
        }
        ensure!(field("Name:") == "journalctl", "the agent has a child {}", field("Name:"));
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            ensure!(field(set) == "0000000000000000", "journalctl has {set} {}", field(set));
        }
        ensure!(field("Groups:").split_whitespace().any(|own| own == group), "its groups: {}", field("Groups:"));
        seen += 1;
    }
    // One that counts, one for the destination.
    ensure!(seen == 2, "the agent has {seen} children");
    Ok(())
}

/// Waits until the receiver has the lines up to this one; how many it has, and how many of them more than once.
fn received_up_to(last: u64) -> Result<(usize, usize)> {
    let begun = Instant::now();
    loop {
        let files = received()?;
        let seen: BTreeSet<u64> = files.iter().flatten().copied().collect();
        let missing: Vec<u64> = (1..=last).filter(|line| !seen.contains(line)).collect();
        if missing.is_empty() {
            for lines in &files {
                let mut places = BTreeMap::new();
                lines.iter().enumerate().for_each(|(place, line)| _ = places.entry(line).or_insert(place));
                ensure!(places.values().is_sorted(), "out of order");
            }
            return Ok((seen.len(), files.iter().map(Vec::len).sum::<usize>() - seen.len()));
        }
        if begun.elapsed() > SOON {
            bail!("{} of {last} lines are not received, the first is {}", missing.len(), missing[0]);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// The numbers that the receiver has, by file: after a kill it begins another one.
fn received() -> Result<Vec<Vec<u64>>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(Path::new(RECEIVER_FOLDER))? {
        files.push(entry?.path());
    }
    let unit = format!("_SYSTEMD_UNIT=citadel-{}.service", TALKER.0);
    let read = |path: PathBuf| {
        let mut command = Command::new("journalctl");
        command.args(["--quiet", "--output=cat", &unit, "--file"]).arg(&path);
        // A file that was begun has nothing to read yet.
        let text = process::output(&mut command).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    Ok(files.into_iter().map(read).collect())
}
