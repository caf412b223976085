//! `cargo xtask kernels`: boots Debian's kernels in emulated machines and checks that the agent loads, attaches and
//! measures on each. PID 1 is this very program (`xtask guest`), which starts everything else; in one further machine
//! it is systemd, with models and the agent as units.

mod calls;
mod every_call;
mod guest;
mod image;
mod machine;
pub(crate) mod packages;
pub(crate) mod saturate;
mod support;
mod systemd;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::bench;
use crate::dist;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, cores};

/// A kernel and the Debian release that it comes from.
struct Kernel {
    version: &'static str,
    /// Prefix of the versions in its package names, up to a dot.
    series: &'static str,
    release: &'static str,
    /// Metapackage that depends on the newest kernel of that release.
    package: &'static str,
}

/// Kernels for virtual machines: small, with cgroups and loopback built in.
const CLOUD: &str = "linux-image-cloud-amd64";
/// Kernels with PREEMPT_RT, where softirqs are preempted and most spin locks sleep.
const REAL_TIME: &str = "linux-image-rt-amd64";

/// All kernels, starting with the oldest that the agent supports.
const KERNELS: [Kernel; 5] = [
    Kernel { version: "5.10", series: "5.10", release: "bullseye", package: CLOUD },
    Kernel { version: "6.1", series: "6.1", release: "bookworm", package: CLOUD },
    Kernel { version: "6.12", series: "6.12", release: "trixie", package: CLOUD },
    Kernel { version: "6.12-rt", series: "6.12", release: "trixie", package: REAL_TIME },
    // The newest available.
    Kernel { version: "7.x", series: "7", release: "sid", package: CLOUD },
];

/// The machine that runs systemd.
const SYSTEMD: &str = "systemd";

/// Its kernel: the newest of a stable release.
const SYSTEMD_KERNEL: &Kernel = &KERNELS[2];

/// The kernel of the machine in which a benchmark measures.
const MEASURED_KERNEL: &Kernel = SYSTEMD_KERNEL;

/// All machines that can be selected.
fn machines() -> [&'static str; KERNELS.len() + 1] {
    let [a, b, c, d, e] = KERNELS.each_ref().map(|kernel| kernel.version);
    [a, b, c, d, e, SYSTEMD]
}

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these machines.
    #[arg(value_parser = machines())]
    versions: Vec<String>,
    /// Show the machines' consoles.
    #[arg(long)]
    console: bool,
    /// Use the existing release build of the agent.
    #[arg(long)]
    no_build: bool,
}

/// The role of this program inside a machine.
#[derive(clap::Subcommand)]
pub(crate) enum Role {
    /// PID 1 until it executes systemd.
    Systemd,
    /// PID 1 that measures nginx under load.
    Saturate {
        /// Number of rounds.
        rounds: u32,
        /// Seconds of each part of a round.
        seconds: u64,
    },
    /// A process that makes known system calls.
    Call,
    /// A unit that compares the agent's numbers with the true ones.
    Check,
    /// A unit: a model server.
    Serve {
        /// The port, unless systemd passes the socket.
        port: u16,
    },
}

/// Runs inside a machine; never returns.
pub(crate) fn be_guest(role: Option<&Role>) -> ! {
    match role {
        None => guest::main(),
        Some(Role::Systemd) => systemd::init::main(),
        Some(Role::Saturate { rounds, seconds }) => guest::conclude(saturated(*rounds, *seconds)),
        Some(Role::Call) => calls::call(),
        Some(Role::Check) => guest::conclude(systemd::check::run()),
        Some(Role::Serve { port }) => systemd::server::main(*port),
    }
}

fn saturated(rounds: u32, seconds: u64) -> Result<String> {
    guest::prepare()?;
    bench::machine::measure(Path::new(image::AGENT), rounds, seconds)
}

/// Runs `cargo xtask kernels`.
///
/// # Errors
/// A kernel is unavailable, or the agent fails on one; all are tried before that.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("only x86-64 kernels are emulated so far");
    }
    setup::ensure(workspace, &[Purpose::Kernels])?;
    // The release build, which is shipped and which `cargo xtask test` has built already: how soon it reports a unit is
    // measured.
    let agent = if args.no_build { workspace.agent(true) } else { build::agent(workspace, true)? };
    let folder = folder(workspace);
    let wanted = |name: &str| args.versions.is_empty() || args.versions.iter().any(|version| version == name);
    let machines = prepare(workspace, &folder, &agent, wanted)?;
    let failed = Mutex::new(Vec::new());
    // Each is emulated on one core, and its clocks do not depend on what the others do.
    cores::share(&machines, |machine| {
        let verdict = boot(workspace, machine);
        if args.console {
            eprintln!("{}", fs::read_to_string(&machine.console).unwrap_or_default());
        }
        match verdict {
            Ok(summary) => eprintln!("xtask: {}: ok, {summary}", machine.name),
            Err(error) => {
                eprintln!("xtask: {}: {error:#}", machine.name);
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(machine.name);
            }
        }
        Ok(())
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let consoles = KERNELS.each_ref().map(|kernel| folder.join(kernel.version).join("console.log"));
    if KERNELS.iter().all(|kernel| wanted(kernel.version) && !failed.contains(&kernel.version)) {
        support::write(workspace, &consoles.each_ref().map(PathBuf::as_path))?;
    }
    if !failed.is_empty() {
        bail!("the agent failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Folder of the machines' kernels, images and consoles.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("kernels")
}

/// A machine, and what it boots.
struct Machine {
    name: &'static str,
    console: PathBuf,
    guest: machine::Guest<'static>,
    /// Kernel and file system, or why there are none.
    boots: Result<(PathBuf, PathBuf)>,
}

/// Gets what the wanted machines boot, one after the other, because they share kernels and a file system. That which takes
/// longest comes first.
fn prepare(workspace: &Workspace, folder: &Path, agent: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Machine>> {
    let machine = |name: &'static str, kernel: &Kernel, guest, image: Result<PathBuf>| {
        let linux = packages::kernel(folder, kernel).with_context(|| format!("getting Linux {}", kernel.version));
        let boots = linux.and_then(|linux| Ok((linux, image.context("building the file system")?)));
        Machine { name, console: folder.join(name).join("console.log"), guest, boots }
    };
    let mut machines = Vec::new();
    if wanted(SYSTEMD) {
        let image =
            dist::packages(workspace).and_then(|packages| systemd::image::build(&folder.join(SYSTEMD), &packages));
        machines.push(machine(SYSTEMD, SYSTEMD_KERNEL, machine::Guest::SYSTEMD, image));
    }
    let kernels: Vec<_> = KERNELS.iter().filter(|kernel| wanted(kernel.version)).collect();
    if !kernels.is_empty() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let image = image::build(folder, agent, &[]).context("building the file system")?;
        let own = |kernel: &&'static Kernel| machine(kernel.version, kernel, machine::Guest::OWN, Ok(image.clone()));
        machines.extend(kernels.iter().map(own));
    }
    Ok(machines)
}

/// Runs one machine; its summary, if all is well.
fn boot(workspace: &Workspace, machine: &Machine) -> Result<String> {
    let (linux, image) = machine.boots.as_ref().map_err(|error| anyhow!("{error:#}"))?;
    machine::run(workspace, linux, image, &machine.console, machine.guest)
}
