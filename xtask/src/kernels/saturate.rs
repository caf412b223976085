//! A machine with nginx and wrk, in which `cargo xtask bench machine` measures.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{MEASURED_KERNEL, image, machine, packages};
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Programs in the image besides the agent and this one.
const PROGRAMS: [&str; 2] = ["nginx", "wrk"];

/// Upper limit of the time before a load: the verifier's work, when the agent starts.
const START: Duration = Duration::from_secs(60);
/// Upper limit of the real seconds per second of the machine's clock, which counts instructions.
const SLOWDOWN: u64 = 30;

/// Boots the machine and measures inside it, with `loads` loads per round; returns the console output.
///
/// # Errors
/// The kernel or a program is unavailable, or the guest fails.
pub(crate) fn boot(workspace: &Workspace, agent: &Path, rounds: u32, seconds: u64, loads: u32) -> Result<String> {
    setup::ensure(workspace, &[Purpose::Kernels])?;
    let folder = super::folder(workspace);
    let linux = packages::kernel(&folder, MEASURED_KERNEL)
        .with_context(|| format!("getting Linux {}", MEASURED_KERNEL.version))?;
    let folder = folder.join("bench");
    let programs =
        PROGRAMS.map(|name| process::find(name).with_context(|| format!("no {name}: `cargo xtask setup bench`")));
    let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
    let image = image::build(&folder, agent, &programs).context("building the image")?;
    let console = folder.join("console.log");
    let limit = (rounds + 1) * loads * (START + Duration::from_secs(SLOWDOWN * seconds));
    let guest = machine::Guest { init: &format!("guest saturate {rounds} {seconds}"), words: "", limit };
    machine::run(workspace, &linux, &image, &console, guest)?;
    Ok(String::from_utf8_lossy(&fs::read(console)?).into_owned())
}
