//! Hands the kernel programs over to the next process of the service, by systemd's file descriptor store: it has their maps, programs
//! and links, and a file in memory that says what belongs to what. The programs go on counting between the processes.
//!
//! A change is made in the order: the file without what changes, the descriptors, the file with it. Whenever a process ends, what
//! the file names is whole; what it does not name is dropped by the next process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::handles::Handles;
use super::slots::Slots;
use crate::fd_store::FdStore;
use crate::host::sock_diag::Socket;

/// What the next process needs to know.
#[derive(Serialize, Deserialize, Clone, Default, Debug)]
pub(super) struct State {
    /// Boot time by the clock of then, in seconds since 1970: times are shifted where the clock was set since.
    pub(super) boot: u64,
    /// The slots of all objects.
    pub(super) slots: Slots,
    /// By name of the object.
    pub(super) objects: BTreeMap<String, Part>,
}

/// An object that is attached.
#[derive(Serialize, Deserialize, Clone, Default, Debug)]
pub(super) struct Part {
    /// [`identity`] of what was loaded.
    pub(super) identity: u64,
    /// When it started to count, in seconds since 1970.
    pub(super) began: f64,
    /// Names of all its descriptors.
    names: BTreeSet<String>,
    /// Connections that were open before `net` was attached.
    #[serde(default)]
    pub(super) older: Vec<Socket>,
}

impl Part {
    /// One of whose descriptors nothing is known yet.
    pub(super) const fn new(identity: u64, began: f64, older: Vec<Socket>) -> Self {
        Self { identity, began, names: BTreeSet::new(), older }
    }
}

/// Name of the file's descriptor.
const FILE: &str = "state";

/// Most bytes of the file that are read: 65,536 ports and as many connections are less.
const MOST: u64 = 16 << 20;

/// An object's code together with what it depends on. Two processes with equal ones can use each other's maps.
pub(super) fn identity(object: &[u8], depends_on: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    depends_on.hash(&mut hasher);
    hasher.finish()
}

/// What the process before this one has left.
#[derive(Debug, Default)]
pub(super) struct Left {
    state: State,
    descriptors: BTreeMap<String, OwnedFd>,
}

/// What systemd keeps for the next process. The default one keeps nothing.
#[derive(Debug, Default)]
pub struct Handover {
    store: FdStore,
    file: Option<File>,
    /// The objects in the store: [`Handles::id`] and names.
    kept: BTreeMap<String, (u64, BTreeSet<String>)>,
    left: Left,
}

