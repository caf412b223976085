//! The image: systemd from Debian, this program as models and as the check, the agent's package.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::image::{GUEST, linked, pack, within};
use super::super::packages;
use super::lifecycle::{NEXT, PACKAGE};
use super::logs::{RECEIVER, RECEIVER_FOLDER, RECEIVER_PORT, TALKER};
use super::machine::{LATE, LAZY, PHI3, YI};
use super::units::{HARDY, RESTART_AFTER};
use crate::process;

/// Packages from Debian, unpacked with all their dependencies.
const PACKAGES: [&str; 13] = [
    "systemd",
    "dbus",
    // Receives logs.
    "systemd-journal-remote",
    // Install the agent's package; run by its scripts.
    "dpkg",
    "init-system-helpers",
    "tar",
    "dash",
    "coreutils",
    "sed",
    "libc-bin",
    "passwd",
    "perl-base",
    "diffutils",
];

/// Where Debian's packages expect links (`usrmerge`).
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Parts of the packages that a machine does not need.
const USELESS: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion"];

/// Units that would only take time.
const MASKED: [&str; 4] = [
    "systemd-journal-flush.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-hwdb-update.service",
];

/// Files of dpkg's database, empty: the package's dependencies are present, but dpkg does not know them.
const DATABASE: [&str; 5] = ["status", "available", "diversions", "statoverride", "lock"];

/// Builds the image under `folder`.
pub(in super::super) fn build(folder: &Path, packages: &[PathBuf; 2]) -> Result<PathBuf> {
    // Another list of packages uses another folder.
    let base = folder.join(PACKAGES.join("+"));
    if !base.is_dir() {
        debian(folder, &base).context("getting systemd and its bus")?;
    }
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    process::run(Command::new("cp").arg("--archive").arg(&base).arg(&root))?;

    let own = env::current_exe().context("cannot find this program")?;
    let mut libraries = BTreeSet::new();
    process::run(Command::new("strip").arg("-o").arg(within(&root, Path::new(GUEST))?).arg(&own))?;
    libraries.extend(linked(&own)?);
    for (package, place) in packages.iter().zip([PACKAGE, NEXT]) {
        fs::copy(package, within(&root, Path::new(place))?)
            .with_context(|| format!("copying {}", package.display()))?;
    }
    for library in libraries {
        let place = within(&root, &library)?;
        if !place.exists() {
            fs::copy(&library, &place).with_context(|| format!("copying {}", library.display()))?;
        }
    }
    let write = |path: &str, text: &str| -> Result<()> { Ok(fs::write(within(&root, Path::new(path))?, text)?) };
    write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")?;
    write("/etc/group", "root:x:0:\ntty:x:5:\nutmp:x:43:\nsystemd-journal:x:999:\nnogroup:x:65534:\n")?;
    write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")?;
    for file in DATABASE {
        write(&format!("/var/lib/dpkg/{file}"), "")?;
    }
    for empty in ["info", "updates", "triggers", "alternatives", "parts"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(empty))?;
    }
    if !root.join("usr/bin/sh").exists() {
        symlink("dash", root.join("usr/bin/sh"))?;
    }
    for (name, text) in units() {
        write(&format!("/etc/systemd/system/{name}"), &text)?;
    }
    for name in MASKED {
        symlink("/dev/null", root.join("etc/systemd/system").join(name))?;
    }
    pack(&root, &folder.join("image.cpio"))
}

/// Unpacks Debian's packages as an installation would leave them, without running their scripts.
fn debian(folder: &Path, base: &Path) -> Result<()> {
    let unfinished = folder.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    for link in LINKS {
        fs::create_dir_all(unfinished.join("usr").join(link))?;
        symlink(format!("usr/{link}"), unfinished.join(link))?;
    }
    packages::unpack(folder, None, &PACKAGES, &unfinished)?;
    for useless in USELESS {
        let _ = fs::remove_dir_all(unfinished.join(useless));
    }
    for empty in ["dev", "proc", "sys", "run", "tmp", "root", "new-root"] {
        fs::create_dir_all(unfinished.join(empty))?;
    }
    Ok(fs::rename(unfinished, base)?)
}

/// The units of the test.
fn units() -> Vec<(String, String)> {
    let model = |(name, port): (&str, u16)| {
        let text = format!("[Unit]\nDescription=Model {name}\n\n[Service]\nExecStart={GUEST} guest serve {port}\n");
        (format!("citadel-{name}.service"), text)
    };
    let on_failure = format!("Restart=on-failure\nRestartSec={}\n", RESTART_AFTER.as_secs());
    let (lazy, lazy_port) = LAZY;
    let socket = format!("[Socket]\nListenStream={lazy_port}\n");
    let mut units: Vec<_> = [PHI3, YI, LATE, LAZY, TALKER].into_iter().map(model).collect();
    let (name, text) = model(HARDY);
    units.push((name, text + &on_failure));
    units.push((format!("citadel-{lazy}.socket"), socket));
    units.push((
        RECEIVER.to_owned(),
        format!(
            "[Service]\nExecStartPre=mkdir -p {RECEIVER_FOLDER}\nExecStart=/lib/systemd/systemd-journal-remote \
             --listen-http=127.0.0.1:{RECEIVER_PORT} --split-mode=none --output={RECEIVER_FOLDER}/remote.journal\n\
             Restart=always\nRestartSec=1\n"
        ),
    ));
    units.push((
        "guest.service".to_owned(),
        format!(
            "[Service]\nExecStart={GUEST} guest check\nStandardOutput=tty\n\
             StandardError=tty\n"
        ),
    ));
    let wanted: Vec<String> = [PHI3, YI, TALKER].iter().map(|(name, _)| format!("citadel-{name}.service")).collect();
    units.push((
        "guest.target".to_owned(),
        format!(
            "[Unit]\nRequires=basic.target\nWants=guest.service {RECEIVER} citadel-{lazy}.socket {}\nAfter=basic.target\n",
            wanted.join(" ")
        ),
    ));
    units
}
