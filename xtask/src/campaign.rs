//! `cargo xtask campaign`: remote write through a hundred crashes.

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask campaign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the agent is killed, with a disk that is there and with one that is full at times.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Repeats a campaign that printed this.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it: the test of the same name, which has a few rounds otherwise.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut cargo = workspace.cargo("test");
    cargo
        .args(["--locked", "--package", "citadel-agent", "--test", "campaign", "--", "--nocapture", "--test-threads=1"])
        .env("CAMPAIGN_ROUNDS", args.rounds.to_string());
    if let Some(seed) = args.seed {
        cargo.env("CAMPAIGN_SEED", seed.to_string());
    }
    process::run(&mut cargo).context("the campaign found something; its seed is printed above")
}
