//! QEMU: installed from Debian or, where Debian's package conflicts with an installed one (qemu-utils of another
//! release, say), unpacked under `target/tools` without being installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::debian::{self, Known, Package};
use crate::process;
use crate::workspace::Workspace;

/// The program, as [`Workspace::command`] finds it.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

const PACKAGE: &str = "qemu-system-x86";

/// Library folders of a Debian package.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The script that starts the unpacked program.
fn script(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin").join(QEMU)
}

/// Where it is.
pub(crate) fn find(workspace: &Workspace) -> Result<Option<String>> {
    let script = script(workspace);
    let unpacked = process::succeeds(Command::new(&script).arg("--version")).then_some(script);
    Ok(process::find(QEMU).or(unpacked).map(|path| path.display().to_string()))
}

/// Installs it, or unpacks it.
pub(crate) fn provide(workspace: &Workspace) -> Result<String> {
    let Err(refused) = debian::install(&[&Package::new(PACKAGE, Known::Program(QEMU))]) else {
        return Ok("installed from Debian".to_owned());
    };
    let place = unpack(workspace).with_context(|| format!("{refused:#}; unpacking it elsewhere failed too"))?;
    Ok(format!("conflicts with an installed package, so unpacked to {place}"))
}

fn unpack(workspace: &Workspace) -> Result<String> {
    let folder = workspace.tools().join("qemu");
    let _ = fs::remove_dir_all(&folder);
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
    // What apt would install is missing here; what it would remove stays.
    let plan = process::output(Command::new("apt-get").args([
        "--simulate",
        "--quiet=2",
        "--no-install-recommends",
        "install",
        PACKAGE,
    ]))?;
    let missing = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let mut download = Command::new("apt-get");
    download.current_dir(&archives).args(["--quiet=2", "--option=APT::Sandbox::User=", "download"]);
    process::run(download.args(missing))?;
    for entry in fs::read_dir(&archives)? {
        process::run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&folder))?;
    }
    fs::remove_dir_all(archives)?;

    let libraries = LIBRARIES.map(|library| folder.join(library).display().to_string()).join(":");
    let program = folder.join("usr/bin").join(QEMU);
    let script = script(workspace);
    fs::create_dir_all(workspace.tools().join("bin"))?;
    fs::write(&script, format!("#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{}' \"$@\"\n", program.display()))
        .with_context(|| format!("writing {}", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    find(workspace)?.with_context(|| format!("Debian's {QEMU} does not run from {}", folder.display()))
}
