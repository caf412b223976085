//! Programs that this release of Debian has too old, out of a newer one, unpacked under `target/tools` and installed
//! nowhere.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kernels::packages::{Apt, only};
use crate::process;
use crate::workspace::Workspace;

/// The release that has Prometheus 3. Its binary needs no newer libc than the one of Debian 12.
const RELEASE: &str = "sid";

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("prometheus-3")
}

fn program(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("usr/bin/prometheus")
}

/// Where Prometheus 3 is, and that it runs here.
pub(crate) fn find_prometheus(workspace: &Workspace) -> Result<Option<String>> {
    let path = program(workspace);
    Ok(process::succeeds(Command::new(&path).arg("--version")).then(|| path.display().to_string()))
}

/// Downloads and unpacks it.
pub(crate) fn provide_prometheus(workspace: &Workspace) -> Result<String> {
    let folder = folder(workspace);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let apt = Apt::of(&folder.join("apt"), Some(RELEASE))?;
    process::run(apt.command("apt-get").current_dir(&folder).args(["--quiet=2", "download", "prometheus"]))?;
    let archive = only(&folder, ".deb")?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&folder))?;
    // A hundred megabytes of lists and archive that nobody needs again.
    fs::remove_dir_all(folder.join("apt"))?;
    fs::remove_file(archive)?;
    let found = find_prometheus(workspace)?;
    found.with_context(|| format!("Debian {RELEASE}'s prometheus does not run on this machine"))
}
