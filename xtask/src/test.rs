//! `cargo xtask test`.

use std::ffi::OsString;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, process};

/// The package with the tests that attach to the running kernel.
pub(crate) const ON_THE_KERNEL: &str = "citadel-agent-tests";

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show what the tests print.
    #[arg(long)]
    nocapture: bool,
    /// Also run the tests that need an NVIDIA GPU and its driver.
    #[arg(long)]
    gpu: bool,
    /// Also run the tests of the eBPF programs' logging, with an agent built for it.
    #[arg(long)]
    bpf_log: bool,
    /// Also run the tests against a real engine: llama.cpp from Debian sid, with a small random model.
    #[arg(long)]
    engine: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Runs `cargo xtask test`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Test])?;
    // Unit tests and doctests, in parallel and as whoever calls. The agent is built meanwhile: its last step has a core to itself
    // for minutes, and so do some of the tests' builds.
    let (units, agent) = thread::scope(|scope| {
        let agent = scope.spawn(|| build::agent(workspace, true));
        let mut units = workspace.cargo("test");
        units.args(["--locked", "--no-fail-fast", "--workspace", "--exclude", ON_THE_KERNEL]);
        units.args(test_words(args, false));
        let units = process::run(&mut units);
        (units, agent.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let agent = agent?;

    if args.gpu {
        gpu(workspace, args)?;
    }

    // The agent on the running kernel: as root, and one at a time, because the tests share the model ports.
    // They run whatever the others said: who waits half an hour for the outcome wants to know all that fails.
    let live = process::run(on_the_kernel(workspace, &agent, &[])?.args(test_words(args, true)));
    units.and(live)?;
    if args.bpf_log {
        bpf_log(workspace, args)?;
    }
    if args.engine {
        engine(workspace, &agent, args)?;
    }
    Ok(())
}

/// A command that runs the tests of the package [`ON_THE_KERNEL`], or those that `which` selects, with this agent as root; further
/// arguments can be appended.
pub(crate) fn on_the_kernel(workspace: &Workspace, agent: &Path, which: &[&str]) -> Result<Command> {
    let mut kernel = workspace.cargo("test");
    kernel.args(["--locked", "--no-fail-fast", "--package", ON_THE_KERNEL]).args(which).env("CITADEL_AGENT_BIN", agent);
    if let Some(sudo) = process::sudo("the tests on the kernel".as_ref())? {
        kernel.env(runner_variable(), format!("{} --preserve-env", sudo.display()));
    }
    Ok(kernel)
}

/// The agent with this feature is a debug build, so it does not replace the one that is measured and shipped.
fn bpf_log(workspace: &Workspace, args: &Args) -> Result<()> {
    const FEATURE: [&str; 2] = ["--features", "bpf-log"];
    process::run(workspace.cargo("build").args(["--locked", "--package", "citadel-agent"]).args(FEATURE))?;
    let which = [FEATURE.as_slice(), &["--test", "bpf_log"]].concat();
    process::run(on_the_kernel(workspace, &workspace.agent(false), &which)?.args(test_words(args, true)))
}

/// With their output, which docs/accuracy.md needs.
fn engine(workspace: &Workspace, agent: &Path, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Engine])?;
    let mut tests = on_the_kernel(workspace, agent, &["--features", "engine", "--test", "llama"])?;
    tests.args(args.filter.iter()).args(["--", "--nocapture", "--test-threads=1"]);
    process::run(&mut tests)
}

/// Runs the tests on this machine's own GPUs, or prints a line that nobody overlooks.
fn gpu(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::succeeds(Command::new("nvidia-smi").arg("-L")) {
        let line = "!".repeat(100);
        eprintln!(
            "{line}\n!! SKIPPED: the tests on a real GPU. `nvidia-smi -L` finds no NVIDIA GPU and driver here.\n{line}"
        );
        return Ok(());
    }
    // With their output, which docs/gpu.md needs.
    let mut tests = workspace.cargo("test");
    tests.args(["--locked", "--package", "citadel-agent", "--features", "real-gpu", "--test", "real_gpu"]);
    tests.args(args.filter.iter()).args(["--", "--nocapture", "--test-threads=1"]);
    process::run(&mut tests)
}

/// Arguments after those of `cargo test`.
fn test_words(args: &Args, serial: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = args.filter.iter().map(OsString::from).collect();
    words.push("--".into());
    if args.nocapture {
        words.push("--nocapture".into());
    }
    // Most tests of the other kind wait for something most of the time.
    let threads = if serial { 1 } else { 2 * thread::available_parallelism().map_or(1, usize::from) };
    words.push(format!("--test-threads={threads}").into());
    words
}

/// The variable that makes cargo run test binaries, and nothing else, under another program.
fn runner_variable() -> String {
    format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase())
}
