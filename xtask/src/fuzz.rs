//! `cargo xtask fuzz`.

use anyhow::{Context as _, Result};

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to look for a crash.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Which target of `fuzz/fuzz_targets`.
    #[arg(long, default_value = "tracker")]
    target: String,
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Fuzz])?;
    let mut cargo = workspace.cargo("fuzz");
    cargo
        .args(["run", &args.target, "--", &format!("-max_total_time={}", args.seconds), "-print_final_stats=1"])
        // Without it, a line for each input that is kept: hundreds of them, of no use to whoever reads the output.
        .arg("-verbosity=0")
        // The sanitizers are unstable flags; the pinned compiler takes them with this, so no nightly is needed.
        .env("RUSTC_BOOTSTRAP", "1");
    process::run(&mut cargo)
        .with_context(|| format!("fuzzing {0}: an input that made it fail is under fuzz/artifacts/{0}", args.target))?;
    eprintln!("xtask: {} found nothing in {} s", args.target, args.seconds);
    Ok(())
}
