//! Finds the processes that hold a listening socket, by the links in `/proc/PID/fd`.
//!
//! The scan costs a system call per open file of the host, so it is limited to what can have changed: a process is
//! examined when it is new, all are when a socket is new or has lost its last holder, and known results are verified by
//! reading one link. This misses a socket that is passed to a process which has existed for some time, until its old
//! holder closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use super::table::Table;
use crate::host::Roots;
use crate::host::pid::{Pid, Process};

/// Maximum number of links read in one search: about half a second. The next search continues where it stopped.
const MAX_LINKS: usize = 300_000;

/// Maximum number of links of one process. Listening sockets are opened early and so have low numbers; the kernel lists
/// those first.
const MAX_LINKS_OF_ONE: usize = 1 << 16;

/// Maximum number of (socket, process) pairs kept.
const MAX_HOLDS: usize = 1 << 16;

/// The known holders of each socket.
#[derive(Debug, Default)]
pub struct Holders {
    held: BTreeMap<u32, Vec<Hold>>,
    looked_at: BTreeSet<Process>,
    /// Where the last search stopped.
    resume: Pid,
}

/// A process, and its file descriptor of the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    process: Process,
    fd: u32,
}

/// What a search could not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Blind {
    /// Processes whose files are not accessible.
    pub refused: usize,
    /// The host has more open files than one search examines, or the sockets have more holders than are kept.
    pub too_many: bool,
}

impl Holders {
    /// Finds the holders of these sockets, by inode.
    pub fn find(&mut self, roots: &Roots, table: &Table, inodes: &BTreeSet<u32>) -> Blind {
        let any_new = inodes.iter().any(|inode| !self.held.contains_key(inode));
        self.held.retain(|inode, _| inodes.contains(inode));
        for (inode, holds) in &mut self.held {
            holds.retain(|hold| table.lives(hold.process) && links_to(roots, hold) == Some(*inode));
        }
        for &inode in inodes {
            self.held.entry(inode).or_default();
        }
        let orphaned = self.held.values().any(Vec::is_empty);
        if any_new || orphaned {
            self.looked_at.clear();
        }
        self.looked_at.retain(|&process| table.lives(process));
        let holds = self.held.values().map(Vec::len).sum();
        let mut search = Search { roots, held: &mut self.held, holds, links: 0, blind: Blind::default() };
        for process in table.processes_from(self.resume) {
            if self.looked_at.contains(&process) {
                continue;
            }
            if search.links >= MAX_LINKS {
                search.blind.too_many = true;
                self.resume = process.pid;
                break;
            }
            search.look_at(process);
            self.looked_at.insert(process);
        }
        search.blind
    }

    /// The processes that hold a socket.
    pub fn of(&self, inode: u32) -> impl Iterator<Item = Process> {
        self.held.get(&inode).into_iter().flatten().map(|hold| hold.process)
    }
}

/// A search in progress.
struct Search<'a> {
    roots: &'a Roots,
    held: &'a mut BTreeMap<u32, Vec<Hold>>,
    /// Total number of holds.
    holds: usize,
    links: usize,
    blind: Blind,
}

impl Search<'_> {
    fn look_at(&mut self, process: Process) {
        let files = match fs::read_dir(self.roots.of(process.pid).join("fd")) {
            Ok(files) => files,
            Err(error) => {
                // Any other error means that it has exited.
                self.blind.refused += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                return;
            }
        };
        let mut refused = false;
        for (number, file) in files.flatten().enumerate() {
            if number == MAX_LINKS_OF_ONE {
                self.blind.too_many = true;
                break;
            }
            self.links += 1;
            let Some(fd) = file.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(file.path()) {
                Ok(link) => self.found(socket(&link), Hold { process, fd }),
                Err(error) => refused |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        self.blind.refused += usize::from(refused);
    }

    /// Records a hold of a wanted socket; duplicates within a process are ignored.
    fn found(&mut self, inode: Option<u32>, hold: Hold) {
        let Some(holds) = inode.and_then(|inode| self.held.get_mut(&inode)) else { return };
        // Files of one process are consecutive, but an earlier search may have found it too.
        if holds.iter().rev().any(|known| known.process == hold.process) {
            return;
        }
        if self.holds == MAX_HOLDS {
            self.blind.too_many = true;
            return;
        }
        holds.push(hold);
        self.holds += 1;
    }
}

/// The inode of the socket that the process has open there now.
fn links_to(roots: &Roots, hold: &Hold) -> Option<u32> {
    socket(&fs::read_link(roots.of(hold.process.pid).join("fd").join(hold.fd.to_string())).ok()?)
}

/// The inode in `socket:[INODE]`.
fn socket(link: &std::path::Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
