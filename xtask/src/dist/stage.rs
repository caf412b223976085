//! The files of a package, laid out as on a host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::{Licences, Release, folder};
use crate::process;
use crate::workspace::Workspace;

/// Files shipped as they are in the tree, and their destinations.
const SHIPPED: [(&str, &str); 5] = [
    ("systemd/citadel-agent.service", "usr/lib/systemd/system/citadel-agent.service"),
    ("systemd/sysusers.conf", "usr/lib/sysusers.d/citadel-agent.conf"),
    ("systemd/tmpfiles.conf", "usr/lib/tmpfiles.d/citadel-agent.conf"),
    ("package/debian/lintian-overrides", "usr/share/lintian/overrides/citadel-agent"),
    // Optional: linked or copied into the unit's drop-in folder.
    ("systemd/smart.conf", "usr/share/citadel-agent/smart.conf"),
];

/// Where documents are.
const DOC: &str = "usr/share/doc/citadel-agent";

/// Builds the tree, replacing the previous one, and returns its path. The agent must have been built.
pub(super) fn root(workspace: &Workspace, arch: Arch, release: &Release, licences: Licences) -> Result<PathBuf> {
    let root = folder(workspace).join("root");
    _ = fs::remove_dir_all(&root);
    let place = |path: &str| -> Result<PathBuf> {
        let place = root.join(path);
        fs::create_dir_all(place.parent().context("a file has a folder")?)?;
        Ok(place)
    };
    let program = arch.program(workspace);
    process::run(Command::new(arch.strip()).arg("-o").arg(place("usr/bin/citadel-agent")?).arg(&program))?;
    for (from, to) in SHIPPED {
        fs::copy(workspace.root.join(from), place(to)?).with_context(|| format!("copying {from}"))?;
    }
    // The debug build exists anyway, and prints the same on every architecture.
    process::run(
        workspace.cargo("run").args(["--locked", "--quiet", "--package", "citadel-agent-package", "--"]).arg(&root),
    )?;
    let copyright = match licences {
        Licences::Collected => copyright(workspace, release)?,
        Licences::Omitted => "For tests only.\n".to_owned(),
    };
    fs::write(place(&format!("{DOC}/copyright"))?, copyright)?;
    fs::copy(workspace.root.join("CHANGELOG.md"), place(&format!("{DOC}/changelog"))?)?;
    process::run(Command::new("gzip").args(["--best", "--no-name"]).arg(root.join(DOC).join("changelog")))?;
    fs::write(folder(workspace).join("changelog"), changelog(release))?;
    Ok(root)
}

/// Debian's changelog, which refers to the project's own next to it.
fn changelog(Release { version, date, .. }: &Release) -> String {
    format!(
        "citadel-agent ({version}-1) unstable; urgency=medium\n\n  * Release {version}: see changelog.gz in this folder.\n\n -- {MAINTAINER}  {date}\n"
    )
}

/// As in the agent's Cargo.toml.
const MAINTAINER: &str = "citadel-agent maintainers <citadel-agent@users.noreply.github.com>";

/// The agent's own licence and those of everything linked into it.
fn copyright(workspace: &Workspace, release: &Release) -> Result<String> {
    let year = release.date.split_whitespace().nth(3).context("a date has a year")?;
    let host = licences(workspace, &workspace.root.join("citadel-agent/Cargo.toml"))?;
    let kernel = licences(workspace, &workspace.ebpf_manifest())?;
    Ok(format!(
        "citadel-agent\n\nCopyright: {year} the authors of citadel-agent\nLicense: Apache-2.0\n On Debian systems the whole text is in \
         /usr/share/common-licenses/Apache-2.0.\n\nThe program contains Rust's standard library (MIT or Apache-2.0, copyright The Rust \
         Project contributors)\nand the crates below.\n\n{host}\n\nIts kernel programs contain:\n\n{kernel}"
    ))
}

/// The licences of everything that the package of this manifest links to. Comparing texts takes a minute, so the last
/// result is cached together with its inputs.
fn licences(workspace: &Workspace, manifest: &Path) -> Result<String> {
    let package = workspace.root.join("package");
    let lock = manifest.ancestors().map(|folder| folder.join("Cargo.lock")).find(|lock| lock.is_file());
    let lock = lock.with_context(|| format!("{} has no lock file", manifest.display()))?;
    let mut made_of = String::new();
    for file in [lock.as_path(), manifest, &package.join("about.toml"), &package.join("licences.hbs")] {
        made_of.push_str(&fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?);
    }
    let name = manifest.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let kept = ["of", "txt"].map(|extension| folder(workspace).join(format!("licences-{name}.{extension}")));
    if let [Ok(of), Ok(text)] = kept.each_ref().map(fs::read_to_string)
        && of == made_of
    {
        return Ok(text);
    }
    let text = process::output(
        workspace
            .cargo("about")
            .args(["generate", "--locked", "--fail", "--config"])
            .arg(package.join("about.toml"))
            .arg("--manifest-path")
            .arg(manifest)
            .arg(package.join("licences.hbs")),
    )?;
    fs::write(&kept[1], &text)?;
    fs::write(&kept[0], made_of)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_names_one_maintainer() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../citadel-agent/Cargo.toml");
        assert!(fs::read_to_string(manifest).unwrap().contains(MAINTAINER));
    }

    #[test]
    fn licences_are_those_that_dependencies_may_have() {
        let accepted = |file: &str, key: &str| {
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap();
            let list = text.split_once(&format!("\n{key} = [")).unwrap().1.split_once(']').unwrap().0.to_owned();
            let mut names: Vec<_> = list.split(',').map(|name| name.trim().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(accepted("package/about.toml", "accepted"), accepted("deny.toml", "allow"));
    }
}
