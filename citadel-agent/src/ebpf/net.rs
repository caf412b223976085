//! The `net` family in userspace: loads and attaches the programs, sets the ports to measure, reads the counters.
//!
//! Dropping [`Net`] detaches the programs and frees the maps, unless systemd keeps them ([`super::handover`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use aya::maps::{Array, MapData};
use aya::programs::Program;
use aya::{Btf, Ebpf, Pod};
use citadel_agent_common::abi::{
    self, ENDPOINTS, Endpoint, EndpointStats, LOST_CELLS, Lost, ModelStats, NO_SLOT, TokenStats, counter,
};
use citadel_agent_common::connection::room;
use citadel_agent_common::hist::Histogram;
use tracing::warn;

use super::endpoints::{self, Endpoints};
use super::error::{ProbeError, chain};
use super::family::{Family, Hook};
use super::handles::Handles;
use super::handover;
use super::in_flight::{self, InFlight};
use super::limit;
use super::link;
use super::mapped::{Cells, MapEntry, Mapped};
use super::object;
use super::own::{self, OwnConnections, OwnMap};
use super::readers::{self, ReaderMap, RequestReaders};
use super::records::{self, RequestRecords};
use super::shares::Shares;
use super::slots::Slots;
use super::stats::{self, RunStats};
use crate::host::kernel_types::Layout;
use crate::host::sock_diag::{self, Socket};

/// The eBPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/net.o"));

/// Tail call targets: map, index, program.
const CONTINUATIONS: [(&str, u32, &str); 4] = [
    ("INGRESS_PROGRAMS", 0, "net_ingress"),
    ("INGRESS_PROGRAMS", 1, "net_early"),
    ("EGRESS_PROGRAMS", 0, "net_egress"),
    ("EGRESS_PROGRAMS", 1, TOKENS),
];

/// The program that searches responses for their tokens. Without it, its tail call is none.
const TOKENS: &str = "net_tokens";

/// The map with the programs' variables, of which there is one: `PORT_RANGE`.
const VARIABLES: &str = ".bss";

/// The attached programs and their maps.
pub struct Net {
    handles: Handles,
    /// Programs that can be loaded later; `None` if another process loaded these.
    ebpf: Option<Ebpf>,
    /// See [`Self::identity`].
    identity: u64,
    /// Reads the programs' log as long as they are attached.
    #[cfg(feature = "bpf-log")]
    _log: Option<super::log::Forwarding>,
    /// The ports that are measured now.
    measured: BTreeSet<u16>,
    range: Array<MapData, Range>,
    ports: Array<MapData, u32>,
    /// The map of the agent's own connections, until it is passed on.
    own: Option<OwnMap>,
    /// The map of readers, until it is passed on.
    readers: Option<ReaderMap>,
    /// The maps of single requests, until they are passed on; and to whom they were.
    records: Option<records::Maps>,
    told_records: RequestRecords,
    /// The list of connections with requests in flight, if that family runs.
    in_flight: Option<Arc<InFlight>>,
    /// Why the tokens of responses are not counted.
    no_tokens: Option<String>,
    /// Usage of `readers` by model.
    reader_shares: Arc<Shares>,
    /// Receives the readers.
    told: RequestReaders,
    models: Mapped<ModelStats>,
    receive_queue: Mapped<Histogram>,
    tokens: Mapped<TokenStats>,
    endpoints: Endpoints,
    lost: Mapped<u64>,
    /// Number of sockets with state, and the limits.
    room: Cells,
    /// Connections that were open before the programs were attached.
    older: Vec<Socket>,
    /// Whether the offsets of the kernel structures that `recvq` reads were known.
    knows_types: bool,
}

/// [`abi::PortRange`] for aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Range(abi::PortRange);
// SAFETY: `repr(C)` of two u32, without padding.
unsafe impl Pod for Range {}

