//! `cargo xtask build`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::setup;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build with optimisations, as it is run and measured.
    #[arg(long)]
    release: bool,
}

/// Runs `cargo xtask build`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[])?;
    let binary = agent(workspace, args.release)?;
    eprintln!("xtask: built {}", binary.display());
    Ok(())
}

/// Builds the agent and returns the path of its binary. Set-up must have run before.
pub(crate) fn agent(workspace: &Workspace, release: bool) -> Result<PathBuf> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--locked", "--package", "citadel-agent"]);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    Ok(workspace.agent(release))
}

/// `citadel-agent run` as root: only the built binary ever runs as root, never cargo.
pub(crate) fn agent_command(binary: &Path, config: Option<&Path>) -> Result<Command> {
    let mut command = process::as_root(binary, &["RUST_LOG", "CITADEL_AGENT_CONFIG"])?;
    command.arg("run");
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    Ok(command)
}
