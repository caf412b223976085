//! TCP sockets of the agent's network namespace, from the kernel's socket monitor (`sock_diag(7)`).

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket as Netlink, SocketAddr as NetlinkAddr};

/// An open connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Socket {
    /// The server's port.
    pub local_port: u16,
    /// The kernel's own name for the socket, never used twice.
    cookie: [u8; 8],
}

/// A socket that waits for connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Listener {
    /// The port that it listens on.
    pub port: u16,
    /// The address that it listens on; unspecified: on all of the family's, and IPv6's on IPv4's too unless told otherwise.
    pub address: IpAddr,
    /// The number under which `/proc/PID/fd` shows it, as `socket:[INODE]`. The kernel hands out 32 bits.
    pub inode: u32,
    /// It is in the agent's own network namespace, so that the agent can connect to it.
    pub reachable: bool,
}

impl Listener {
    /// Where to connect to: its own address, or loopback where it listens on all.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        let address = match self.address {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        SocketAddr::new(address, self.port)
    }
}

/// Most listening sockets of one port that are looked at: a server has one, or one a worker.
pub const MAX_LISTENERS: usize = 256;

/// Listening sockets by port, each once, [`MAX_LISTENERS`] a port at most: the oldest, as far as their numbers say.
#[derive(Clone, Debug, Default)]
pub struct Listeners(BTreeMap<u16, BTreeMap<u32, Listener>>);

impl Listeners {
    /// Takes one.
    pub fn add(&mut self, listener: Listener) {
        let of_port = self.0.entry(listener.port).or_default();
        of_port.insert(listener.inode, listener);
        if of_port.len() > MAX_LISTENERS {
            of_port.pop_last();
        }
    }

    /// All of them, in the order of ports and numbers.
    #[must_use]
    pub fn into_vec(self) -> Vec<Listener> {
        self.0.into_values().flat_map(BTreeMap::into_values).collect()
    }
}

/// Reads the listening sockets on ports that `wanted` takes, in the agent's own network namespace; [`MAX_LISTENERS`] a port at
/// most.
///
/// # Errors
/// When the kernel does not answer as `sock_diag(7)` says it does.
pub fn read_listeners(wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Listener>> {
    // A dump that runs while sockets come and go may name one twice.
    let mut listeners = Listeners::default();
    dump(&StateFlags::LISTEN, |header| {
        let id = &header.socket_id;
        if wanted(id.source_port) {
            let (port, address, inode) = (id.source_port, id.source_address, header.inode);
            listeners.add(Listener { port, address, inode, reachable: true });
        }
    })?;
    Ok(listeners.into_vec())
}

/// Reads the connections that a local application has open (`ESTABLISHED` or `CLOSE_WAIT`) on ports that `wanted` takes.
///
/// # Errors
/// When the kernel does not answer as `sock_diag(7)` says it does.
pub fn read_open_connections(wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Socket>> {
    let mut sockets = HashSet::new();
    dump(&(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT), |header| {
        let id = &header.socket_id;
        if wanted(id.source_port) {
            sockets.insert(Socket { local_port: id.source_port, cookie: id.cookie });
        }
    })?;
    Ok(sockets.into_iter().collect())
}

/// All TCP sockets in these states, of IPv4 and IPv6.
fn dump(states: &StateFlags, mut take: impl FnMut(&InetResponseHeader)) -> io::Result<()> {
    for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        dump_family(family, id, states.clone(), &mut take)?;
    }
    Ok(())
}

fn dump_family(
    family: u8,
    socket_id: SocketId,
    states: StateFlags,
    take: &mut impl FnMut(&InetResponseHeader),
) -> io::Result<()> {
    let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;

    // The kernel fills datagrams of at most 32 KiB.
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = netlink.recv(&mut &mut buffer[..], 0)?;
        let mut rest = buffer.get(..length).ok_or_else(|| io::Error::other("a datagram longer than 64 KiB"))?;
        while !rest.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    take(&response.header);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes.
            let used = (answer.header.length as usize).next_multiple_of(4);
            if used == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of no length"));
            }
            rest = rest.get(used..).unwrap_or(&[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn open_connections_are_listed_until_they_close() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let open = || read_open_connections(|other| other == port).unwrap();
            assert_eq!(open(), [], "a listener is no connection");
            let clients = [0; 3].map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let servers = [0; 3].map(|_| listener.accept().unwrap().0);
            let sockets = open();
            assert_eq!(sockets.len(), 3);
            assert!(sockets.iter().all(|socket| socket.local_port == port));
            drop(servers);
            drop(clients);
            assert_eq!(open(), []);
        }
    }

    #[test]
    fn of_a_port_with_more_sockets_than_any_server_has_the_oldest_are_listed() {
        let mut listeners = Listeners::default();
        for inode in (1..=10_000).rev() {
            let port = if inode % 2 == 0 { 11400 } else { 11401 };
            listeners.add(Listener { port, address: Ipv4Addr::LOCALHOST.into(), inode, reachable: true });
        }
        let listed = listeners.into_vec();
        assert_eq!(listed.len(), 2 * MAX_LISTENERS);
        assert_eq!((listed[0].inode, listed[MAX_LISTENERS - 1].inode, listed[MAX_LISTENERS].inode), (2, 512, 1));
    }

    #[test]
    fn each_listening_socket_is_listed_with_the_inode_that_proc_shows() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let local = listener.local_addr().unwrap();
            let _connected = TcpStream::connect(("localhost", local.port())).or_else(|_| TcpStream::connect(local));
            let found = read_listeners(|port| port == local.port()).unwrap();
            assert_eq!(found.len(), 1, "{found:?}: a connection is no listener");
            assert_eq!((found[0].port, found[0].address, found[0].reachable), (local.port(), local.ip(), true));
            let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", found[0].inode));
            drop(listener);
            assert_eq!(read_listeners(|port| port == local.port()).unwrap(), []);
        }
    }
}
