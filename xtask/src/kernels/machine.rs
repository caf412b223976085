//! One emulated machine: boots a kernel, keeps its console, reads the verdict.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::guest::{FAILED, PASSED};
use super::image::GUEST;
use crate::emulator::QEMU;
use crate::workspace::Workspace;

/// What runs in a machine.
#[derive(Clone, Copy)]
pub(super) struct Guest<'a> {
    /// The first process, with its arguments.
    pub(super) init: &'a str,
    /// More words for the kernel's command line.
    pub(super) words: &'a str,
    /// Longest run.
    pub(super) limit: Duration,
}

impl Guest<'static> {
    /// This program alone: 15 to 40 seconds, most of them the verifier's.
    pub(super) const OWN: Self = Self { init: "guest", words: "", limit: Duration::from_secs(240) };

    /// systemd: a minute or two.
    pub(super) const SYSTEMD: Self = Self {
        init: "guest systemd",
        words: "systemd.unit=guest.target systemd.show_status=0 systemd.journald.forward_to_console",
        limit: Duration::from_secs(420),
    };
}

/// Runs the guest under `kernel`; its summary, if all is well. `console` keeps what the machine printed.
///
/// # Errors
/// The guest's complaint, or that it never came to a verdict.
pub(super) fn run(
    workspace: &Workspace,
    kernel: &Path,
    image: &Path,
    console: &Path,
    guest: Guest<'_>,
) -> Result<String> {
    let Guest { init, words, limit } = guest;
    let output = File::create(console).with_context(|| format!("creating {}", console.display()))?;
    let machine = Machine(
        workspace
            .command(QEMU)
            // Emulated, because not every machine that builds this can virtualise.
            // One CPU: with two, a kernel that patches its own code meets stale breakpoints now and then (6.12, QEMU 7.2).
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"])
            // The machine's clocks count its instructions, one a nanosecond, and leap over idle times: so what is measured in
            // it neither depends on what else this host does nor differs between runs.
            .args(["-icount", "shift=0,sleep=off"])
            .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 {words} rdinit={GUEST} -- {init}")])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?,
    );
    let ended = machine.ends_within(limit)?;
    let text = String::from_utf8_lossy(&fs::read(console)?).into_owned();
    let verdict = |word: &str| {
        text.lines().rev().find_map(|line| line.trim().split_once(word)).map(|(_, rest)| rest.trim().to_owned())
    };
    let see = format!("the console is in {}", console.display());
    match (verdict(PASSED), verdict(FAILED)) {
        (Some(summary), None) if ended => Ok(summary),
        (_, Some(complaint)) => bail!("{complaint}; {see}"),
        _ if !ended => bail!("no verdict after {} s; {see}", limit.as_secs()),
        _ => bail!("the machine stopped without a verdict; {see}"),
    }
}

/// A running QEMU; dropped, it ends.
struct Machine(Child);

impl Machine {
    /// Whether it powers off in time.
    fn ends_within(mut self, limit: Duration) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
