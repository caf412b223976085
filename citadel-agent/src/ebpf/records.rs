//! Records of single requests, as the `net` programs write them into a ring buffer.

use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, MapData, RingBuf};
use citadel_agent_common::abi::{LOST_CELLS, Lost};
use citadel_agent_common::trace::{Record, Recorded, Tracing};
use tracing::warn;

use super::error::ProbeError;
use super::handles::Handles;
use super::in_flight::{InFlight, InFlightRequest};
use super::mapped::{Cells, Mapped};
use super::object;
use super::slots::Slots;

/// The map with the variable that says whether details are collected.
const TRACING: &str = ".data.tracing";

/// Requests of a model that are recorded between two looks while nobody traces.
pub const FEW: u64 = 64;

/// Words of an entry of `RECORDED`.
const WORDS: usize = size_of::<Recorded>() / size_of::<u64>();

/// The programs' maps.
pub(super) struct Maps {
    ring: RingBuf<MapData>,
    recorded: Cells,
    tracing: Array<MapData, Tracing>,
    lost: Mapped<u64>,
    ports: BTreeMap<u32, u16>,
    /// What was lost with programs before these.
    lost_before: u64,
    /// The list of connections with requests in flight, if that family runs.
    in_flight: Option<Arc<InFlight>>,
}

impl Maps {
    pub(super) fn open(handles: &Handles, slots: &Slots) -> Result<Self, ProbeError> {
        let recorded = object::map_cells(handles, "RECORDED", slots.capacity() as usize * WORDS)?;
        // From the first one on.
        (0..slots.capacity() as usize).for_each(|slot| recorded.cell(slot * WORDS + 1).store(FEW, Relaxed));
        let mut tracing: Array<_, Tracing> = object::array(handles, TRACING)?;
        // An agent before this one may have ended while somebody traced.
        tracing.set(0, 0, 0).map_err(|error| ProbeError::Map { map: TRACING, error })?;
        Ok(Self {
            ring: object::ring(handles, "TRACE")?,
            recorded,
            tracing,
            lost: object::map_into_memory(handles, "LOST", LOST_CELLS)?,
            ports: ports(slots),
            lost_before: 0,
            in_flight: None,
        })
    }

    fn lost(&self) -> u64 {
        self.lost_before + self.lost.first_word(Lost::TraceFull as usize)
    }
}

fn ports(slots: &Slots) -> BTreeMap<u32, u16> {
    slots.ports().filter_map(|port| Some((slots.get(port)?, port))).collect()
}

/// Gives access to the records. Clones share the maps; without maps, there are none.
#[derive(Clone, Default)]
pub struct RequestRecords {
    maps: Arc<Mutex<Option<Maps>>>,
}

impl std::fmt::Debug for RequestRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestRecords").field("attached", &self.are_attached()).finish()
    }
}

impl RequestRecords {
    /// Reads from these programs from now on.
    pub(super) fn attach(&self, mut maps: Maps) {
        let mut place = self.maps();
        maps.lost_before = place.as_ref().map_or(0, Maps::lost);
        *place = Some(maps);
    }

    /// Updates the slots.
    pub(super) fn measure(&self, slots: &Slots) {
        if let Some(maps) = self.maps().as_mut() {
            maps.ports = ports(slots);
        }
    }

    /// Lists requests in flight through this from now on.
    pub(super) fn list(&self, in_flight: Option<Arc<InFlight>>) {
        if let Some(maps) = self.maps().as_mut() {
            maps.in_flight = in_flight;
        }
    }

    /// Reads all requests in flight from the kernel: calls `each` with the port of its model. `None` if the kernel cannot list them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn running(&self, mut each: impl FnMut(u16, &InFlightRequest)) -> Option<io::Result<()>> {
        // Nothing else waits while the kernel goes through its connections.
        let (in_flight, ports) = {
            let maps = self.maps();
            let maps = maps.as_ref()?;
            (maps.in_flight.clone()?, maps.ports.clone())
        };
        Some(in_flight.requests(|slot, request| {
            if let Some(&port) = ports.get(&slot) {
                each(port, request);
            }
        }))
    }

    /// Whether there are programs that record.
    #[must_use]
    pub fn are_attached(&self) -> bool {
        self.maps().is_some()
    }

    /// The measured ports.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.maps().iter().flat_map(|maps| maps.ports.values().copied()).collect()
    }

    /// Takes the records out of the ring buffer, each with the port of its model.
    pub fn take(&self, mut each: impl FnMut(u16, Record)) {
        let mut maps = self.maps();
        let Some(Maps { ring, ports, .. }) = maps.as_mut() else { return };
        while let Some(bytes) = ring.next() {
            if bytes.len() < size_of::<Record>() {
                continue;
            }
            // SAFETY: the length is that of a record, which consists of integers only.
            let record = unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() };
            if let Some(&port) = ports.get(&record.slot) {
                each(port, record);
            }
        }
    }

    /// Records a port's requests that take at least `from_ns` nanoseconds or fail, `most` at most until the next call.
    pub fn record(&self, port: u16, from_ns: u64, most: u64) {
        let maps = self.maps();
        let Some(maps) = maps.as_ref() else { return };
        for (&slot, _) in maps.ports.iter().filter(|&(_, &measured)| measured == port) {
            maps.recorded.cell(slot as usize * WORDS).store(from_ns, Relaxed);
            maps.recorded.cell(slot as usize * WORDS + 1).store(most, Relaxed);
        }
    }

    /// Collects details of requests, if `tracing` is not 0: of those that begin from now on.
    pub fn collect_details(&self, tracing: Tracing) {
        if let Some(maps) = self.maps().as_mut()
            && let Err(error) = maps.tracing.set(0, tracing, 0)
        {
            warn!(%error, "cannot change whether details of requests are collected");
        }
    }

    /// Number of requests that could not be recorded, because the ring buffer was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.maps().as_ref().map_or(0, Maps::lost)
    }

    fn maps(&self) -> MutexGuard<'_, Option<Maps>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
