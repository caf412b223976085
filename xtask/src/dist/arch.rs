//! The architectures, and how the agent is built for each.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::process;
use crate::workspace::Workspace;

/// An architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit Arm, Grace for example.
    Arm64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian())
    }
}

impl Arch {
    /// Debian's name of it.
    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's target triple.
    pub(super) const fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Prefix of the GNU tools for it.
    const fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// This machine's architecture.
    pub(super) fn native() -> Result<Self> {
        let native = Self::value_variants().iter().copied().find(|arch| arch.is_native());
        native.with_context(|| format!("no packages are made for {}", std::env::consts::ARCH))
    }

    /// Whether it is this machine's architecture.
    pub(super) fn is_native(self) -> bool {
        self.triple().starts_with(std::env::consts::ARCH)
    }

    /// Where cargo puts the binary.
    pub(super) fn program(self, workspace: &Workspace) -> PathBuf {
        match self.is_native() {
            // The same folder as every other build, so that it is built once.
            true => workspace.agent(true),
            false => workspace.target().join(self.triple()).join("release/citadel-agent"),
        }
    }

    /// The `strip` that handles its binaries.
    pub(super) fn strip(self) -> String {
        if self.is_native() { "strip".to_owned() } else { format!("{}-strip", self.gnu()) }
    }

    /// Builds the agent.
    pub(super) fn build(self, workspace: &Workspace) -> Result<()> {
        let mut cargo = workspace.cargo("build");
        cargo.args(["--locked", "--release", "--package", "citadel-agent"]);
        if !self.is_native() {
            let linker = format!("CARGO_TARGET_{}_LINKER", self.triple().to_uppercase().replace('-', "_"));
            cargo.args(["--target", self.triple()]).env(linker, format!("{}-gcc", self.gnu()));
        }
        process::run(&mut cargo)
    }
}
