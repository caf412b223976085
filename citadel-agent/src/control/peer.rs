//! The peer of a connection, and what it is allowed to do.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::net::UnixStream;

use super::{GROUP, Order};

/// The list of groups. No other source is used: the package creates the group in this file, and other sources may be
/// slow.
const GROUPS: &str = "/etc/group";

/// Maximum number of groups of a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

/// What a peer is allowed to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rights {
    /// Everything: root and the agent's own user.
    All,
    /// Orders that change nothing: members of the group.
    Read,
}

impl Rights {
    pub(super) fn allow(self, order: &Order) -> bool {
        self == Self::All || !order.changes()
    }
}

/// What the peer is allowed to do.
///
/// # Errors
/// Nothing is allowed (`PermissionDenied`), or the kernel does not identify the peer.
pub(super) fn rights(stream: &UnixStream, group: Option<u32>) -> io::Result<Rights> {
    let peer = stream.peer_cred()?;
    if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() {
        return Ok(Rights::All);
    }
    match group {
        Some(group) if peer.gid() == group || groups(stream)?.contains(&group) => Ok(Rights::Read),
        _ => Err(io::Error::new(ErrorKind::PermissionDenied, format!("permission denied for user {}", peer.uid()))),
    }
}

/// The peer's supplementary groups at the time it connected.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes into the vector, which has that size, and the number written
        // into `bytes`; both outlive the call, and any bits are a valid number.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too many for the vector: the kernel has returned their number.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > MAX_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// ID of the group, if this host has it.
pub(super) fn group() -> Option<u32> {
    const MAX_BYTES: u64 = 16 << 20;
    let path = Path::new(GROUPS);
    // A file of this size is not a list of groups.
    let listed = fs::metadata(path).is_ok_and(|file| file.size() <= MAX_BYTES);
    listed.then(|| fs::read_to_string(path).ok()).flatten().and_then(|text| number(&text))
}

fn number(groups: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == GROUP).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_by_its_name() {
        assert_eq!(number("root:x:0:\ncitadel-agents:x:7:\ncitadel-agent:x:990:anna,ben\n"), Some(990));
        assert_eq!(number("root:x:0:\n#citadel-agent\ncitadel-agent\n"), None);
    }

    #[test]
    fn members_of_the_group_may_read_only() {
        let history = Order::History { subject: None, from_ms: 0, to_ms: 1, step_ms: None };
        assert!(Rights::Read.allow(&history) && Rights::All.allow(&history));
        for order in [Order::Reload {}, Order::GpuResume {}, Order::GpuRelease { seconds: 1 }] {
            assert!(!Rights::Read.allow(&order) && Rights::All.allow(&order), "{order:?}");
        }
    }

    #[tokio::test]
    async fn who_runs_the_agent_may_ask_anything_and_groups_are_those_of_the_process() {
        let (stream, _other) = UnixStream::pair().unwrap();
        assert_eq!(rights(&stream, None).unwrap(), Rights::All);
        let mut found = groups(&stream).unwrap();
        let mut own: Vec<_> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }
}
