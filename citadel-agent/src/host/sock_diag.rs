//! TCP sockets in the agent's network namespace, from the kernel's sock_diag interface (`sock_diag(7)`).

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket as Netlink, SocketAddr as NetlinkAddr};
use serde::{Deserialize, Serialize};

/// An open connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Socket {
    /// Port of the server.
    pub(crate) local_port: u16,
    /// The kernel's unique ID of the socket, never reused.
    cookie: [u8; 8],
}

/// A listening socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Listener {
    pub(crate) port: u16,
    /// Address; unspecified means all addresses of the family, and for IPv6 also IPv4 unless disabled.
    pub(crate) address: IpAddr,
    /// The inode in `/proc/PID/fd`, shown as `socket:[INODE]`. The kernel uses 32 bits.
    pub(crate) inode: u32,
    /// Whether it is in the agent's network namespace, so that the agent can connect to it.
    pub(crate) reachable: bool,
}

impl Listener {
    /// The address to connect to: its own, or loopback if it listens on all addresses.
    #[must_use]
    pub(crate) fn server(&self) -> SocketAddr {
        let address = match self.address {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        SocketAddr::new(address, self.port)
    }
}

/// Maximum number of listening sockets per port: a server has one, or one per worker.
pub(crate) const MAX_LISTENERS: usize = 256;

/// Listening sockets by port, without duplicates, at most [`MAX_LISTENERS`] per port: the oldest, judging by their
/// inodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(BTreeMap<u16, BTreeMap<u32, Listener>>);

impl Listeners {
    /// Adds a socket.
    pub(crate) fn add(&mut self, listener: Listener) {
        let of_port = self.0.entry(listener.port).or_default();
        of_port.insert(listener.inode, listener);
        if of_port.len() > MAX_LISTENERS {
            of_port.pop_last();
        }
    }

    /// All sockets, sorted by port and inode.
    #[must_use]
    pub(crate) fn into_vec(self) -> Vec<Listener> {
        self.0.into_values().flat_map(BTreeMap::into_values).collect()
    }
}

/// Reads the listening sockets on ports accepted by `wanted`, in the agent's network namespace; at most
/// [`MAX_LISTENERS`] per port.
///
/// # Errors
/// The kernel's answer does not match `sock_diag(7)`.
pub(crate) fn read_listeners(wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Listener>> {
    // A dump can contain a socket twice if sockets change meanwhile.
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

/// Reads connections that a local application has open (`ESTABLISHED` or `CLOSE_WAIT`) on ports accepted by `wanted`.
///
/// # Errors
/// The kernel's answer does not match `sock_diag(7)`.
pub(crate) fn read_open_connections(wanted: impl Fn(u16) -> bool) -> io::Result<Vec<Socket>> {
    let mut sockets = HashSet::new();
    dump(&(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT), |header| {
        let id = &header.socket_id;
        if wanted(id.source_port) {
            sockets.insert(Socket { local_port: id.source_port, cookie: id.cookie });
        }
    })?;
    Ok(sockets.into_iter().collect())
}

/// What waits at a port: connections to be accepted, and data to be read by clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Queues {
    /// Connections that wait to be accepted, on the listening socket where most do.
    pub(crate) accept: u32,
    /// How many may wait there.
    pub(crate) accept_limit: u32,
    /// Connections whose data wait for the client's receive window.
    pub(crate) held_back: u32,
}

/// Reads what waits at the ports that `wanted` takes and on which something listens, in the agent's own network namespace.
///
/// # Errors
/// When the kernel does not answer as `sock_diag(7)` says it does.
pub(crate) fn read_queues(wanted: impl Fn(u16) -> bool) -> io::Result<BTreeMap<u16, Queues>> {
    let mut queues: BTreeMap<u16, Queues> = BTreeMap::new();
    dump(&StateFlags::LISTEN, |header| {
        let port = header.socket_id.source_port;
        if wanted(port) {
            let of_port = queues.entry(port).or_default();
            if header.recv_queue >= of_port.accept {
                (of_port.accept, of_port.accept_limit) = (header.recv_queue, header.send_queue);
            }
        }
    })?;
    let states = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    dump_with(&states, &ExtensionFlags::INFO, |response| {
        let Some(of_port) = queues.get_mut(&response.header.socket_id.source_port) else { return };
        let info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(info) => Some(info),
            _ => None,
        });
        of_port.held_back += u32::from(info.and_then(|info| is_held_back(info)).unwrap_or(false));
    })?;
    Ok(queues)
}

/// Whether a connection has data that wait for the client: nothing is under way though something is to be sent, or its window
/// was the limit for most of the time in which there was something to send. `None` where the kernel says too little
/// (`struct tcp_info` of `<linux/tcp.h>`, which only grows at its end: all of this is in it since 4.10).
fn is_held_back(info: &[u8]) -> Option<bool> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let (unacked, not_sent) = (u32_at(24)?, u32_at(144)?);
    let (busy_us, window_limited_us) = (u64_at(168)?, u64_at(176)?);
    Some(not_sent > 0 && (unacked == 0 || window_limited_us > busy_us / 2))
}

/// All TCP sockets in these states, IPv4 and IPv6.
fn dump(states: &StateFlags, mut take: impl FnMut(&InetResponseHeader)) -> io::Result<()> {
    dump_with(states, &ExtensionFlags::empty(), |response| take(&response.header))
}

/// Likewise, with what the kernel says besides.
fn dump_with(states: &StateFlags, extensions: &ExtensionFlags, mut take: impl FnMut(&InetResponse)) -> io::Result<()> {
    for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        dump_family(family, id, states.clone(), extensions.clone(), &mut take)?;
    }
    Ok(())
}

fn dump_family(
    family: u8,
    socket_id: SocketId,
    states: StateFlags,
    extensions: ExtensionFlags,
    take: &mut impl FnMut(&InetResponse),
) -> io::Result<()> {
    let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;

    // The kernel's datagrams have at most 32 KiB.
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = netlink.recv(&mut &mut buffer[..], 0)?;
        let mut rest = buffer.get(..length).ok_or_else(|| io::Error::other("a datagram longer than 64 KiB"))?;
        while !rest.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    take(&response);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes.
            let used = (answer.header.length as usize).next_multiple_of(4);
            if used == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of length 0"));
            }
            rest = rest.get(used..).unwrap_or(&[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::time::{Duration, Instant};

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
    fn connections_that_wait_to_be_accepted_and_data_that_wait_to_be_read_are_counted() {
        use std::io::Write as _;

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let queues = || read_queues(|port| port == address.port()).unwrap()[&address.port()];
        let clients = [0; 3].map(|_| TcpStream::connect(address).unwrap());
        let before = queues();
        assert_eq!((before.accept, before.held_back), (3, 0));
        assert!(before.accept_limit >= 3);
        let servers = [0; 3].map(|_| listener.accept().unwrap().0);
        // One client does not read, and another has nothing to read.
        servers[0].set_nonblocking(true).unwrap();
        while (&servers[0]).write(&[0; 65_536]).is_ok() {}
        // Once the kernel has sent all that the client has room for.
        let begin = Instant::now();
        while queues().held_back != 1 {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", queues());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(queues().accept, 0);
        drop(clients);
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
