//! One emulated machine: boots a kernel, records its console, reads the verdict.

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
    /// PID 1, with its arguments.
    pub(super) init: &'a str,
    /// More parameters for the kernel command line.
    pub(super) words: &'a str,
    /// Time limit.
    pub(super) limit: Duration,
}

impl Guest<'static> {
    /// This program alone: 15 to 40 seconds, most of it in the verifier.
    pub(super) const OWN: Self = Self { init: "guest", words: "", limit: Duration::from_secs(240) };

    /// systemd: one or two minutes.
    pub(super) const SYSTEMD: Self = Self {
        init: "guest systemd",
        words: "systemd.unit=guest.target systemd.show_status=0 systemd.journald.forward_to_console",
        limit: Duration::from_secs(720),
    };
}

/// Runs the guest under `kernel` and returns its summary; `console` keeps the machine's output.
///
/// # Errors
/// The guest's failure, or that it never reached a verdict.
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
            // Emulated, because not every build machine can virtualise. One CPU: with two, a kernel that patches its
            // own code hits stale breakpoints now and then (6.12, QEMU 7.2).
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"])
            // The machine's clocks count its instructions, one per nanosecond, and skip idle time: so measurements
            // neither depend on the host's load nor differ between runs.
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

/// A running QEMU; killed on drop.
struct Machine(Child);

impl Machine {
    /// Whether it powers off within `limit`.
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