impl Net {
    /// Loads the programs with these slots, and attaches them to `cgroup` to measure `ports`, following at most
    /// `max_connections` connections at a time. `layout` is for [`Self::attach_receive_queue`] and [`Self::attach_in_flight`].
    ///
    /// # Errors
    /// Any step fails; then nothing stays attached.
    pub(crate) fn attach(
        cgroup: &Path,
        ports: &BTreeSet<u16>,
        slots: &Slots,
        max_connections: u64,
        layout: Option<&Layout>,
    ) -> Result<Self, ProbeError> {
        object::lift_memlock_limit();
        let directory =
            File::open(cgroup).map_err(|error| ProbeError::Cgroup { path: cgroup.display().to_string(), error })?;
        let entries = slots.capacity();
        let offsets = layout.copied().unwrap_or_default();
        let mut loader = object::loader();
        loader
            .override_global("COPIED_SEQ", &offsets.copied_seq, true)
            .override_global("LOCK_OWNED", &offsets.lock_owned, true)
            .map_max_entries("MODEL_STATS", entries)
            .map_max_entries("RECEIVE_QUEUE", entries)
            .map_max_entries("TOKEN_STATS", entries)
            .map_max_entries("RECORDED", entries)
            .map_max_entries(endpoints::MAP, entries * ENDPOINTS as u32);
        in_flight::know(&mut loader, &offsets);
        readers::SHARED.size(&mut loader, slots);
        let mut ebpf = loader.load(OBJECT)?;
        let mut handles = Handles::of(&ebpf)?;
        readers::SHARED.fill(&handles, slots)?;
        let no_tokens = load_all(|program| object::load(&mut ebpf, &mut handles, program))?;
        if let Some(error) = &no_tokens {
            warn!(error, "tokens of responses are not counted; everything else is measured");
        }
        let lacks = |name: &str| name == TOKENS && no_tokens.is_some();
        for (map, index, program) in CONTINUATIONS.into_iter().filter(|&(.., name)| !lacks(name)) {
            object::set_continuation(&mut ebpf, map, index, program)?;
        }
        #[cfg(feature = "bpf-log")]
        let log = super::log::forward(Family::Net, &mut ebpf);
        let mut net = Self::of(handles, slots, identity(cgroup, &directory))?;
        #[cfg(feature = "bpf-log")]
        {
            net._log = log;
        }
        (net.ebpf, net.knows_types, net.no_tokens) = (Some(ebpf), layout.is_some(), no_tokens);
        net.allow(max_connections);
        // Before they are attached, so that no segment is processed with an incomplete configuration.
        net.measure(ports, slots)?;
        // The callbacks count connections that open; those that are already open are listed just before.
        net.older = open_connections(|port| ports.contains(&port));
        for program in Family::Net.programs() {
            let attach_type = match program.hook {
                Hook::CgroupIngress => link::CGROUP_INGRESS,
                Hook::CgroupEgress => link::CGROUP_EGRESS,
                Hook::SockOps => link::CGROUP_SOCK_OPS,
                _ => continue,
            };
            object::attach_to_cgroup(&mut net.handles, program.name, directory.as_fd(), attach_type)?;
        }
        Ok(net)
    }

    /// The program that does not run, although the family does, and why.
    #[must_use]
    pub fn lacks(&self) -> Option<(&'static str, &str)> {
        self.no_tokens.as_deref().map(|error| (TOKENS, error))
    }

    /// Uses what another process has attached with these slots and this identity. `older`: [`Self::older`] of that process.
    ///
    /// # Errors
    /// A map is missing, or cannot be used.
    pub(super) fn take_over(
        handles: Handles,
        identity: u64,
        ports: &BTreeSet<u16>,
        slots: &Slots,
        max_connections: u64,
        older: Vec<Socket>,
    ) -> Result<Self, ProbeError> {
        let mut net = Self::of(handles, slots, identity)?;
        net.in_flight = InFlight::of(&net.handles)?;
        net.older = older;
        net.allow(max_connections);
        // Any of them may have been measured.
        net.measured = slots.ports().collect();
        net.measure(ports, slots)?;
        // The connections that the other process announced have ended with it.
        net.own.iter_mut().for_each(own::clear);
        Ok(net)
    }

