//! TCP sockets in the network namespace of any process, from `/proc/PID/net/tcp` and `tcp6` (`proc_pid_net(5)`):
//! sock_diag covers only the caller's namespace, and entering another one needs `CAP_SYS_ADMIN`. Some kernels also lack
//! sock_diag.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::Roots;
use super::pid::Pid;
use super::skipped::Skipped;
use super::sock_diag::{Listener, Listeners};

/// `TCP_LISTEN` of `<net/tcp_states.h>`, as the table prints it.
const LISTEN: &str = "0A";
/// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT`: a local application has the connection open.
const OPEN: [&str; 2] = ["01", "08"];

/// Maximum size read of a table, about 200,000 sockets: any user can create a namespace and fill it. Listening sockets
/// come first.
const MAX_TABLE: u64 = 32 << 20;

/// Reads the listening sockets on ports accepted by `wanted`, in the network namespace of a process.
///
/// # Errors
/// The process does not exist, or access is denied.
pub(crate) fn read_listeners_of(
    roots: &Roots,
    pid: Pid,
    wanted: impl Fn(u16) -> bool,
    skipped: &mut Skipped,
    listeners: &mut Listeners,
) -> io::Result<()> {
    read_rows(roots, pid, MAX_TABLE, skipped, |Row { address, port, state, inode }| {
        if state == LISTEN && wanted(port) {
            listeners.add(Listener { port, address, inode, reachable: false });
        }
    })
}

/// Reads which local ports have an open connection, in the network namespace of a process.
///
/// # Errors
/// The process does not exist, or access is denied.
pub(crate) fn read_open_ports_of(roots: &Roots, pid: Pid) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    read_rows(roots, pid, u64::MAX, &mut Skipped::default(), |row| {
        if OPEN.contains(&row.state) {
            ports.insert(row.port);
        }
    })?;
    Ok(ports)
}

/// Reads both tables line by line, at most `limit` bytes of each: they can be far larger than the agent's memory.
fn read_rows(
    roots: &Roots,
    pid: Pid,
    limit: u64,
    skipped: &mut Skipped,
    mut take: impl FnMut(Row<'_>),
) -> io::Result<()> {
    let folder = roots.of(pid).join("net");
    for name in ["tcp", "tcp6"] {
        let file = match File::open(folder.join(name)) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "tcp6" => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut table = BufReader::new(file.take(limit));
        let mut line = String::new();
        while table.read_line(&mut line)? > 0 {
            row(&line, skipped).into_iter().for_each(&mut take);
            line.clear();
        }
    }
    Ok(())
}

/// Reads the network namespace of a process, as `net:[NUMBER]`.
///
/// # Errors
/// The process does not exist, or access is denied (needs `CAP_SYS_PTRACE`).
pub(crate) fn read_namespace(roots: &Roots, pid: Pid) -> io::Result<PathBuf> {
    fs::read_link(roots.of(pid).join("ns/net"))
}

/// Parses the listening sockets of a table.
pub(crate) fn parse_listeners(table: &str, skipped: &mut Skipped) -> impl Iterator<Item = Listener> {
    let listening = parse_rows(table, skipped).filter(|row| row.state == LISTEN);
    listening.map(|Row { address, port, inode, .. }| Listener { port, address, inode, reachable: false })
}

/// A line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row<'a> {
    address: IpAddr,
    port: u16,
    state: &'a str,
    inode: u32,
}

/// The lines of a table; malformed ones are recorded as skipped, headings are ignored.
fn parse_rows<'a>(table: &'a str, skipped: &mut Skipped) -> impl Iterator<Item = Row<'a>> {
    table.lines().filter_map(|line| row(line, skipped))
}

/// A line of a table. `None` for the heading, or if it is malformed, which is recorded.
fn row<'a>(line: &'a str, skipped: &mut Skipped) -> Option<Row<'a>> {
    if line.trim_start().starts_with("sl ") {
        return None;
    }
    skipped.or_note(parse_row(line), "net/tcp", line.trim_end())
}

fn parse_row(line: &str) -> Option<Row<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let (local, state, inode) = (fields.nth(1)?, fields.nth(1)?, fields.nth(5)?);
    let (address, port) = local.split_once(':')?;
    Some(Row {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        state,
        inode: inode.parse().ok()?,
    })
}

/// An address as printed by the kernel: 32-bit words in network byte order, read in host byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (i, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * i)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_table_tells_what_the_socket_monitor_tells() {
        let listeners = ["127.0.0.1:0", "[::1]:0", "[::]:0"].map(|address| TcpListener::bind(address).unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let sort = |mut found: Vec<Listener>| {
            found.sort_unstable_by_key(|listener| listener.inode);
            found
        };
        let wanted = |port| ports.contains(&port);
        let mut table = Listeners::default();
        read_listeners_of(&Roots::default(), std::process::id(), wanted, &mut Skipped::default(), &mut table).unwrap();
        let table = sort(table.into_vec());
        let monitor = sort(crate::host::sock_diag::read_listeners(wanted).unwrap());
        assert_eq!(monitor.len(), 3);
        let open = || read_open_ports_of(&Roots::default(), std::process::id()).unwrap();
        assert!(!open().contains(&ports[0]), "a listener is no connection");
        let _client = std::net::TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        assert!(open().contains(&ports[0]) && !open().contains(&ports[1]));
        assert_eq!(table, monitor.into_iter().map(|it| Listener { reachable: false, ..it }).collect::<Vec<_>>());
    }

    #[test]
    fn other_lines_are_left_out_and_those_that_cannot_be_read_noted() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:2C88 0100007F:0001 01 0:0 0:0 0 0 0 7\n\
                     1: 0100007F:2C88 0:0 0A 0:0 0:0 0 0 0 8\nnonsense\n2: 0100007F 0:0 0A 0:0 0:0 0 0 0 9\n";
        let mut skipped = Skipped::default();
        let listeners: Vec<_> = parse_listeners(table, &mut skipped).map(|it| (it.port, it.inode)).collect();
        assert_eq!((listeners, skipped.count()), (vec![(11400, 8)], 2));
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::below(folder.path());
        fs::create_dir_all(roots.of(7).join("net")).unwrap();
        fs::write(roots.of(7).join("net/tcp"), table).unwrap();
        let (mut found, mut skipped) = (Listeners::default(), Skipped::default());
        read_listeners_of(&roots, 7, |_| true, &mut skipped, &mut found).unwrap();
        assert_eq!(found.into_vec().iter().map(|it| (it.port, it.inode)).collect::<Vec<_>>(), [(11400, 8)]);
        assert_eq!(skipped.count(), 2);
        assert_eq!(read_open_ports_of(&roots, 7).unwrap(), BTreeSet::from([11400]));
        let mut found = Listeners::default();
        assert!(read_listeners_of(&roots, 8, |_| true, &mut skipped, &mut found).is_err());
    }
}
