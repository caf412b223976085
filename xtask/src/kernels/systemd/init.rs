//! PID 1 until it executes systemd.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::guest;

/// Where systemd is.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// Executes systemd.
pub(crate) fn main() -> ! {
    guest::conclude(become_systemd().map(|never| match never {}))
}

fn become_systemd() -> Result<std::convert::Infallible> {
    guest::mount("devtmpfs", "/dev").context("mounting /dev")?;
    guest::take_console().context("/dev/console")?;
    root_on_itself().context("bind-mounting the root")?;
    Err(Command::new(SYSTEMD).exec()).with_context(|| format!("starting {SYSTEMD}"))
}

/// `pivot_root(2)` refuses the initramfs, and systemd needs it for units with a mount namespace. A bind mount of the
/// root on itself works.
fn root_on_itself() -> io::Result<()> {
    let [root, new, here, dev] =
        ["/", "/new-root", ".", "/new-root/dev"].map(|path| CString::new(path).unwrap_or_default());
    let none = std::ptr::null();
    let old_dev = CString::new("/dev").unwrap_or_default();
    // SAFETY: strings that end with NUL, no data; each call only affects this process, the only one in the machine.
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
