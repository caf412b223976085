//! `cargo xtask bench remote-write`: what remote write costs, during an outage, after it, and compared with Prometheus
//! and vmagent.

use anyhow::Result;

use super::document;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Duration of the cost comparison, in seconds.
const COST: &str = "120";

/// Arguments of `cargo xtask bench remote-write`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Length of the receiver's outage in seconds; 0 skips the outage.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Print the figures only; docs/overhead.md stays as it is.
    #[arg(long)]
    quick: bool,
}

/// Runs `cargo xtask bench remote-write`, without root: nothing here needs it.
pub(super) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Bench])?;
    let outage = args.seconds.to_string();
    let outage = ["--outage", outage.as_str()];
    for part in [["--cost", COST], outage].iter().filter(|part| part[1] != "0") {
        let mut cargo = workspace.cargo("bench");
        cargo.args(["--locked", "--package", "citadel-agent", "--bench", "remote_write", "--"]).args(part);
        let section = process::output(&mut cargo)?;
        println!("{section}");
        if !args.quick {
            let again = "```sh\ncargo xtask bench remote-write\n```";
            document::write_section(workspace, &format!("{section}\n\n{again}\n"))?;
        }
    }
    Ok(())
}
