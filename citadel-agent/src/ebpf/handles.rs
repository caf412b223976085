//! What an object has in the kernel: descriptors of its maps, programs and links, which this process created or took over from the
//! one before it. Closing them frees everything, unless systemd's file descriptor store has them too.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::Map;

use super::error::ProbeError;

/// The descriptors of an object, by name.
#[derive(Debug)]
pub(super) struct Handles {
    /// Tells apart the objects of a process.
    id: u64,
    by_name: BTreeMap<String, OwnedFd>,
}

impl Handles {
    /// The maps of an object whose programs are not loaded yet.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, ProbeError> {
        let mut handles = Self::from_names(BTreeMap::new());
        for (name, map) in ebpf.maps() {
            let (Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::ProgramArray(data)
            | Map::HashMap(data)
            | Map::PerCpuHashMap(data)
            | Map::LruHashMap(data)
            | Map::RingBuf(data)
            | Map::SkStorage(data)) = map
            else {
                return Err(ProbeError::UnknownMap(name.to_owned()));
            };
            handles.add(format!("map.{name}"), data.fd().as_fd().try_clone_to_owned()?);
        }
        Ok(handles)
    }

    /// Those with these names.
    pub(super) fn from_names(by_name: BTreeMap<String, OwnedFd>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), by_name }
    }

    /// A number that no other object of this process has.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// All descriptors, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.by_name.iter().map(|(name, descriptor)| (name.as_str(), descriptor.as_fd()))
    }

    /// A map.
    ///
    /// # Errors
    /// There is no such map.
    pub(super) fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, ProbeError> {
        self.get("map", name).ok_or(ProbeError::Missing(name))
    }

    /// A loaded program.
    pub(super) fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.get("program", name)
    }

    /// The link of an attached program.
    pub(super) fn link(&self, program: &str) -> Option<BorrowedFd<'_>> {
        self.get("link", program)
    }

    /// Adds a loaded program.
    pub(super) fn loaded(&mut self, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
        self.add(format!("program.{name}"), program.try_clone_to_owned()?);
        Ok(())
    }

    /// Adds the link of an attached program.
    pub(super) fn attached(&mut self, program: &str, link: OwnedFd) {
        self.add(format!("link.{program}"), link);
    }

    /// Detaches a program and forgets it.
    pub(super) fn detach(&mut self, program: &str) {
        for kind in ["link", "program"] {
            self.by_name.remove(&format!("{kind}.{program}"));
        }
    }

    /// The descriptors, by name.
    pub(super) fn into_names(self) -> impl Iterator<Item = (String, OwnedFd)> {
        self.by_name.into_iter()
    }

    fn add(&mut self, name: String, descriptor: OwnedFd) {
        self.by_name.insert(name, descriptor);
    }

    fn get(&self, kind: &str, name: &str) -> Option<BorrowedFd<'_>> {
        self.by_name.get(&format!("{kind}.{name}")).map(AsFd::as_fd)
    }
}
