//! `cargo xtask bench remote-write`: what remote write costs, in an outage and after it, and beside Prometheus and vmagent.

use anyhow::Result;

use super::document;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// How long the costs of all are compared, in seconds.
const COST: &str = "120";

/// Arguments of `cargo xtask bench remote-write`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long the receiver is away; 0 leaves the outage out.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Only print.
    #[arg(long)]
    quick: bool,
}

/// Runs it: as whoever calls, for nothing here needs root.
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
