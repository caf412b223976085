//! Listening socket -> the processes that hold it, by the links in `/proc/PID/fd`.
//!
//! The scan costs a system call for each open file of the host, so it is done for what can have changed: a process is
//! looked at when it is new, all are when a socket is new or has lost its last holder, and what is known is checked by
//! reading one link. What that misses: a socket that is handed to a process which has long been there, until its old
//! holder closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use super::table::Table;
use crate::host::Roots;
use crate::host::pid::{Pid, Process};

/// Most links that one search reads: about half a second. The next search goes on where it stopped.
const MAX_LINKS: usize = 300_000;

/// Most links of one process. Listening sockets are opened early and so have low numbers; the kernel lists those first.
const MAX_LINKS_OF_ONE: usize = 1 << 16;

/// Most pairs of a socket and a process that are kept.
const MAX_HOLDS: usize = 1 << 16;

/// Who holds which socket; remembers what it has found.
#[derive(Debug, Default)]
pub struct Holders {
    held: BTreeMap<u32, Vec<Hold>>,
    looked_at: BTreeSet<Process>,
    /// The process that the last search did not come to.
    resume: Pid,
}

/// A process, and under which number it has the socket open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    process: Process,
    fd: u32,
}

/// What a search could not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Blind {
    /// Processes whose files the agent may not see.
    pub refused: usize,
    /// More files are open on this host than one search looks at, or more processes hold the sockets than are kept.
    pub too_many: bool,
}

impl Holders {
    /// Finds the holders of these sockets, by inode number.
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

/// A search that is under way.
struct Search<'a> {
    roots: &'a Roots,
    held: &'a mut BTreeMap<u32, Vec<Hold>>,
    /// How many there are in all.
    holds: usize,
    links: usize,
    blind: Blind,
}

impl Search<'_> {
    fn look_at(&mut self, process: Process) {
        let files = match fs::read_dir(self.roots.of(process.pid).join("fd")) {
            Ok(files) => files,
            Err(error) => {
                // Any other error: it has ended.
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

    /// Notes a hold of a wanted socket; a process that has it open several times holds it once.
    fn found(&mut self, inode: Option<u32>, hold: Hold) {
        let Some(holds) = inode.and_then(|inode| self.held.get_mut(&inode)) else { return };
        // Files of one process come one after the other, but an earlier search may have found it as well.
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

/// The inode of the socket that a process has open there now.
fn links_to(roots: &Roots, hold: &Hold) -> Option<u32> {
    socket(&fs::read_link(roots.of(hold.process.pid).join("fd").join(hold.fd.to_string())).ok()?)
}

/// The inode in `socket:[INODE]`.
fn socket(link: &std::path::Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
