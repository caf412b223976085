//! Kernels of any Debian release, from the mirror of this machine's own packages, with a private apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Kernel;
use crate::{debian, process};

/// Verifies the index of every release.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The image of `kernel`, downloaded into `folder` unless it exists; remove it to get a newer one.
pub(super) fn kernel(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let folder = folder.join(kernel.version);
    let image = folder.join("vmlinuz");
    if image.is_file() {
        return Ok(image);
    }
    let apt = Apt::of(&folder.join("apt"), Some(kernel.release))?;
    let image_package =
        apt.dependency(kernel.package, &format!("linux-image-{}.", kernel.series))?.with_context(|| {
            format!(
                "{} of {} no longer has a version that starts with {}",
                kernel.package, kernel.release, kernel.version
            )
        })?;
    // Since 7.x, the kernel is in a package of its own.
    let package = apt.dependency(&image_package, "linux-binary-")?.unwrap_or(image_package);

    let unpacked = folder.join("package");
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    process::run(apt.command("apt-get").current_dir(&unpacked).args(["--quiet=2", "download", &package]))?;
    let archive = only(&unpacked, ".deb")?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked))?;
    let found = match unpacked.join("boot") {
        boot if boot.is_dir() => only(&boot, "vmlinuz-")?,
        _ => only(&unpacked.join("usr/lib/modules"), "")?.join("vmlinuz"),
    };
    fs::rename(found, &image)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(image)
}

/// Unpacks packages of `release`, or else the machine's own, and all their dependencies into `root`, keeping links such as `/bin`.
pub(crate) fn unpack(folder: &Path, release: Option<&str>, packages: &[&str], root: &Path) -> Result<()> {
    let apt = Apt::of(&folder.join("apt"), release)?;
    let _ = fs::remove_dir_all(folder.join("apt/cache"));
    fs::create_dir_all(folder.join("apt/cache/archives/partial"))?;
    // With an empty status file, apt considers everything missing.
    let nothing = folder.join("apt/nothing-installed");
    fs::write(&nothing, "")?;
    process::run(
        apt.command("apt-get")
            .args(["--quiet=2", "--yes", "--no-install-recommends", "--download-only"])
            .args(["--option", &format!("Dir::State::Status={}", nothing.display())])
            .arg("install")
            .args(packages),
    )?;
    for entry in fs::read_dir(folder.join("apt/cache/archives"))? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            unpack_one(&archive, root).with_context(|| format!("unpacking {}", archive.display()))?;
        }
    }
    Ok(())
}

/// Unpacks an archive into a tree in which `/bin` and similar are links, and keeps the links.
fn unpack_one(archive: &Path, root: &Path) -> Result<()> {
    let mut tar = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
    let files = tar.stdout.take().context("dpkg-deb has no output")?;
    let status = Command::new("tar")
        .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--directory"])
        .arg(root)
        .stdin(files)
        .status()?;
    if !tar.wait()?.success() || !status.success() {
        bail!("dpkg-deb or tar failed");
    }
    Ok(())
}

/// The only file in `folder` whose name contains `part`.
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

/// An apt that knows one release and leaves the machine's own configuration alone.
pub(crate) struct Apt {
    options: Vec<String>,
    sources: PathBuf,
}

impl Apt {
    /// An apt with its lists and sources under `folder`, for `release` or else the machine's own, updated.
    ///
    /// # Errors
    /// This machine is not a Debian whose apt knows its own package sources.
    pub(crate) fn of(folder: &Path, release: Option<&str>) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let os = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let own = os
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release has no VERSION_CODENAME: kernels are only available on Debian")?;
        let release = release.unwrap_or(own);
        let mut sources = sources(&targets()?, own, release);
        if sources.is_empty() {
            // A machine whose apt has never been updated.
            debian::update()?;
            sources = self::sources(&targets()?, own, release);
        }
        if sources.is_empty() {
            bail!("apt knows no packages of Debian {own}");
        }
        let list = folder.join("sources/kernels.list");
        fs::write(&list, sources)?;
        let at = |part: &str| folder.join(part).display().to_string();
        let apt = Self {
            options: vec![
                "Dir::Etc::SourceList=/dev/null".to_owned(),
                format!("Dir::Etc::SourceParts={}", at("sources")),
                format!("Dir::State::Lists={}", at("lists")),
                format!("Dir::Cache={}", at("cache")),
                // Nothing is installed, so the caller's permissions are enough.
                "APT::Sandbox::User=".to_owned(),
                "Acquire::Languages=none".to_owned(),
            ],
            sources: list,
        };
        process::run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    /// The dependency of `package` whose name has this prefix.
    fn dependency(&self, package: &str, prefix: &str) -> Result<Option<String>> {
        let depends = process::output(self.command("apt-cache").args(["depends", package]))?;
        let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.find(|name| name.starts_with(prefix)).map(str::to_owned))
    }

    /// The sources of that release, as sources.list(5).
    pub(crate) fn sources(&self) -> &Path {
        &self.sources
    }

    /// `apt-get` or `apt-cache` for that release only.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["--option", option]);
        }
        command
    }
}

/// What the machine's own apt knows: a line `Packages URI RELEASE COMPONENT` for each package index.
fn targets() -> Result<String> {
    let format = "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)";
    process::output(Command::new("apt-get").args(["indextargets", "--format", format]))
}

/// The machine's sources of its own release and that release's security updates, rewritten for `release`. sid has no
/// security updates.
fn sources(targets: &str, own: &str, release: &str) -> String {
    let signed = if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let mut lines = Vec::new();
    for target in targets.lines() {
        let [kind, uri, suite, component] = target.split_whitespace().collect::<Vec<_>>()[..] else { continue };
        let Some(rest) = suite.strip_prefix(own) else { continue };
        let has = rest.is_empty() || (rest == "-security" && release != "sid");
        if kind == "Packages" && component == "main" && has {
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
        assert!(sources(targets, "bookworm", "sid").trim_end().ends_with("http://a.test/debian sid main"));
    }
}
