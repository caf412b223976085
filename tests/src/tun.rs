//! TUN devices, and what the kernel tells of a TCP connection.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// The MTU of [`open`]'s devices, in bytes.
pub const MTU: usize = 1500;

/// Makes a TUN device with an address in the calling thread's network namespace, up and with a route to its /24; each
/// read and write of the file is one IP packet.
///
/// # Panics
/// Without root or without `/dev/net/tun`.
#[must_use]
pub fn open(address: Ipv4Addr) -> File {
    let device = File::options().read(true).write(true).open("/dev/net/tun").expect("open /dev/net/tun");
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    set(&device, libc::TUNSETIFF, "make a TUN device", |ru| ru.ifru_flags = flags as libc::c_short);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("make a socket for settings");
    set(&socket, libc::SIOCSIFADDR, "set its address", |ru| ru.ifru_addr = ipv4(address));
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    set(&socket, libc::SIOCSIFNETMASK, "set its netmask", |ru| ru.ifru_netmask = ipv4(mask));
    set(&socket, libc::SIOCSIFMTU, "set its MTU", |ru| ru.ifru_mtu = MTU as libc::c_int);
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    set(&socket, libc::SIOCSIFFLAGS, "set it up", |ru| ru.ifru_flags = flags as libc::c_short);
    device
}

/// Adds an address of IPv6, in a /64, to the device of the calling thread's network namespace.
///
/// # Panics
/// If the kernel refuses it.
pub fn add_v6(address: Ipv6Addr) {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("make a socket for settings");
    // SAFETY: a name that ends with zero.
    let index = unsafe { libc::if_nametoindex(c"tun0".as_ptr()) };
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
        ifr6_prefixlen: 64,
        ifr6_ifindex: index as libc::c_int,
    };
    // SAFETY: the request takes a pointer to an in6_ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFADDR, &raw const request) };
    assert_eq!(result, 0, "cannot set its address of IPv6: {}", io::Error::last_os_error());
}

/// One `ioctl` on the device `tun0`; every namespace has at most one.
fn set(file: &impl AsFd, request: libc::c_ulong, what: &str, value: impl FnOnce(&mut libc::__c_anonymous_ifr_ifru)) {
    // SAFETY: an ifreq is plain integers and arrays of them, for which zero is valid.
    let mut ifreq: libc::ifreq = unsafe { zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    value(&mut ifreq.ifr_ifru);
    // SAFETY: all requests used here take a pointer to an ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, &raw mut ifreq) };
    assert_eq!(result, 0, "cannot {what}: {}", io::Error::last_os_error());
}

fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: sockaddr_in is one of the layouts of the equally large sockaddr.
    unsafe { std::mem::transmute(address) }
}

/// `TCP_INFO` of a connection's own end.
///
/// # Panics
/// If it is no TCP socket.
#[must_use]
pub fn tcp_info(socket: &impl AsFd) -> libc::tcp_info {
    // SAFETY: tcp_info is plain integers, for which zero is valid.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, and both live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
    info
}

/// Sets an integer option of the TCP level.
///
/// # Panics
/// If the kernel refuses it.
pub fn set_tcp_option(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) {
    // SAFETY: pointer and size are those of `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "TCP option {option}: {}", io::Error::last_os_error());
}
