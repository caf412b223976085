//! `cargo xtask kernels`: boots Debian's kernels in emulated machines and sees that the agent loads, attaches and measures
//! on each. The machine's only process is this very program (`xtask guest`) and what it starts.

pub(crate) mod guest;
mod image;
mod machine;
pub(crate) mod packages;
mod traffic;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// A kernel, and the Debian release whose kernel it is.
struct Kernel {
    version: &'static str,
    release: &'static str,
}

/// All kernels, the oldest that the agent supports first.
const KERNELS: [Kernel; 3] = [
    Kernel { version: "5.10", release: "bullseye" },
    Kernel { version: "6.1", release: "bookworm" },
    Kernel { version: "6.12", release: "trixie" },
];

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these.
    #[arg(value_parser = KERNELS.map(|kernel| kernel.version))]
    versions: Vec<String>,
    /// Show what the machines print.
    #[arg(long)]
    console: bool,
}

/// Runs `cargo xtask kernels`.
///
/// # Errors
/// When a kernel cannot be had, or the agent fails on one: all are tried first.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("only x86-64 kernels are emulated so far");
    }
    setup::ensure(workspace, &[Purpose::Kernels])?;
    // Unoptimised: the kernel programs are optimised in any build.
    let agent = build::agent(workspace, false)?;
    let folder = workspace.target().join("kernels");
    let image = image::build(&folder, &agent)?;
    let mut failed = Vec::new();
    for kernel in
        KERNELS.iter().filter(|kernel| args.versions.is_empty() || args.versions.iter().any(|v| v == kernel.version))
    {
        let version = kernel.version;
        let console = folder.join(version).join("console.log");
        let verdict = packages::kernel(&folder, kernel)
            .with_context(|| format!("getting Linux {version}"))
            .and_then(|linux| machine::run(&linux, &image, &console));
        if args.console {
            eprintln!("{}", fs::read_to_string(&console).unwrap_or_default());
        }
        match verdict {
            Ok(summary) => eprintln!("xtask: Linux {version}: ok, {summary}"),
            Err(error) => {
                eprintln!("xtask: Linux {version}: {error:#}");
                failed.push(version);
            }
        }
    }
    if !failed.is_empty() {
        bail!("the agent fails on Linux {}", failed.join(", "));
    }
    Ok(())
}
