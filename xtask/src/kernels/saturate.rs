//! One machine with nginx and wrk, in which `cargo xtask bench machine` measures.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{MEASURED_KERNEL, image, machine, packages};
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// What the machine has beside the agent and this program.
const PROGRAMS: [&str; 2] = ["nginx", "wrk"];

/// What precedes a load takes this long at most: the verifier's work, where the agent is started.
const START: Duration = Duration::from_secs(60);
/// A second by the machine's clock, which counts instructions, takes this many at most.
const SLOWDOWN: u64 = 30;

/// Boots the machine and has this program measure in it, `loads` in each round; what the console said.
///
/// # Errors
/// When the kernel or a program cannot be had, or the guest fails.
pub(crate) fn boot(workspace: &Workspace, agent: &Path, rounds: u32, seconds: u64, loads: u32) -> Result<String> {
    setup::ensure(workspace, &[Purpose::Kernels])?;
    let folder = super::folder(workspace);
    let linux = packages::kernel(&folder, MEASURED_KERNEL)
        .with_context(|| format!("getting Linux {}", MEASURED_KERNEL.version))?;
    let folder = folder.join("bench");
    let programs =
        PROGRAMS.map(|name| process::find(name).with_context(|| format!("no {name}: `cargo xtask setup bench`")));
    let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
    let image = image::build(&folder, agent, &programs).context("building the file system")?;
    let console = folder.join("console.log");
    let limit = (rounds + 1) * loads * (START + Duration::from_secs(SLOWDOWN * seconds));
    let guest = machine::Guest { init: &format!("guest saturate {rounds} {seconds}"), words: "", limit };
    machine::run(workspace, &linux, &image, &console, guest)?;
    Ok(String::from_utf8_lossy(&fs::read(console)?).into_owned())
}
