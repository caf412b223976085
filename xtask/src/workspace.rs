//! Paths of the workspace, and the cargo that builds it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The checkout that this xtask was built from.
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// The workspace around this package.
    pub(crate) fn here() -> Result<Self> {
        // `cargo run` sets it each time; the compiled-in value would be stale in a checkout that was moved.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("the xtask package has no parent folder")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        }
    }

    /// Where set-up installs tools, apart from the user's own. Fixed, because `citadel-agent/build.rs` looks there.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Path of the agent's binary.
    pub(crate) fn agent(&self, release: bool) -> PathBuf {
        let profile = if release { "release" } else { "debug" };
        self.target().join(profile).join("citadel-agent")
    }

    /// The manifest of the eBPF programs, which are a workspace of their own.
    pub(crate) fn ebpf_manifest(&self) -> PathBuf {
        self.root.join("citadel-agent-ebpf/Cargo.toml")
    }

    /// `program`, run in the root, with the tools of [`Self::tools`] first on its path.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut path = OsString::from(self.tools().join("bin"));
        if let Some(rest) = env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.root).env("PATH", path);
        command
    }

    /// The cargo that runs this xtask, so that everything is built by one toolchain.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.command(env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
        command.arg(subcommand);
        command
    }
}
