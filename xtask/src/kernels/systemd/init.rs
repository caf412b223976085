//! The machine's first process, until systemd takes its place.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::guest;

/// Where systemd is.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// Becomes systemd.
pub(crate) fn main() -> ! {
    guest::conclude(become_systemd().map(|never| match never {}))
}

fn become_systemd() -> Result<std::convert::Infallible> {
    guest::mount("devtmpfs", "/dev").context("mounting /dev")?;
    guest::take_console().context("/dev/console")?;
    root_on_itself().context("making a root that units can be given their own of")?;
    Err(Command::new(SYSTEMD).exec()).with_context(|| format!("starting {SYSTEMD}"))
}

/// What the kernel unpacks is no mount that `pivot_root(2)` takes, which systemd needs for units with a view of their own. A
/// bind mount of it on itself is one.
fn root_on_itself() -> io::Result<()> {
    let [root, new, here, dev] =
        ["/", "/new-root", ".", "/new-root/dev"].map(|path| CString::new(path).unwrap_or_default());
    let none = std::ptr::null();
    let old_dev = CString::new("/dev").unwrap_or_default();
    // SAFETY: strings that end with zero, no data; each call only changes what this process, alone in the machine, sees.
    let failed = unsafe {
        libc::mount(root.as_ptr(), new.as_ptr(), none, libc::MS_BIND, none.cast()) != 0
            || libc::mount(old_dev.as_ptr(), dev.as_ptr(), none, libc::MS_MOVE, none.cast()) != 0
            || libc::chdir(new.as_ptr()) != 0
            || libc::mount(here.as_ptr(), root.as_ptr(), none, libc::MS_MOVE, none.cast()) != 0
            || libc::chroot(here.as_ptr()) != 0
            || libc::chdir(root.as_ptr()) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