    fn of(handles: Handles, slots: &Slots, identity: u64) -> Result<Self, ProbeError> {
        let entries = slots.capacity() as usize;
        Ok(Self {
            #[cfg(feature = "bpf-log")]
            _log: None,
            measured: BTreeSet::new(),
            range: object::array(&handles, VARIABLES)?,
            ports: object::array(&handles, "PORTS")?,
            own: Some(object::hash(&handles, "OWN")?),
            records: Some(records::Maps::open(&handles, slots)?),
            told_records: RequestRecords::default(),
            in_flight: None,
            // Else all programs are there.
            no_tokens: handles.program(TOKENS).is_none().then(|| "refused when the programs were loaded".to_owned()),
            reader_shares: Arc::new(readers::SHARED.open(&handles, slots)?),
            readers: Some(object::hash(&handles, readers::SHARED.name)?),
            told: RequestReaders::default(),
            models: object::map_into_memory(&handles, "MODEL_STATS", entries)?,
            endpoints: Endpoints::of(&handles, slots)?,
            receive_queue: object::map_into_memory(&handles, "RECEIVE_QUEUE", entries)?,
            tokens: object::map_into_memory(&handles, "TOKEN_STATS", entries)?,
            lost: object::map_into_memory(&handles, "LOST", LOST_CELLS)?,
            room: object::map_cells(&handles, "ROOM", room::CELLS)?,
            older: Vec::new(),
            knows_types: false,
            ebpf: None,
            identity,
            handles,
        })
    }

    /// What programs at this cgroup depend on; `None` if there is no such cgroup.
    pub(super) fn identity(cgroup: &Path) -> Option<u64> {
        Some(identity(cgroup, &File::open(cgroup).ok()?))
    }

    /// [`Self::identity`] of what is attached.
    pub(super) const fn own_identity(&self) -> u64 {
        self.identity
    }

    /// What it has in the kernel.
    pub(super) const fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Open connections that are older than the programs.
    pub(super) fn older(&self) -> &[Socket] {
        &self.older
    }

    /// Attaches the `recvq` family, which uses these programs' connections.
    ///
    /// # Errors
    /// The kernel refuses; `net` continues.
    pub fn attach_receive_queue(&mut self, btf: &Btf) -> Result<(), ProbeError> {
        let Some(ebpf) = &mut self.ebpf else { return Err(ProbeError::Needs(Family::Net.name())) };
        for program in Family::Recvq.programs() {
            if let Hook::Tracepoint(tracepoint) = program.hook {
                object::trace(ebpf, &mut self.handles, program.name, tracepoint, btf)?;
            }
        }
        Ok(())
    }

    /// Attaches the `in_flight` family, which lists these programs' connections.
    ///
    /// # Errors
    /// The kernel refuses; `net` continues.
    pub fn attach_in_flight(&mut self, btf: &Btf) -> Result<(), ProbeError> {
        let Some(ebpf) = &mut self.ebpf else { return Err(ProbeError::Needs(Family::Net.name())) };
        for program in Family::InFlight.programs() {
            if let Hook::Iterator(what) = program.hook {
                object::iterate(ebpf, &mut self.handles, program.name, what, "CONNECTIONS", btf)?;
            }
        }
        self.in_flight = InFlight::of(&self.handles)?;
        Ok(())
    }

