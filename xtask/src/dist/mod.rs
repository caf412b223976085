//! `cargo xtask dist`: a Debian package and an archive with an installer, for each architecture.

mod arch;
mod glibc;
mod stage;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::arch::Arch;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures to build for; arm64 is cross-compiled.
    #[arg(value_enum, default_value = "amd64")]
    arches: Vec<Arch>,
    /// Use the binaries that are already built.
    #[arg(long)]
    no_build: bool,
    /// Run lintian on the packages, and install, use and purge this machine's package in fresh Debian systems.
    #[arg(long)]
    test: bool,
}

/// Runs `cargo xtask dist`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut purposes = vec![Purpose::Dist];
    if args.arches.contains(&Arch::Arm64) {
        purposes.push(Purpose::Cross);
    }
    setup::ensure(workspace, &purposes)?;
    let folder = folder(workspace);
    fs::create_dir_all(&folder)?;
    let release = Release::of(workspace)?;
    for &arch in &args.arches {
        let made = make(workspace, arch, &release, args.no_build)?;
        if args.test {
            trial::lintian(&made.package)?;
            if arch.is_native() {
                trial::install(workspace, &made.package, &made.archive)?;
            }
        }
    }
    Ok(())
}

/// Builds the Debian packages that an emulated machine installs, from the existing release build: this version, and the same
/// files as a later one. Their copyright file lacks the licences of the dependencies, because collecting them takes minutes.
pub(crate) fn packages(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let (arch, release) = (Arch::native()?, Release::of(workspace)?);
    fs::create_dir_all(folder(workspace))?;
    stage::root(workspace, arch, &release, Licences::Omitted)?;
    let packages = ["machine.deb", "machine-next.deb"].map(|name| folder(workspace).join(name));
    debian_package(workspace, arch, &release, &packages[0], &[])?;
    let later = format!("{}+next-1", release.version);
    debian_package(workspace, arch, &release, &packages[1], &["--deb-version", &later])?;
    Ok(packages)
}

/// The licences of the dependencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Licences {
    /// Collected for the copyright file.
    Collected,
    /// Omitted, in a package for tests only.
    Omitted,
}

/// Output folder for packages.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/dist")
}

/// The version that is released.
struct Release {
    version: &'static str,
    /// Unix time of its commit: the time stamp of everything in the package.
    epoch: String,
    /// The same time in the format of Debian's changelog.
    date: String,
}

impl Release {
    fn of(workspace: &Workspace) -> Result<Self> {
        let ask =
            |format: &str| process::output(workspace.command("git").args(["log", "-1", &format!("--format={format}")]));
        Ok(Self { version: env!("CARGO_PKG_VERSION"), epoch: ask("%ct")?, date: ask("%cD")? })
    }
}

/// The files that were built.
struct Made {
    package: PathBuf,
    archive: PathBuf,
}

fn make(workspace: &Workspace, arch: Arch, release: &Release, no_build: bool) -> Result<Made> {
    let program = arch.program(workspace);
    if !no_build {
        arch.build(workspace)?;
    }
    let needs = glibc::needed_by(&program)?;
    if needs > glibc::OLDEST {
        bail!(
            "{} needs glibc {needs}, but the oldest supported distribution has {}: build on Debian 12",
            program.display(),
            glibc::OLDEST
        );
    }
    let root = stage::root(workspace, arch, release, Licences::Collected)?;
    let package = folder(workspace).join(format!("citadel-agent_{}-1_{}.deb", release.version, arch.debian()));
    debian_package(workspace, arch, release, &package, &[])?;
    let archive = archive(workspace, &root, arch, release)?;
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len()) as f64 / f64::from(1 << 20);
    eprintln!(
        "xtask: {arch}: program {:.1} MiB (needs glibc {needs}), {} {:.1} MiB, {} {:.1} MiB",
        size(&root.join("usr/bin/citadel-agent")),
        package.display(),
        size(&package),
        archive.display(),
        size(&archive),
    );
    Ok(Made { package, archive })
}

/// Builds the package from the staged root, as `[package.metadata.deb]` in the agent's Cargo.toml describes it and the further
/// options of cargo-deb say.
fn debian_package(workspace: &Workspace, arch: Arch, release: &Release, to: &Path, options: &[&str]) -> Result<()> {
    process::run(
        workspace
            .cargo("deb")
            .args(["--package", "citadel-agent", "--no-build", "--locked", "--quiet", "--target", arch.triple()])
            .arg("--output")
            .arg(to)
            .args(options)
            .env("SOURCE_DATE_EPOCH", &release.epoch),
    )
}

/// Builds the archive for hosts without Debian's tools.
fn archive(workspace: &Workspace, root: &Path, arch: Arch, release: &Release) -> Result<PathBuf> {
    let name = format!("citadel-agent-{}-linux-{}", release.version, arch.debian());
    let folder = folder(workspace);
    let content = folder.join(&name);
    _ = fs::remove_dir_all(&content);
    fs::create_dir_all(&content)?;
    process::run(Command::new("cp").arg("--archive").arg(root).arg(content.join("root")))?;
    // Only Debian's tools use it.
    fs::remove_dir_all(content.join("root/usr/share/lintian"))?;
    let installer = fs::read_to_string(workspace.root.join("package/install.sh"))?;
    let script = content.join("install.sh");
    fs::write(&script, installer.replace("GLIBC_NEEDED", &glibc::OLDEST.to_string()))?;
    process::run(Command::new("chmod").arg("755").arg(&script))?;
    for file in ["LICENSE", "README.md", "CHANGELOG.md"] {
        fs::copy(workspace.root.join(file), content.join(file)).with_context(|| format!("copying {file}"))?;
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    process::run(
        Command::new("tar")
            .current_dir(&folder)
            .args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", release.epoch))
            .arg("--file")
            .arg(&archive)
            .arg(&name),
    )?;
    fs::remove_dir_all(content)?;
    Ok(archive)
}
