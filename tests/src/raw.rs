//! TCP segments put together by hand, over a TUN device: what no client of the kernel's would send.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::Namespace;
use crate::peer::Server;
use crate::tun;

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Its address of IPv6, in a /64.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Flags of a segment (RFC 9293, section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronizes sequence numbers.
    pub const SYN: u8 = 2;
    /// Resets the connection.
    pub const RST: u8 = 4;
    /// Pushes data.
    pub const PSH: u8 = 8;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// A segment's headers, as far as they matter here.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The client's address and port.
    pub client: (Ipv4Addr, u16),
    /// The server's port.
    pub port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`flag`].
    pub flags: u8,
}

/// A segment that the server sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its headers.
    pub header: Header,
    /// Payload bytes.
    pub length: u32,
}

/// A network namespace with a server in it, and the wire that leads there.
#[derive(Debug)]
pub struct Wire {
    namespace: Namespace,
    device: File,
}

impl Wire {
    /// A namespace whose one neighbour is the caller, under each address of 198.51.100.0/24. Its kernel gives up soon on
    /// clients that say nothing more.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making one is an effect on the kernel that needs root")]
    pub fn new() -> Self {
        let namespace = Namespace::new();
        let device = namespace.enter(|| {
            for (name, value) in [
                ("tcp_fin_timeout", "1"),
                ("tcp_orphan_retries", "1"),
                ("tcp_retries2", "2"),
                ("tcp_synack_retries", "1"),
                ("tcp_max_syn_backlog", "4096"),
            ] {
                let path = format!("/proc/sys/net/ipv4/{name}");
                std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
            let device = tun::open(SERVER);
            tun::add_v6(SERVER_V6);
            device
        });
        Self { namespace, device }
    }

    /// Runs `act` in the server's namespace.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(act)
    }

    /// A server on a free port in the namespace.
    #[must_use]
    pub fn bind(&self) -> Server {
        self.enter(|| Server::bind_to((SERVER, 0)))
    }

    /// Sends a segment to the server.
    ///
    /// # Panics
    /// If the device does not take it.
    pub fn send(&self, header: &Header, payload: &[u8]) {
        self.send_packet(&v4(header, payload));
    }

    /// Sends any IP packet.
    ///
    /// # Panics
    /// If the device does not take it.
    pub fn send_packet(&self, packet: &[u8]) {
        (&self.device).write_all(packet).expect("write a packet to the TUN device");
    }

    /// The next segment that the server's kernel sent, if one comes within so many milliseconds.
    ///
    /// # Panics
    /// If the device fails.
    pub fn receive(&self, within_ms: u32) -> Option<Sent> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(within_ms) * 1_000_000 };
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.device.as_fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)).expect("wait for a packet") == 0 {
                return None;
            }
            let mut packet = vec![0; tun::MTU];
            let length = (&self.device).read(&mut packet).expect("read a packet from the TUN device");
            if let Some(answer) = parse(&packet[..length]) {
                return Some(answer);
            }
        }
    }

    /// How many connections the server's kernel has made of handshakes (`Tcp: PassiveOpens`).
    ///
    /// # Panics
    /// If the kernel does not say.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        let text = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("read net/snmp"));
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (rows.next().expect("a row of names"), rows.next().expect("a row of values"));
        let column = names.split(' ').position(|name| name == "PassiveOpens").expect("PassiveOpens");
        values.split(' ').nth(column).and_then(|value| value.parse().ok()).expect("a number")
    }

    /// How many TCP sockets the namespace has that do not listen; those in TIME_WAIT are none.
    ///
    /// # Panics
    /// If the kernel does not say.
    #[must_use]
    pub fn sockets(&self) -> usize {
        let text = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp").expect("read net/tcp"));
        let states = text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(3));
        // TCP_TIME_WAIT and TCP_LISTEN of `<net/tcp_states.h>`.
        states.filter(|state| !matches!(*state, "06" | "0A")).count()
    }
}

/// An IPv4 packet with this segment.
#[must_use]
pub fn v4(header: &Header, payload: &[u8]) -> Vec<u8> {
    let tcp = tcp(header.client.1, header.port, header, payload);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, libc::IPPROTO_TCP as u8, 0, 0];
    packet.extend(header.client.0.octets());
    packet.extend(SERVER.octets());
    let length = (packet.len() + tcp.len()) as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = pseudo_sum(&packet[12..20], tcp.len());
    finish(packet, tcp, pseudo)
}

/// An IPv6 packet with this segment behind extension headers, which are whole and whose first one is of type `first`.
#[must_use]
pub fn v6(client: Ipv6Addr, header: &Header, first: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let tcp = tcp(header.client.1, header.port, header, payload);
    let length = (extensions.len() + tcp.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([first, 64]);
    packet.extend(client.octets());
    packet.extend(SERVER_V6.octets());
    let pseudo = pseudo_sum(&packet[8..40], tcp.len());
    packet.extend(extensions);
    finish(packet, tcp, pseudo)
}

fn tcp(from: u16, to: u16, header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(from.to_be_bytes());
    tcp.extend(to.to_be_bytes());
    tcp.extend(header.seq.to_be_bytes());
    tcp.extend(header.ack.to_be_bytes());
    // Five words of header; a window of 64 KiB; checksum and urgent pointer of 0.
    tcp.extend([5 << 4, header.flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    tcp
}

fn finish(mut packet: Vec<u8>, mut tcp: Vec<u8>, pseudo: u32) -> Vec<u8> {
    let sum = checksum(&tcp, pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}

/// The sum of a pseudo header (RFC 9293, section 3.1): both addresses, the protocol and the length.
fn pseudo_sum(addresses: &[u8], length: usize) -> u32 {
    words(addresses) + libc::IPPROTO_TCP as u32 + length as u32
}

/// The Internet checksum (RFC 1071) of `bytes` and what `sum` is of already.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = words(bytes) + sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
    bytes.chunks(2).map(word).sum()
}

/// A segment of the server's; one over IPv6 is to the unspecified address.
fn parse(packet: &[u8]) -> Option<Sent> {
    let (client, at, protocol) = match packet.first()? >> 4 {
        4 => {
            let client = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?);
            (client, usize::from(packet[0] & 15) * 4, packet[9])
        }
        _ => (Ipv4Addr::UNSPECIFIED, 40, *packet.get(6)?),
    };
    if i32::from(protocol) != libc::IPPROTO_TCP {
        return None;
    }
    let tcp = packet.get(at..)?;
    let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let ports = word(0)?;
    let header = Header {
        client: (client, ports as u16),
        port: (ports >> 16) as u16,
        seq: word(4)?,
        ack: word(8)?,
        flags: *tcp.get(13)?,
    };
    let length = tcp.len().checked_sub(usize::from(*tcp.get(12)? >> 4) * 4)? as u32;
    Some(Sent { header, length })
}
