//! `cargo xtask bench remote-write`: what remote write costs in an outage and after it, beside Prometheus in agent mode.

use std::fs;

use anyhow::{Context as _, Result};

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Where the section of `docs/overhead.md` begins; it goes to the end of the file.
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
        let file = workspace.root.join("docs/overhead.md");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let rest = split(&text).0.trim_end();
        let again = "```sh\ncargo xtask bench remote-write\n```";
        fs::write(&file, format!("{rest}\n\n{HEADING}\n{section}\n\n{again}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("bench: written to {}", file.display());
    }
    Ok(())
}

/// The document without this section, and the section, which the other benchmark leaves as it is.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(HEADING).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_the_end_of_the_document_and_may_be_missing() {
        let text = format!("# Overhead\n\n## Again\n\n{HEADING}\nfigures\n");
        let (rest, section) = split(&text);
        assert_eq!((rest, section.starts_with(HEADING)), ("# Overhead\n\n## Again\n\n", true));
        assert_eq!(split(rest), (rest, ""));
    }
}
