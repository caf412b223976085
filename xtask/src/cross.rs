//! Rust's standard library for the architecture that the agent is cross-compiled for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Finds it in the toolchain that builds everything.
pub(crate) fn find(workspace: &Workspace) -> Result<Option<String>> {
    let sysroot = process::output(workspace.command("rustc").args(["--print", "sysroot"]))?;
    let folder = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
    Ok(folder.is_dir().then(|| folder.display().to_string()))
}

/// Adds it to the toolchain.
pub(crate) fn provide(workspace: &Workspace) -> Result<String> {
    process::run(Command::new("rustup").current_dir(&workspace.root).args(["target", "add", TARGET]))
        .context("cannot get Rust's standard library for arm64")?;
    Ok(format!("added {TARGET} to the toolchain"))
}
