//! `cargo xtask run`: runs the agent on this host, or with stand-in models.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{build, demo, setup};

/// Arguments of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent's configuration file; by default it looks where docs/configuration.md says.
    #[arg(long, conflicts_with = "demo")]
    config: Option<PathBuf>,
    /// Start stand-in models and a small load, and show the agent's numbers next to the models' own.
    #[arg(long)]
    demo: bool,
    /// Stop the demo after this many seconds; by default it runs until Ctrl-C.
    #[arg(long, requires = "demo")]
    seconds: Option<u64>,
    /// Run this agent instead of building one.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Further arguments for `citadel-agent run`.
    #[arg(last = true)]
    rest: Vec<OsString>,
}

/// Runs `cargo xtask run`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.demo {
        demo::check_ports()?;
    }
    let binary = match &args.agent {
        Some(binary) => binary.canonicalize().with_context(|| format!("no agent at {}", binary.display()))?,
        None => {
            setup::ensure(workspace, if args.demo { &[setup::Purpose::Demo] } else { &[] })?;
            build::agent(workspace, true)?
        }
    };
    if args.demo {
        return demo::main(workspace, &binary, args.seconds, &args.rest);
    }
    let mut command = build::agent_command(&binary, args.config.as_deref())?;
    command.args(&args.rest);
    // Replaces this process by the agent, so that signals reach it and its exit code is ours.
    Err(command.exec()).with_context(|| format!("cannot run {}", binary.display()))
}
