//! Binds a listener, and says what to do when that fails.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens on the port.
    #[error("port {} is taken by {}: stop it, or choose another port in local_collection", addr.port(), Holder::or_unknown(holder.as_ref()))]
    InUse {
        /// What was to be bound.
        addr: SocketAddr,
        /// Who has it, where that could be found out.
        holder: Option<Holder>,
    },
    /// Ports below 1024 need a privilege.
    #[error("no permission to listen on port {}: choose one above 1023, or grant CAP_NET_BIND_SERVICE", addr.port())]
    Denied {
        /// What was to be bound.
        addr: SocketAddr,
    },
    /// The address is none of this host's.
    #[error("{} is not an address of this host: correct local_collection.listen_address", addr.ip())]
    NotLocal {
        /// What was to be bound.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {addr}")]
    Other {
        /// What was to be bound.
        addr: SocketAddr,
        /// The kernel's reason.
        #[source]
        cause: io::Error,
    },
}

/// A process that listens on a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name, as in `ps`.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl Holder {
    fn or_unknown(holder: Option<&Self>) -> String {
        holder.map_or_else(|| "another process".to_owned(), Self::to_string)
    }
}

/// A listener on `addr` and `port` that is ready for connections. `::` takes IPv4 as well, and is `0.0.0.0` on a host
/// without IPv6. Port 0 lets the kernel choose one.
///
/// # Errors
/// See [`BindError`].
pub fn bind(addr: IpAddr, port: u16) -> Result<TcpListener, BindError> {
    let wanted = SocketAddr::new(addr, port);
    match listen(wanted) {
        Err(error) if addr == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            let fallback = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            tracing::info!(%wanted, %fallback, "this host has no IPv6, listening on IPv4 only");
            listen(fallback).map_err(|error| explain(fallback, error))
        }
        result => result.map_err(|error| explain(wanted, error)),
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for connections of the last run that are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel knows no IPv6 at all, or has it turned off on every interface.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn explain(addr: SocketAddr, cause: io::Error) -> BindError {
    match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { addr, holder: holder(addr.port()) },
        io::ErrorKind::PermissionDenied => BindError::Denied { addr },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { addr },
        _ => BindError::Other { addr, cause },
    }
}

/// The process that listens on `port`, as far as this process may see it.
fn holder(port: u16) -> Option<Holder> {
    let inode = ["/proc/net/tcp6", "/proc/net/tcp"]
        .iter()
        .find_map(|path| parse_listening_inode(&fs::read_to_string(path).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*socket))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?.trim_end().to_owned();
        Some(Holder { pid, name })
    })
}

/// The inode of the socket that listens on `port`, from the text of `/proc/net/tcp` (`proc_pid_net(5)`): address and
/// port in hexadecimal are the second column, the state is the fourth (0A: listen), the inode the tenth.
fn parse_listening_inode(text: &str, port: u16) -> Option<u64> {
    text.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = columns.get(1)?.rsplit_once(':')?.1;
        let listens = *columns.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| columns.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_is_found_among_others_of_its_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0 20 4 30 10 -1\n\
            1: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n\
            2: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n\
            3: short\n";
        assert_eq!(parse_listening_inode(text, 8000), Some(333));
        assert_eq!(parse_listening_inode(text, 8001), Some(222));
        assert_eq!(parse_listening_inode(text, 8002), None);
    }

    #[test]
    fn only_a_missing_ipv6_makes_us_fall_back() {
        assert!(lacks_ipv6(&io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        assert!(!lacks_ipv6(&io::Error::from_raw_os_error(libc::EADDRINUSE)));
    }

    #[test]
    fn an_address_of_another_host_is_said_to_be_that() {
        // 192.0.2.0/24 is for documentation: no host has it.
        let error = bind(Ipv4Addr::new(192, 0, 2, 1).into(), 0).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error:?}");
    }
}
