//! Kernels of any Debian release, from wherever this machine gets its own packages, by a private apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Kernel;
use crate::process;

/// Depends on the newest kernel of a release that runs in virtual machines: small, with cgroups and loopback built in.
const META: &str = "linux-image-cloud-amd64";

/// Signs the index of every release.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The image of `kernel`, downloaded under `folder` unless it is there; remove it to get a newer one.
pub(super) fn kernel(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let folder = folder.join(kernel.version);
    let image = folder.join("vmlinuz");
    if image.is_file() {
        return Ok(image);
    }
    let apt = Apt::new(&folder.join("apt"), kernel.release)?;
    process::run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
    let depends = process::output(apt.command("apt-cache").args(["depends", META]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&format!("linux-image-{}.", kernel.version)))
        .with_context(|| format!("{META} of {} is no longer {}", kernel.release, kernel.version))?;

    let unpacked = folder.join("package");
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    process::run(apt.command("apt-get").current_dir(&unpacked).args(["--quiet=2", "download", package]))?;
    let archive = only(&unpacked, ".deb")?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked))?;
    fs::rename(only(&unpacked.join("boot"), "vmlinuz-")?, &image)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(image)
}

/// The one file in `folder` whose name contains `part`.
pub(crate) fn only(folder: &Path, part: &str) -> Result<PathBuf> {
    let mut found = None;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)) && found.replace(path).is_some() {
            bail!("several {part} in {}", folder.display());
        }
    }
    found.with_context(|| format!("no {part} in {}", folder.display()))
}

/// An apt that knows one release and touches nothing of the machine's own.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Its lists and sources are kept under `folder`.
    ///
    /// # Errors
    /// When this machine is no Debian whose apt knows where its own packages come from.
    pub(crate) fn new(folder: &Path, release: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let targets = process::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)",
        ]))?;
        let os = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let own = os
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release names no VERSION_CODENAME: kernels come from Debian")?;
        let sources = sources(&targets, own, release);
        if sources.is_empty() {
            bail!("apt knows no packages of Debian {own}: run `apt-get update` as root first");
        }
        fs::write(folder.join("sources/kernels.list"), sources)?;
        let at = |part: &str| folder.join(part).display().to_string();
        Ok(Self {
            options: vec![
                "Dir::Etc::SourceList=/dev/null".to_owned(),
                format!("Dir::Etc::SourceParts={}", at("sources")),
                format!("Dir::State::Lists={}", at("lists")),
                format!("Dir::Cache={}", at("cache")),
                // Nothing is installed, so whoever calls may write everything.
                "APT::Sandbox::User=".to_owned(),
                "Acquire::Languages=none".to_owned(),
            ],
        })
    }

    /// `apt-get` or `apt-cache` for that release alone.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["--option", option]);
        }
        command
    }
}

/// The machine's sources of its own release and of that one's security updates, turned into those of `release`.
/// `targets` has a line `Packages URI RELEASE COMPONENT` for each index of packages.
fn sources(targets: &str, own: &str, release: &str) -> String {
    let signed = if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let mut lines = Vec::new();
    for target in targets.lines() {
        let [kind, uri, suite, component] = target.split_whitespace().collect::<Vec<_>>()[..] else { continue };
        let Some(rest) = suite.strip_prefix(own) else { continue };
        // Unstable has no security updates of its own: they go into it.
        let has_security = release != "sid";
        if kind == "Packages" && component == "main" && (rest.is_empty() || rest == "-security" && has_security) {
            lines.push(format!("deb {signed}{uri} {release}{rest} main\n"));
        }
    }
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_release_becomes_the_other_one_and_nothing_else_is_taken() {
        let targets = "Packages http://a.test/debian bookworm main\nDEP-11 http://a.test/debian bookworm main\n\
                       Packages http://a.test/debian bookworm-updates main\nPackages http://b.test/sec bookworm-security main\n\
                       Packages http://a.test/debian bookworm contrib\nPackages http://c.test/ nodistro main\n";
        let found = sources(targets, "bookworm", "bullseye");
        let ends: Vec<&str> = found.lines().filter_map(|line| Some(line.split_at(line.find("http")?).1)).collect();
        assert_eq!(sources(targets, "bookworm", "sid").lines().count(), 1);
        assert_eq!(ends, ["http://a.test/debian bullseye main", "http://b.test/sec bullseye-security main"]);
    }
}
