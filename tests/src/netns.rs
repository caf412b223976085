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

/// Brings the loopback device of this thread's namespace up, and lets packets of `size` bytes through it (BIG TCP, `IFLA_GSO_IPV4_MAX_SIZE`
/// in `<linux/if_link.h>`, 6.3): by one netlink message.
///
/// # Panics
/// If the kernel refuses.
pub fn bring_loopback_up(size: u32) {
    const GSO_MAX_SIZE: u16 = 41;
    const GSO_IPV4_MAX_SIZE: u16 = 63;
    let attribute = |kind: u16| [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &size.to_ne_bytes()].concat();
    // SAFETY: no pointers.
    let index = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    let up = libc::IFF_UP.cast_unsigned().to_ne_bytes();
    let message = [
        &48u32.to_ne_bytes()[..],
        &libc::RTM_NEWLINK.to_ne_bytes(),
        &(libc::NLM_F_REQUEST | libc::NLM_F_ACK).cast_unsigned().to_ne_bytes()[..2],
        &[0; 8],
        // `struct ifinfomsg`: family and type, index, flags and which of them change.
        &[0; 4],
        &index.to_ne_bytes(),
        &up,
        &up,
        &attribute(GSO_MAX_SIZE),
        &attribute(GSO_IPV4_MAX_SIZE),
    ]
    .concat();
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        // `NETLINK_ROUTE`, which is 0.
        None,
    )
    .expect("open a netlink socket");
    rustix::net::send(&socket, &message, rustix::net::SendFlags::empty()).expect("send to the kernel");
    let mut answer = [0; 64];
    rustix::net::recv(&socket, &mut answer, rustix::net::RecvFlags::empty()).expect("hear from the kernel");
    assert_eq!(answer[16..20], [0; 4], "the kernel refuses: an error number");
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
