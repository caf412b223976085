//! Tools built by cargo under `target/tools`, each with a fixed version.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

/// A crate that is a program.
pub(crate) struct Tool {
    /// Name of the crate and of the program.
    pub(crate) name: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
    /// More arguments for `cargo install`.
    pub(crate) args: &'static [&'static str],
}

/// Path and version of the tool; `None` when it is missing or has another version.
pub(crate) fn find(workspace: &Workspace, tool: &Tool) -> Option<String> {
    let path = workspace.tools().join("bin").join(tool.name);
    let output = Command::new(&path).arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout);
    let same = version.split_whitespace().nth(1) == Some(tool.version);
    same.then(|| format!("{} {}", path.display(), tool.version))
}

/// Builds and installs the tool; returns a description.
pub(crate) fn install(workspace: &Workspace, tool: &Tool) -> Result<String> {
    install_with(workspace, tool, &[])
}

/// [`install`], with environment variables for the tool's build.
pub(crate) fn install_with(workspace: &Workspace, tool: &Tool, envs: &[(&str, &str)]) -> Result<String> {
    let build = workspace.tools().join("build");
    let mut cargo = workspace.cargo("install");
    cargo
        .args([tool.name, "--version", tool.version, "--quiet", "--force"])
        .args(tool.args)
        .arg("--root")
        .arg(workspace.tools())
        .arg("--target-dir")
        .arg(&build)
        .envs(envs.iter().copied());
    process::run(&mut cargo).with_context(|| format!("cannot build {} {} from crates.io", tool.name, tool.version))?;
    // Half a gigabyte that only a rebuild of the tool would use.
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(format!("built {} {} in {}", tool.name, tool.version, workspace.tools().display()))
}
