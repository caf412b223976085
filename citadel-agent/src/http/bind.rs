//! Binds a listener; errors say what to do.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::host::skipped::Skipped;
use crate::host::sock_diag::Listeners;
use crate::host::{Roots, net_tcp, pid};

/// Number of connections that can wait to be accepted; limited by `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process is listening on the port.
    #[error("port {} is already used by {}; stop it, or choose another port in local_collection", addr.port(), Holder::or_unknown(holder.as_ref()))]
    InUse {
        /// Requested address.
        addr: SocketAddr,
        /// The process, if known.
        holder: Option<Holder>,
    },
    /// Ports below 1024 need a privilege.
    #[error("no permission to listen on port {}; choose a port above 1023, or grant CAP_NET_BIND_SERVICE", addr.port())]
    Denied {
        /// Requested address.
        addr: SocketAddr,
    },
    /// The host does not have this address.
    #[error("{} is not an address of this host; correct local_collection.listen_address", addr.ip())]
    NotLocal {
        /// Requested address.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {addr}")]
    Other {
        /// Requested address.
        addr: SocketAddr,
        /// Reason from the kernel.
        #[source]
        cause: io::Error,
    },
}

/// A process that is listening on a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// PID.
    pub pid: u32,
    /// Name, as in `ps`.
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

/// Opens a listener on `addr` and `port`. `::` also accepts IPv4, and falls back to `0.0.0.0` on a host without IPv6.
/// With port 0 the kernel chooses a port.
///
/// # Errors
/// See [`BindError`].
pub fn bind(addr: IpAddr, port: u16) -> Result<TcpListener, BindError> {
    bind_with(addr, port, false)
}

/// Like [`bind`], if listeners of this process have the port on other addresses and one address includes the other, as
/// `0.0.0.0` includes `127.0.0.1`. The kernel allows this only if all sockets set `SO_REUSEPORT` (socket(7)), which
/// they do while binding. A process that does not set it, such as a second agent, is refused as usual, and so are
/// processes of other users.
///
/// # Errors
/// See [`BindError`].
pub fn bind_beside(addr: IpAddr, port: u16, own: &[&TcpListener]) -> Result<TcpListener, BindError> {
    let share = |listeners: &[&TcpListener], shared| {
        let mut listeners = listeners.iter().map(|&listener| SockRef::from(listener));
        listeners.try_for_each(|socket| socket.set_reuse_port(shared))
    };
    let explain = |error| explain(SocketAddr::new(addr, port), error);
    let bound = share(own, true).map_err(explain).and_then(|()| bind_with(addr, port, true));
    share(own, false).map_err(explain)?;
    let bound = bound?;
    share(&[&bound], false).map_err(explain)?;
    Ok(bound)
}

fn bind_with(addr: IpAddr, port: u16, shared: bool) -> Result<TcpListener, BindError> {
    let wanted = SocketAddr::new(addr, port);
    match listen(wanted, shared) {
        Err(error) if addr == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            let fallback = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            tracing::info!(%wanted, %fallback, "this host has no IPv6, listening on IPv4 only");
            listen(fallback, shared).map_err(|error| explain(fallback, error))
        }
        result => result.map_err(|error| explain(wanted, error)),
    }
}

fn listen(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for connections of the previous run in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel has no IPv6 at all, or has it disabled on every interface.
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

/// Maximum number of open-file links read for an error message: a tenth of a second.
const MAX_LINKS: usize = 50_000;

/// The process that is listening on `port`, if it is visible to this process.
fn holder(port: u16) -> Option<Holder> {
    let roots = Roots::default();
    let mut listeners = Listeners::default();
    let skipped = &mut Skipped::default();
    net_tcp::read_listeners_of(&roots, std::process::id(), |listening| listening == port, skipped, &mut listeners)
        .ok()?;
    let sockets = listeners.into_vec();
    let sockets: Vec<_> = sockets.iter().map(|listener| format!("socket:[{}]", listener.inode)).collect();
    let mut links = 0;
    pid::read_pids(&roots).ok()?.into_iter().find_map(|pid| {
        let files = fs::read_dir(roots.of(pid).join("fd")).ok()?.flatten();
        let mut files = files.take(MAX_LINKS.saturating_sub(links)).inspect(|_| links += 1);
        let is_socket = |target: &Path| sockets.iter().any(|socket| target.as_os_str() == &**socket);
        files.find(|file| fs::read_link(file.path()).is_ok_and(|target| is_socket(&target)))?;
        Some(Holder { pid, name: pid::read_command_name(&roots, pid).ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_port_is_named() {
        let taken = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let error = bind(Ipv4Addr::LOCALHOST.into(), taken.local_addr().unwrap().port()).unwrap_err();
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
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
