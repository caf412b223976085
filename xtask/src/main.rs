//! Set-up, build, run, test, lint, fuzz and bench: `cargo xtask help`.

mod bench;
mod build;
mod campaign;
mod cores;
mod cross;
mod debian;
mod demo;
mod dist;
mod ebpf;
mod emulator;
mod fuzz;
mod group;
mod kernels;
mod lint;
mod newer;
mod process;
mod run;
mod scrape;
mod setup;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::workspace::Workspace;

/// Development tasks of this repository. Each command first installs what it needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Find or install the tools and packages that the other commands need
    Setup(setup::Args),
    /// Build the agent with its eBPF programs
    Build(build::Args),
    /// Build the agent and run it on this host, as root.
    Run(run::Args),
    /// Run all tests; those on the running kernel as root.
    Test(test::Args),
    /// Make a Debian package and an archive with an installer.
    Dist(dist::Args),
    /// Check format, lints, docs, dependencies and the rules of the house.
    Lint,
    /// Boot old kernels and check that the agent loads, attaches and measures on each.
    Kernels(kernels::Args),
    /// Runs inside such a kernel, as PID 1 or one of its children.
    #[command(hide = true)]
    Guest {
        /// The role.
        #[command(subcommand)]
        role: Option<kernels::Role>,
    },
    /// Fuzz the HTTP tracker.
    Fuzz(fuzz::Args),
    /// Kill the agent a hundred times while its remote-write receiver misbehaves, and account for every sample; `net`: send what
    /// keeps to no rule to a server, and account for every request.
    Campaign(campaign::Args),
    /// Measure what the agent costs, and whether it counts exactly; as root.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let xtask = Xtask::parse();
    if let Xtask::Guest { role } = &xtask {
        kernels::be_guest(role.as_ref());
    }
    match dispatch(&xtask) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(xtask: &Xtask) -> Result<()> {
    let workspace = Workspace::here()?;
    match xtask {
        Xtask::Setup(args) => setup::main(&workspace, args),
        Xtask::Build(args) => build::main(&workspace, args),
        Xtask::Run(args) => run::main(&workspace, args),
        Xtask::Test(args) => test::main(&workspace, args),
        Xtask::Kernels(args) => kernels::main(&workspace, args),
        Xtask::Guest { .. } => unreachable!("a guest never returns"),
        Xtask::Dist(args) => dist::main(&workspace, args),
        Xtask::Lint => lint::main(&workspace),
        Xtask::Fuzz(args) => fuzz::main(&workspace, args),
        Xtask::Campaign(args) => campaign::main(&workspace, args),
        Xtask::Bench(args) => bench::main(&workspace, args),
    }
}
