//! Packages from the machine's own Debian sources.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// A Debian package.
pub(crate) struct Package {
    name: &'static str,
    known: Known,
    services: &'static [&'static str],
}

/// How to detect that a package, or an equivalent, is installed.
pub(crate) enum Known {
    /// This program is found; where it came from does not matter.
    Program(&'static str),
    /// This command succeeds.
    Runs(&'static [&'static str]),
    /// dpkg lists it as installed: for packages without a program.
    Installed,
}

impl Package {
    /// A package that starts nothing when it is installed.
    pub(crate) const fn new(name: &'static str, known: Known) -> Self {
        Self { name, known, services: &[] }
    }

    /// The systemd services that installing it would start and enable, which nobody asked for.
    pub(crate) const fn with_services(mut self, services: &'static [&'static str]) -> Self {
        self.services = services;
        self
    }

    /// Where it is installed; `None` when it is not.
    pub(crate) fn find(&self) -> Option<String> {
        match self.known {
            Known::Program(program) => process::find(program).map(|path| path.display().to_string()),
            Known::Runs(words) => process::succeeds(Command::new(words[0]).args(&words[1..])).then(|| words.join(" ")),
            Known::Installed => {
                let mut query = Command::new("dpkg-query");
                query.args(["--show", "--showformat=${db:Status-Status}", self.name]);
                let installed = query.output().is_ok_and(|output| output.stdout == b"installed");
                installed.then(|| format!("package {}", self.name))
            }
        }
    }
}

/// Installs `packages` in one run, as root, and leaves none of their services running or enabled.
///
/// # Errors
/// The message names the packages, so that a person can install them by hand.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let by_hand = || {
        format!("cannot install from Debian; install by hand, then run this again: apt-get install {}", names.join(" "))
    };
    // A machine that was never updated knows no packages, and one that was updated long ago asks for versions that the
    // mirror has dropped: so try, update once, and try again.
    if apt_get(&install_words(&names)).is_err() {
        update().with_context(by_hand)?;
        apt_get(&install_words(&names)).with_context(by_hand)?;
    }
    // Where systemd runs, a package's script enables its services for the next boot.
    let services: Vec<&str> = packages.iter().flat_map(|package| package.services).copied().collect();
    if !services.is_empty() && Path::new("/run/systemd/system").is_dir() {
        process::run(process::as_root(Path::new("systemctl"), &[])?.args(["disable", "--now"]).args(&services))?;
    }
    Ok(())
}

/// Runs `apt-get update`, as root.
///
/// # Errors
/// When it fails.
pub(crate) fn update() -> Result<()> {
    apt_get(&["update"])
}

/// `--no-remove`: a package that conflicts with an installed one must fail, not replace it.
fn install_words<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    words.extend(names);
    words
}

fn apt_get(words: &[&str]) -> Result<()> {
    let mut command = process::as_root(Path::new("env"), &[])?;
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        // Makes systemctl start nothing, so no service of a test package ever runs; where systemd is not PID 1 nothing
        // would start anyway.
        "SYSTEMD_OFFLINE=1",
        "apt-get",
        "--quiet=2",
        // A fresh machine is often just upgrading itself.
        "--option=DPkg::Lock::Timeout=300",
    ]);
    process::run(command.args(words))
}
