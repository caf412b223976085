//! Runs other programs: prints them first, and uses root only where necessary.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` to its end; anything but success is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// The standard output of `command`, trimmed; its standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `command` can be started and succeeds; its output is discarded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Program and arguments as a person would type them.
fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program());
    // Cargo is known by its full path here; the name is enough for a reader.
    let name = name.file_name().unwrap_or(name.as_os_str());
    let words = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// Where a program is: on the path or in the sbin folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid reads a number of the calling process and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The sudo for becoming root; `None` when already root.
///
/// # Errors
/// Neither root nor sudo: the message names `program`, so that a person can run it as root.
pub(crate) fn sudo(program: &Path) -> Result<Option<PathBuf>> {
    if is_root() {
        return Ok(None);
    }
    let missing = || format!("`{}` must run as root, and sudo is not installed: run this as root", program.display());
    find("sudo").with_context(missing).map(Some)
}

/// `program` as root: itself when already root, else under sudo, which may ask for a password. `keep` lists the
/// environment variables to preserve.
///
/// # Errors
/// As [`sudo`].
pub(crate) fn as_root(program: &Path, keep: &[&str]) -> Result<Command> {
    let Some(sudo) = sudo(program)? else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new(sudo);
    if !keep.is_empty() {
        command.arg(format!("--preserve-env={}", keep.join(",")));
    }
    command.arg(program);
    Ok(command)
}
