//! `cargo xtask bench`: what the agent costs, and whether it counts exactly. Traffic stays on loopback; everything that
//! is started stops with the benchmark.

mod agent;
mod cgroup;
mod connections;
mod document;
mod empty;
mod families;
mod gpu;
mod host;
mod load;
mod logs;
pub(crate) mod machine;
mod nginx;
mod overhead;
mod pairs;
mod remote_write;
mod report;
mod requests;
mod stats;
mod syscalls;
mod trace;
mod wrk;

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, group, process};

/// The first model port, which takes the load where one port is enough.
const MODEL_PORT: u16 = 11400;
/// A port that belongs to no model.
const OTHER_PORT: u16 = 18080;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Measure this agent instead of building one.
    #[arg(long, global = true)]
    agent: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Throughput with and without the agent, time in its programs, memory and CPU; writes docs/overhead.md.
    Overhead(overhead::Args),
    /// What each probe family costs alone, and what all cost together; writes its section of docs/overhead.md.
    Families(families::Args),
    /// What sampling GPUs costs, with the fake driver; writes docs/gpu.md.
    Gpu(gpu::Args),
    /// Many requests from wrk to nginx: wrk, nginx and the agent must count the same number.
    Requests(requests::Args),
    /// Kernel memory of 100,000 idle and 20,000 streaming connections, and whether all is counted; writes its section of
    /// docs/overhead.md.
    Connections(connections::Args),
    /// Remote write through an outage, compared with Prometheus in agent mode; writes its section of docs/overhead.md.
    RemoteWrite(remote_write::Args),
    /// What the `syscalls` family adds to a system call; writes its section of docs/overhead.md.
    Syscalls(syscalls::Args),
    /// What `citadel-agent trace` costs, and whether each request is shown or counted as missed; writes its section of docs/overhead.md.
    Trace(trace::Args),
    /// nginx at saturation in an emulated machine, with all families and either form of `syscalls`; writes its section
    /// of docs/overhead.md.
    Machine(machine::Args),
    /// Host metrics compared with node_exporter: CPU per scrape and memory; writes its section of docs/overhead.md.
    Host(host::Args),
    /// Logs at thousands of lines a second, beside systemd-journal-upload: CPU and memory; writes its part of docs/overhead.md.
    Logs(logs::Args),
}

/// Runs `cargo xtask bench`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if let What::RemoteWrite(args) = &args.what {
        return remote_write::main(workspace, args);
    }
    if let What::Connections(args) = &args.what
        && let Some(held) = args.hold()
    {
        return held;
    }
    let agent = match &args.agent {
        Some(agent) => agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))?,
        None => {
            setup::ensure(workspace, &[Purpose::Bench])?;
            build::agent(workspace, true)?
        }
    };
    // Reading GPUs and emulating machines need no root.
    if !matches!(args.what, What::Gpu(_) | What::Machine(_)) && !process::is_root() {
        return again_as_root(&agent);
    }
    let folder = workspace.root.join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    group::catch_signals();
    let stage = Stage { agent, folder };
    match &args.what {
        What::Overhead(args) => overhead::main(workspace, &stage, args),
        What::Families(args) => families::main(workspace, &stage, args),
        What::Gpu(args) => gpu::main(workspace, &stage, args),
        What::Requests(args) => requests::main(&stage, args),
        What::Connections(args) => connections::main(workspace, &stage, args),
        What::RemoteWrite(args) => remote_write::main(workspace, args),
        What::Syscalls(args) => syscalls::main(workspace, &stage, args),
        What::Trace(args) => trace::main(workspace, &stage, args),
        What::Machine(args) => machine::main(workspace, &stage, args),
        What::Host(args) => host::main(workspace, &stage, args),
        What::Logs(args) => logs::main(workspace, &stage, args),
    }
}

/// Re-executes this program as root with the agent already built: cargo itself never runs as root.
fn again_as_root(agent: &Path) -> Result<()> {
    let own = env::current_exe().context("cannot find this program")?;
    let mut command = process::as_root(&own, &["PATH", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR"])?;
    // A second `--agent` would be refused, and is not needed: the path is already given or was just built.
    let words = env::args_os().skip(1);
    command.args(words);
    if !env::args_os().any(|word| word.to_string_lossy().starts_with("--agent")) {
        command.arg("--agent").arg(agent);
    }
    Err(command.exec()).with_context(|| format!("cannot run {} as root", own.display()))
}

/// What every benchmark needs.
struct Stage {
    /// The agent's binary.
    agent: PathBuf,
    /// Folder for configuration files and logs.
    folder: PathBuf,
}

/// Fails when the user has asked to stop.
fn go_on() -> Result<()> {
    if group::stopping() {
        bail!("interrupted");
    }
    Ok(())
}
