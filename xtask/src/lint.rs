//! `cargo xtask lint`: runs every check, even after a failure, and ends with a line for each.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::ebpf::{self, Route};
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{process, tidy};

/// How a check ended.
enum Verdict {
    Passed,
    /// Cannot run here, with the reason.
    Skipped(&'static str),
}

/// A check: its name and function.
type Check = (&'static str, fn(&Workspace) -> Result<Verdict>);

const CHECKS: &[Check] = &[
    ("tidy", |workspace| tidy::check(workspace).map(|()| Verdict::Passed)),
    ("format", format),
    ("clippy", clippy),
    ("clippy of the eBPF programs", clippy_ebpf),
    ("docs", docs),
    ("licences, bans and sources", dependencies),
    ("advisories", advisories),
];

/// Runs `cargo xtask lint`.
pub(crate) fn main(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Lint])?;
    let verdicts: Vec<_> = CHECKS.iter().map(|(name, check)| (*name, check(workspace))).collect();

    eprintln!();
    let mut failed = 0;
    for (name, verdict) in &verdicts {
        match verdict {
            Ok(Verdict::Passed) => eprintln!("lint: passed   {name}"),
            Ok(Verdict::Skipped(why)) => eprintln!("lint: SKIPPED  {name}: {why}"),
            Err(error) => {
                failed += 1;
                eprintln!("lint: FAILED   {name}: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", verdicts.len());
    }
    Ok(())
}

/// Runs `command`; passes when it succeeds.
fn passes(command: &mut Command) -> Result<Verdict> {
    process::run(command).map(|()| Verdict::Passed)
}

/// The manifests of the workspace, and of the kernel programs, which are a workspace of their own.
fn manifests(workspace: &Workspace) -> [std::path::PathBuf; 2] {
    [workspace.root.join("Cargo.toml"), workspace.ebpf_manifest()]
}

fn format(workspace: &Workspace) -> Result<Verdict> {
    for manifest in manifests(workspace) {
        passes(workspace.cargo("fmt").args(["--all", "--check", "--manifest-path"]).arg(manifest))?;
    }
    Ok(Verdict::Passed)
}

fn clippy(workspace: &Workspace) -> Result<Verdict> {
    passes(workspace.cargo("clippy").args([
        "--locked",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny=warnings",
    ]))
}

fn clippy_ebpf(workspace: &Workspace) -> Result<Verdict> {
    if ebpf::route(workspace) == Some(Route::Debian) {
        return Ok(Verdict::Skipped("Debian's compiler has no clippy, and the toolchain has no rust-src"));
    }
    let folder = workspace.root.join("citadel-agent-ebpf");
    for features in ["", "log"] {
        passes(
            workspace
                .cargo("clippy")
                // In its own folder, so that cargo reads the crate's own .cargo/config.toml.
                .current_dir(&folder)
                .args(["--locked", "-Zbuild-std=core", "--target=bpfel-unknown-none", "--features", features])
                .args(["--", "--deny=warnings"])
                // Allows -Z on the pinned stable compiler.
                .env("RUSTC_BOOTSTRAP", "1"),
        )?;
    }
    Ok(Verdict::Passed)
}

fn docs(workspace: &Workspace) -> Result<Verdict> {
    passes(
        workspace
            .cargo("doc")
            .args(["--locked", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny=warnings"),
    )
}

fn dependencies(workspace: &Workspace) -> Result<Verdict> {
    for manifest in manifests(workspace) {
        passes(deny(workspace, &manifest).args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    }
    Ok(Verdict::Passed)
}

fn advisories(workspace: &Workspace) -> Result<Verdict> {
    if !process::succeeds(deny(workspace, &workspace.root.join("Cargo.toml")).args(["fetch", "db"])) {
        return Ok(Verdict::Skipped("the advisory database cannot be fetched from here"));
    }
    for manifest in manifests(workspace) {
        passes(deny(workspace, &manifest).args(["check", "--disable-fetch", "advisories"]))?;
    }
    Ok(Verdict::Passed)
}

/// Runs cargo-deny on one manifest, with the `deny.toml` of the root.
fn deny(workspace: &Workspace, manifest: &Path) -> Command {
    let mut cargo = workspace.cargo("deny");
    cargo.args(["--locked", "--manifest-path"]).arg(manifest).arg("--config").arg(workspace.root.join("deny.toml"));
    cargo
}