    /// The list of connections with requests in flight, if that family runs.
    #[must_use]
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_deref()
    }

    /// Detaches the `recvq` family; `net` continues.
    pub fn detach_receive_queue(&mut self) {
        for program in Family::Recvq.programs() {
            self.handles.detach(program.name);
            if let Some(Program::BtfTracePoint(program)) =
                self.ebpf.as_mut().and_then(|ebpf| ebpf.program_mut(program.name))
            {
                // A program that was not loaded needs nothing.
                _ = program.unload();
            }
        }
    }

    /// Whether [`Self::attach_receive_queue`] can be called: this process has loaded the programs, and knew the kernel's types.
    #[must_use]
    pub const fn can_attach_receive_queue(&self) -> bool {
        self.knows_types && self.ebpf.is_some()
    }

    /// How long requests of a slot's model were in the receive queue; `None` if none was read.
    #[must_use]
    pub fn receive_queue(&self, slot: u32) -> Option<Box<Histogram>> {
        self.receive_queue.entry(slot as usize)?.histogram()
    }

    /// Tokens of a slot's model.
    #[must_use]
    pub fn tokens(&self, slot: u32) -> Option<MapEntry<'_, TokenStats>> {
        self.tokens.entry(slot as usize)
    }

    /// Registers the map of the agent's own connections, which these programs ignore.
    pub fn leave_out(&mut self, own: &OwnConnections) {
        if let Some(map) = self.own.take() {
            own.attach(map);
        }
    }

    /// Passes the processes that read requests to `readers`.
    pub fn tell_readers(&mut self, readers: &RequestReaders, slots: &Slots) {
        if let Some(map) = self.readers.take() {
            readers.attach(map, Arc::clone(&self.reader_shares), slots.clone());
            self.told = readers.clone();
        }
    }

    /// Passes the records of single requests, and the list of those in flight, to `records`.
    pub fn tell_records(&mut self, records: &RequestRecords) {
        if let Some(maps) = self.records.take() {
            records.attach(maps);
            self.told_records = records.clone();
        }
        records.list(self.in_flight.clone());
    }

    /// Number of a port's open connections that are older than the programs. Only those in the agent's own network
    /// namespace are known.
    #[must_use]
    pub fn older_connections(&self, port: u16) -> u64 {
        self.older.iter().filter(|socket| socket.local_port == port).count() as u64
    }

    /// Removes older connections that have closed; free once there are none.
    pub fn refresh_older_connections(&mut self) {
        if !self.older.is_empty() {
            let open = open_connections(|port| self.measured.contains(&port));
            self.older.retain(|socket| open.contains(socket));
        }
    }

    /// Measures exactly these ports from now on; they must have slots. Counters are kept.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn measure(&mut self, ports: &BTreeSet<u16>, slots: &Slots) -> Result<(), ProbeError> {
        let failed = |map| move |error| ProbeError::Map { map, error };
        for &port in self.measured.difference(ports) {
            self.ports.set(u32::from(port), NO_SLOT, 0).map_err(failed("PORTS"))?;
        }
        for &port in ports {
            let slot = slots.get(port).map_or(NO_SLOT, |slot| slot + 1);
            self.ports.set(u32::from(port), slot, 0).map_err(failed("PORTS"))?;
        }
        self.told.measure(slots);
        self.told_records.measure(slots);
        self.measured.clone_from(ports);
        let range = match (ports.first(), ports.last()) {
            (Some(&first), Some(&last)) => {
                abi::PortRange { first: u32::from(first), span: u32::from(last) - u32::from(first) }
            }
            // No port at all: a range that matches no packet.
            _ => abi::PortRange { first: 0, span: 0 },
        };
        self.range.set(0, Range(range), 0).map_err(failed(VARIABLES))
    }

    /// Sets the maximum number of followed connections; those already followed are kept.
    pub fn allow(&self, max_connections: u64) {
        self.room.cell(room::MAX_FOLLOWED as usize).store(max_connections, Relaxed);
        self.room.cell(room::MAX_NOTED as usize).store(max_connections * limit::NOTES, Relaxed);
    }

    /// The counters of a slot's model.
    #[must_use]
    pub fn model(&self, slot: u32) -> Option<MapEntry<'_, ModelStats>> {
        self.models.entry(slot as usize)
    }

    /// The counters of those of its endpoints that were requested.
    ///
    /// # Errors
    /// The kernel refuses to map the entries.
    pub fn endpoints(
        &mut self,
        slot: u32,
    ) -> Result<impl Iterator<Item = (Endpoint, MapEntry<'_, EndpointStats>)>, ProbeError> {
        let (models, slot) = (&self.models, slot as usize);
        let begun = move || models.entry(slot).map_or(0, |stats| stats.counter(counter::BEGUN));
        self.endpoints.requested(slot, begun)
    }

    /// Number of events that could not be measured, by reason.
    pub fn lost(&self) -> impl Iterator<Item = (Lost, u64)> {
        Lost::ALL.into_iter().map(|why| (why, self.lost.first_word(why as usize)))
    }

    /// Entries in use and capacity of the maps that can be full.
    #[must_use]
    pub fn fill(&self) -> [(&'static str, u64, u64); 3] {
        let (readers, most_readers) = self.reader_shares.fill();
        let sockets = |name, used, most| {
            // Briefly negative when two CPUs free the same entry.
            let [used, most] = [used, most].map(|cell: u32| self.room.cell(cell as usize).load(Relaxed));
            (name, used.cast_signed().max(0).cast_unsigned(), most)
        };
        [
            ("readers", readers, most_readers),
            sockets("connections", room::FOLLOWED, room::MAX_FOLLOWED),
            sockets("idle_connections", room::NOTED, room::MAX_NOTED),
        ]
    }

    /// What did not fit, by slot and reason.
    pub fn refused(&self) -> impl Iterator<Item = (u32, Lost, u64)> {
        self.reader_shares.refused().into_iter().map(|(slot, count)| (slot, Lost::ReadersFull, count))
    }

    /// What the verifier followed of each program, those of the families in the same object included.
    pub fn verified(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.each_program(stats::verified)
    }

    /// Run time of each program, if the kernel records it.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        self.each_program(stats::read)
    }

    fn each_program<T>(&self, read: fn(BorrowedFd<'_>) -> Option<T>) -> impl Iterator<Item = (&'static str, T)> {
        let families = [Family::Net, Family::Recvq, Family::InFlight].into_iter();
        families.flat_map(move |family| stats::each(&self.handles, family, read))
    }
}