impl Handover {
    /// Opens systemd's store for this process; see [`FdStore::open`].
    #[must_use]
    pub fn open() -> Self {
        let (store, mut descriptors) = FdStore::open();
        let mut file = descriptors.remove(FILE).map(File::from);
        let state = match file.as_mut().map(read) {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                warn!(%error, "cannot take over the kernel programs of the process before; counters start from 0");
                State::default()
            }
            None => State::default(),
        };
        Self { store, file, kept: BTreeMap::new(), left: Left { state, descriptors } }
    }

    /// Whether anything is kept.
    pub(super) const fn is_open(&self) -> bool {
        self.store.is_open()
    }

    /// What the process before says about itself.
    pub(super) const fn state(&self) -> &State {
        &self.left.state
    }

    /// An object that the process before has left whole.
    pub(super) fn take(&mut self, object: &str) -> Option<Handles> {
        let names = &self.left.state.objects.get(object)?.names;
        let stored = |name: &String| format!("{object}.{name}");
        if !names.iter().all(|name| self.left.descriptors.contains_key(&stored(name))) {
            return None;
        }
        let names = names.clone();
        let found = names.iter().filter_map(|name| Some((name.clone(), self.left.descriptors.remove(&stored(name))?)));
        let handles = Handles::from_names(found.collect());
        self.kept.insert(object.to_owned(), (handles.id(), names));
        Some(handles)
    }

    /// Gives an object back that cannot be used: it stays attached until [`Self::update`].
    pub(super) fn give_back(&mut self, object: &str, handles: Handles) {
        self.kept.remove(object);
        self.left.descriptors.extend(handles.into_names().map(|(name, fd)| (format!("{object}.{name}"), fd)));
    }

    /// Notes new slots, before the programs use them.
    pub(super) fn note_slots(&mut self, slots: &Slots) {
        let Some(file) = &self.file else { return };
        self.left.state.slots.clone_from(slots);
        write(file, &self.left.state);
    }

    /// Keeps exactly these objects from now on, each with its part of `state`, whose names are filled in.
    pub(super) fn update(&mut self, mut state: State, objects: &BTreeMap<&str, &Handles>) {
        if !self.store.is_open() {
            return;
        }
        let mut wanted = BTreeMap::new();
        for (&object, handles) in objects {
            let names: BTreeSet<String> = handles.all().map(|(name, _)| name.to_owned()).collect();
            if let Some(part) = state.objects.get_mut(object) {
                part.names.clone_from(&names);
            }
            wanted.insert(object.to_owned(), (handles.id(), names));
        }
        if self.file.is_none() {
            self.file = memfd_create("citadel-agent", MemfdFlags::CLOEXEC).map(File::from).ok();
        }
        let Some(file) = &self.file else { return };
        let mut unchanged = state.clone();
        unchanged.objects.retain(|object, _| self.kept.get(object) == wanted.get(object));
        write(file, &unchanged);
        let same = |object: &str| wanted.get(object).map(|(id, _)| id) == self.kept.get(object).map(|(id, _)| id);
        let stays = |stored: &str| {
            stored == FILE
                || stored.split_once('.').is_some_and(|(object, name)| {
                    same(object) && wanted.get(object).is_some_and(|(_, names)| names.contains(name))
                })
        };
        let gone: Vec<_> = self.store.names().filter(|stored| !stays(stored)).map(str::to_owned).collect();
        gone.iter().for_each(|gone| self.store.remove(gone));
        let there: BTreeSet<_> = self.store.names().map(str::to_owned).collect();
        for (&object, handles) in objects {
            for (of, descriptor) in handles.all() {
                let name = format!("{object}.{of}");
                if !there.contains(&name) {
                    self.store.keep(&name, &descriptor);
                }
            }
        }
        if !there.contains(FILE) {
            self.store.keep(FILE, file);
        }
        write(file, &state);
        // Closes what was not taken over, now that its successor is attached.
        self.left = Left { state, descriptors: BTreeMap::new() };
        self.kept = wanted;
    }
}

/// Reads the file: a checksum, then JSON.
fn read(file: &mut File) -> io::Result<State> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MOST).read_to_end(&mut bytes)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the state is damaged");
    let (sum, text) = bytes.split_first_chunk().ok_or_else(damaged)?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(text) {
        return Err(damaged());
    }
    serde_json::from_slice(text).map_err(io::Error::other)
}

/// Writes it; one that cannot be written is not taken over.
fn write(file: &File, state: &State) {
    let text = serde_json::to_vec(state).unwrap_or_default();
    let bytes = [&crc32fast::hash(&text).to_le_bytes()[..], &text].concat();
    if let Err(error) = file.set_len(0).and_then(|()| file.write_all_at(&bytes, 0)) {
        warn!(%error, "cannot note the kernel programs for the next process; a restart loses counts");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_or_not_at_all() {
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        let slots = Slots::of(&[11400, 11500].into());
        let part = Part { identity: u64::MAX, began: 1.5, names: ["map.A".to_owned()].into(), older: Vec::new() };
        let state = State { boot: 7, slots, objects: [("net".to_owned(), part)].into() };
        write(&file, &state);
        let read_back = read(&mut file).unwrap();
        assert_eq!(format!("{read_back:?}"), format!("{state:?}"));
        // A shorter one leaves nothing of the longer one behind.
        write(&file, &State::default());
        assert_eq!(read(&mut file).unwrap().objects.len(), 0);
        for at in 0..file.metadata().unwrap().len() {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(read(&mut file).is_err(), "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.set_len(3).unwrap();
        assert!(read(&mut file).is_err());
    }

    #[test]
    fn another_object_or_another_dependency_is_another_identity() {
        let same = identity(b"code", ("path", 1));
        assert_eq!(same, identity(b"code", ("path", 1)));
        assert_ne!(same, identity(b"c0de", ("path", 1)));
        assert_ne!(same, identity(b"code", ("path", 2)));
    }
}
