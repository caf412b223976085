//! The processes that read the models' requests, as recorded by the `recvq` program: discovery attributes them to the
//! models.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use citadel_agent_common::abi::{self, ReadAt};
use citadel_agent_common::shares::READERS;

use super::shares::{SharedMap, Shares};
use super::slots::Slots;
use crate::discovery::readers::{NotedReaders, Reader};

/// The map that the program writes, shared by the models.
pub(super) const SHARED: SharedMap = SharedMap { name: "READERS", held: "READERS_HELD", sharing: READERS };

/// The map in userspace.
pub(super) type ReaderMap = HashMap<MapData, u64, Noted>;

/// [`ReadAt`] for aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Noted(ReadAt);
// SAFETY: `repr(C)` of integers, without padding.
unsafe impl Pod for Noted {}

/// Gives access to the programs' records. Clones share the map; without a map, there are none.
#[derive(Clone, Default)]
pub struct RequestReaders {
    attached: Arc<Mutex<Option<Attached>>>,
}

struct Attached {
    map: ReaderMap,
    shares: Arc<Shares>,
    slots: Slots,
}

impl std::fmt::Debug for RequestReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestReaders").field("attached", &self.attached().is_some()).finish()
    }
}

impl NotedReaders for RequestReaders {
    fn all(&self) -> Vec<Reader> {
        let attached = self.attached();
        let Some(Attached { map, slots, .. }) = attached.as_ref() else { return Vec::new() };
        let ports: BTreeMap<u32, u16> = slots.ports().filter_map(|port| Some((slots.get(port)?, port))).collect();
        // An unreadable entry is skipped: the next pass looks for its process again.
        let entries = map.iter().flatten();
        let reader = |(key, Noted(read))| {
            let (slot, pid) = abi::reader(key);
            Some(Reader { port: *ports.get(&slot)?, pid, read_ns: read.ns })
        };
        entries.filter_map(reader).collect()
    }

    fn forget(&self, gone: &[Reader]) {
        if let Some(Attached { map, shares, slots }) = self.attached().as_mut() {
            for reader in gone {
                let Some(key) = slots.get(reader.port).map(|slot| abi::reader_key(slot, reader.pid)) else { continue };
                // It may be gone together with the programs that recorded it.
                if let Ok(Noted(read)) = map.get(&key, 0)
                    && map.remove(&key).is_ok()
                {
                    shares.give(read.owner);
                }
            }
        }
    }
}

impl RequestReaders {
    /// Reads from these programs from now on.
    pub(super) fn attach(&self, map: ReaderMap, shares: Arc<Shares>, slots: Slots) {
        *self.attached() = Some(Attached { map, shares, slots });
    }

    /// Updates the slots.
    pub(super) fn measure(&self, slots: &Slots) {
        if let Some(attached) = self.attached().as_mut() {
            attached.slots.clone_from(slots);
        }
    }

    fn attached(&self) -> MutexGuard<'_, Option<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
