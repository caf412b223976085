//! Network namespaces without the `ip` command.

use std::fs::File;
use std::os::fd::AsFd;
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace of its own; the kernel removes it when this value and all its sockets are gone.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a namespace that has nothing but a loopback device that is down.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making one is an effect on the kernel that needs root")]
    pub fn new() -> Self {
        assert!(geteuid().is_root(), "the network tests make network namespaces and TUN devices: run them as root");
        // A thread of its own moves, so that the caller stays where it is.
        let file = in_thread(|| {
            // SAFETY: CLONE_NEWNET changes the network namespace of this thread alone and touches no descriptors.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open the new network namespace")
        });
        Self { file }
    }

    /// Runs `act` inside: sockets and devices that it makes belong to the namespace for their whole life.
    ///
    /// # Panics
    /// With the panic of `act`.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the network namespace");
            act()
        })
    }
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
