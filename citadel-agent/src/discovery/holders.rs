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
use crate::host::pid::Process;

/// Most links that one search reads: about half a second.
const MAX_LINKS: usize = 300_000;

/// Who holds which socket; remembers what it has found.
#[derive(Debug, Default)]
pub struct Holders {
    held: BTreeMap<u32, Vec<Hold>>,
    looked_at: BTreeSet<Process>,
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
    /// More files are open on this host than one search looks at.
    pub too_many: bool,
}

impl Holders {
    /// Finds the holders of these sockets, by inode number.
    pub fn find(&mut self, roots: &Roots, table: &Table, inodes: &BTreeSet<u32>) -> Blind {
        let mut search = Search { roots, inodes, links: 0, blind: Blind::default(), found: Vec::new() };
        let any_new = inodes.iter().any(|inode| !self.held.contains_key(inode));
        self.held.retain(|inode, _| inodes.contains(inode));
        for (inode, holds) in &mut self.held {
            holds.retain(|hold| table.lives(hold.process) && links_to(roots, hold) == Some(*inode));
        }
        let orphaned = inodes.iter().any(|inode| self.held.get(inode).is_none_or(Vec::is_empty));
        for process in table.processes() {
            if any_new || orphaned || !self.looked_at.contains(&process) {
                search.look_at(process);
            }
        }
        let Search { found, blind, .. } = search;
        for &inode in inodes {
            self.held.entry(inode).or_default();
        }
        for (inode, hold) in found {
            let holds = self.held.entry(inode).or_default();
            if !holds.iter().any(|known| known.process == hold.process) {
                holds.push(hold);
            }
        }
        self.looked_at = table.processes().collect();
        blind
    }

    /// The processes that hold a socket.
    pub fn of(&self, inode: u32) -> impl Iterator<Item = Process> {
        self.held.get(&inode).into_iter().flatten().map(|hold| hold.process)
    }
}

/// A search that is under way.
struct Search<'a> {
    roots: &'a Roots,
    inodes: &'a BTreeSet<u32>,
    links: usize,
    blind: Blind,
    found: Vec<(u32, Hold)>,
}

impl Search<'_> {
    fn look_at(&mut self, process: Process) {
        if self.links >= MAX_LINKS {
            self.blind.too_many = true;
            return;
        }
        let files = match fs::read_dir(self.roots.of(process.pid).join("fd")) {
            Ok(files) => files,
            Err(error) => {
                // Any other error: it has ended.
                self.blind.refused += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                return;
            }
        };
        let mut refused = false;
        for file in files.flatten() {
            self.links += 1;
            let Some(fd) = file.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(file.path()) {
                Ok(link) => {
                    if let Some(inode) = socket(&link).filter(|inode| self.inodes.contains(inode)) {
                        self.found.push((inode, Hold { process, fd }));
                    }
                }
                Err(error) => refused |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        self.blind.refused += usize::from(refused);
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
