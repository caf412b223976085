//! `cargo xtask bench remote-write`: what remote write costs in an outage and after it, beside Prometheus in agent mode.

use anyhow::Result;

use super::document;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// The section's heading.
const HEADING: &str = "## Remote write through an outage\n";

/// Arguments of `cargo xtask bench remote-write`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long the receiver is away.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Only print.
    #[arg(long)]
    quick: bool,
}

/// Runs it: as whoever calls, for nothing here needs root.
pub(super) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    // Prometheus is among the tests' needs.
    setup::ensure(workspace, &[Purpose::Test])?;
    let mut cargo = workspace.cargo("bench");
    cargo.args(["--locked", "--package", "citadel-agent", "--bench", "remote_write", "--", "--seconds"]);
    let section = process::output(cargo.arg(args.seconds.to_string()))?;
    println!("{section}");
    if !args.quick {
        let again = "```sh\ncargo xtask bench remote-write\n```";
        document::write_section(workspace, &format!("{HEADING}\n{section}\n\n{again}\n"))?;
    }
    Ok(())
}
