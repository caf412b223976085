//! The initramfs that the kernels boot with: the agent, this program, additional programs, and the libraries that they
//! are linked against.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Path of the agent in the image.
pub(super) const AGENT: &str = "/bin/citadel-agent";
/// Path of this program.
pub(super) const GUEST: &str = "/bin/xtask";
/// Path of the agent's configuration.
pub(super) const CONFIG: &str = "/etc/config.yaml";

/// The agent's configuration. Without health probes, because the server's connections are counted.
const CONFIG_TEXT: &str = "model_monitoring:\n  ports:\n    guest: 11400\n  health_endpoints: []\n";

/// The agent's ports.
pub(super) const METRICS: u16 = 8000;
pub(super) const HEALTH: u16 = 8001;

/// How long the agent may take to become ready: under emulation the verifier takes seconds per program.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(120);

/// Folders that the guest mounts file systems on or writes to.
const FOLDERS: [&str; 6] = ["dev", "etc", "proc", "sys", "run", "tmp"];

/// Builds the image under `folder`, with the programs in `more` in /sbin, and returns its path.
pub(super) fn build(folder: &Path, agent: &Path, more: &[PathBuf]) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in FOLDERS {
        fs::create_dir_all(root.join(name))?;
    }
    let own = env::current_exe().context("cannot find this program")?;
    let mut libraries = BTreeSet::new();
    for (program, place) in [(agent, AGENT), (&own, GUEST)] {
        let place = within(&root, Path::new(place))?;
        // Nine tenths of an unoptimised program are debug information, which the emulated machine need not unpack.
        process::run(Command::new("strip").arg("-o").arg(place).arg(program))?;
        libraries.extend(linked(program)?);
    }
    for program in more {
        let name = program.file_name().with_context(|| format!("{} is not a file", program.display()))?;
        fs::copy(program, within(&root, &Path::new("/sbin").join(name))?)
            .with_context(|| format!("copying {}", program.display()))?;
        libraries.extend(linked(program)?);
    }
    for library in libraries {
        fs::copy(&library, within(&root, &library)?).with_context(|| format!("copying {}", library.display()))?;
    }
    fs::write(within(&root, Path::new(CONFIG))?, CONFIG_TEXT)?;
    fs::write(within(&root, Path::new("/etc/passwd"))?, "root:x:0:0:root:/:/bin/false\n")?;
    fs::write(within(&root, Path::new("/etc/group"))?, "root:x:0:\n")?;
    pack(&root, &folder.join("image.cpio"))
}

/// The location of `path` in the image; creates its folder.
pub(super) fn within(root: &Path, path: &Path) -> Result<PathBuf> {
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(place)
}

/// The shared libraries of a program, including its loader.
pub(super) fn linked(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::output(Command::new("ldd").arg(program))?;
    // `name => /path (0x...)`, `/path (0x...)`, or the vDSO, which has no path.
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(paths.collect())
}

/// Packs a folder in the initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst).
pub(super) fn pack(root: &Path, image: &Path) -> Result<PathBuf> {
    let mut find = Command::new("find").arg(".").current_dir(root).stdout(Stdio::piped()).spawn().context("find")?;
    let names = find.stdout.take().context("find has no output")?;
    let file = File::create(image).with_context(|| format!("creating {}", image.display()))?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
        .current_dir(root)
        .stdin(names)
        .stdout(file)
        .status()
        .context("cannot start cpio")?;
    if !find.wait()?.success() || !status.success() {
        bail!("cannot pack {}", root.display());
    }
    Ok(image.to_owned())
}
