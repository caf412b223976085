//! `cargo xtask campaign`: remote write and logs through many crashes, and invalid connections.

use anyhow::{Context as _, Result};

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, process, test};

/// Arguments of `cargo xtask campaign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The campaign; by default, remote write.
    #[command(subcommand)]
    which: Option<Which>,
    /// How often the agent is killed, with a disk that works and with one that is full at times.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Repeat a campaign that printed this seed.
    #[arg(long, global = true)]
    seed: Option<u64>,
}

#[derive(clap::Subcommand)]
enum Which {
    /// Send raw packets to a server that closes connections at random, in a network namespace: once all sockets are
    /// closed, every request that started must be completed, aborted or counted as lost, and connections must equal
    /// handshakes. As root.
    Net {
        /// Duration in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Kill the agent and the receivers of its logs while a unit counts: every line must arrive, in order, and be
    /// settled exactly once.
    Logs {
        /// How often they are killed.
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
}

/// Runs the campaign: the test of the same name, which is short otherwise.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let seed = args.seed.map(|seed| ("CAMPAIGN_SEED", seed.to_string()));
    if let Some(Which::Net { seconds }) = args.which {
        setup::ensure(workspace, &[Purpose::Test])?;
        let agent = build::agent(workspace, true)?;
        let mut cargo = test::on_the_kernel(workspace, &agent, &["--test", "campaign"])?;
        cargo.args(["--", "--nocapture", "--test-threads=1"]).env("CAMPAIGN_SECONDS", seconds.to_string()).envs(seed);
        return process::run(&mut cargo).context(FOUND);
    }
    let (test, rounds) = match args.which {
        Some(Which::Logs { rounds }) => ("logs_campaign", rounds),
        Some(Which::Net { .. }) | None => ("campaign", args.rounds),
    };
    let mut cargo = workspace.cargo("test");
    cargo
        .args(["--locked", "--package", "citadel-agent", "--test", test, "--", "--nocapture", "--test-threads=1"])
        .env("CAMPAIGN_ROUNDS", rounds.to_string())
        .envs(seed);
    process::run(&mut cargo).context(FOUND)
}

const FOUND: &str = "the campaign failed; its seed is printed above";