/// The open connections on measured ports. Without them, older connections are missing from `connections_open`.
fn open_connections(measured: impl Fn(u16) -> bool) -> Vec<Socket> {
    sock_diag::read_open_connections(measured).unwrap_or_else(|error| {
        warn!(%error, "cannot list sockets; connections older than the agent are missing from citadel_model_connections_open");
        Vec::new()
    })
}

/// A cgroup that was made again under the same path is another one, to which old programs are not attached.
fn identity(path: &Path, cgroup: &File) -> u64 {
    handover::identity(OBJECT, (path, cgroup.metadata().map_or(0, |metadata| metadata.ino())))
}

/// Loads each of the programs. Returns why [`TOKENS`] was refused, if it was.
///
/// # Errors
/// Another one is refused: without it, what is measured would be wrong.
fn load_all(mut load: impl FnMut(&'static str) -> Result<(), ProbeError>) -> Result<Option<String>, ProbeError> {
    let mut no_tokens = None;
    for program in Family::Net.programs() {
        match load(program.name) {
            Err(error) if program.name == TOKENS => no_tokens = Some(chain(&error)),
            loaded => loaded?,
        }
    }
    Ok(no_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_alone_can_be_done_without() {
        let refusing = |refused: &'static str| {
            let mut tried = Vec::new();
            let result = load_all(|program| {
                tried.push(program);
                let error = || ProbeError::Program { program, error: "too large".to_owned() };
                if program == refused { Err(error()) } else { Ok(()) }
            });
            (result.map_err(|error| error.to_string()), tried.len())
        };
        let all = Family::Net.programs().len();
        assert_eq!(refusing("none"), (Ok(None), all));
        assert_eq!(refusing(TOKENS), (Ok(Some("the kernel refused net_tokens: too large".to_owned())), all));
        assert_eq!(refusing("net_ingress").0, Err("the kernel refused net_ingress: too large".to_owned()));
    }
}
