//! The `net` family in userspace: loads and attaches the programs, tells them which ports to measure, reads what they
//! counted.
//!
//! Dropping [`Net`] detaches the programs and frees the maps: nothing is pinned.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, MapError, ProgramArray};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, SockOps};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel};
use citadel_agent_common::abi::{self, ENDPOINTS, Endpoint, EndpointStats, LOST_CELLS, Lost, ModelStats, NO_SLOT};
use citadel_agent_common::connection::Connection;
use tracing::{debug, warn};

use super::mapped::Mapped;
use super::own::{Key, OwnConnections, OwnMap};
use super::plan::Family;
use super::slots::{Slots, TooManyPorts};
use super::stats::{self, RunStats};
use crate::host::sock_diag::{self, Socket};

/// The kernel programs, as `build.rs` made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/net.o"));

/// Where the programs find each other: map, index, program.
const CONTINUATIONS: [(&str, u32, &str); 3] = [
    ("INGRESS_PROGRAMS", 0, "net_ingress"),
    ("INGRESS_PROGRAMS", 1, "net_early"),
    ("EGRESS_PROGRAMS", 0, "net_egress"),
];

/// How long early data waits for the connection that it belongs to; a handshake that takes longer has failed.
const EARLY_LIFETIME: Duration = Duration::from_secs(10);

/// Why the family could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The cgroup directory cannot be opened.
    #[error("cannot open the cgroup {path}: {error}")]
    Cgroup {
        /// The directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The maps could not be made.
    #[error("the kernel refused the maps: {0}")]
    Maps(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("the kernel refused {program}: {error}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why; the verifier's log goes to the debug log.
        error: String,
    },
    /// A map could not be read or written.
    #[error("map {map}: {error}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        error: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("cannot map {map} into memory: {error}")]
    Mmap {
        /// Which.
        map: &'static str,
        /// Why.
        error: io::Error,
    },
    /// There are more ports than slots.
    #[error(transparent)]
    TooManyPorts(#[from] TooManyPorts),
    /// The object lacks something that it must have.
    #[error("the embedded object has no {0}: this build is broken")]
    Missing(&'static str),
}

impl NetError {
    /// The program that failed, if it was one.
    #[must_use]
    pub const fn program(&self) -> Option<&'static str> {
        match self {
            Self::Program { program, .. } => Some(program),
            _ => None,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "set ebpf.cgroup to a directory of the cgroup v2 hierarchy, or leave it out",
            Self::Maps(_) | Self::Mmap { .. } => "check LimitMEMLOCK (kernels before 5.11) and free memory",
            Self::Program { .. } => {
                "run with RUST_LOG=debug for the verifier's log, and report it with the kernel's version"
            }
            Self::TooManyPorts(_) => "restart the agent",
            Self::Map { .. } | Self::Missing(_) => "report it with the kernel's version",
        }
    }
}

/// The attached programs and their maps.
pub struct Net {
    /// Holds programs and links.
    ebpf: Ebpf,
    slots: Slots,
    /// The ports that are measured now.
    measured: BTreeSet<u16>,
    config: Array<MapData, Range>,
    ports: Array<MapData, u32>,
    early: HashMap<MapData, Key, EarlyValue>,
    /// The agent's own connections, until somebody announces them here.
    own: Option<OwnMap>,
    models: Mapped<ModelStats>,
    endpoints: MapData,
    /// A slot's endpoint entries, mapped when it is first read with something in it: 108 KiB each.
    endpoints_of: Vec<Option<Mapped<EndpointStats>>>,
    lost: Mapped<u64>,
    /// Connections that were open before the programs saw any begin.
    older: Vec<Socket>,
}

/// [`abi::PortRange`] as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Range(abi::PortRange);
// SAFETY: `repr(C)` of two u32, without padding.
unsafe impl Pod for Range {}

/// A value of `EARLY`.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct EarlyValue(Connection);
// SAFETY: `repr(C)` of integers, and asserted to be without padding.
unsafe impl Pod for EarlyValue {}

impl Net {
    /// Loads the programs, with slots for `ports` ports and some more, and attaches them to `cgroup`.
    ///
    /// # Errors
    /// When any of it fails; then nothing stays attached.
    pub fn attach(cgroup: &Path, ports: &BTreeSet<u16>) -> Result<Self, NetError> {
        lift_memlock_limit();
        let directory =
            File::open(cgroup).map_err(|error| NetError::Cgroup { path: cgroup.display().to_string(), error })?;
        let slots = Slots::for_ports(ports.len());
        let entries = slots.capacity();
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::STATS)
            .map_max_entries("MODEL_STATS", entries)
            .map_max_entries("ENDPOINT_STATS", entries * ENDPOINTS as u32)
            .load(OBJECT)?;
        for &name in Family::Net.programs() {
            load(&mut ebpf, name)?;
        }
        for (map, index, program) in CONTINUATIONS {
            set_continuation(&mut ebpf, map, index, program)?;
        }
        let mut net = Self {
            slots,
            measured: BTreeSet::new(),
            config: array(&mut ebpf, "CONFIG")?,
            ports: array(&mut ebpf, "PORTS")?,
            early: HashMap::try_from(take(&mut ebpf, "EARLY")?)
                .map_err(|error| NetError::Map { map: "EARLY", error })?,
            own: Some(HashMap::try_from(take(&mut ebpf, "OWN")?).map_err(|error| NetError::Map { map: "OWN", error })?),
            models: map_into_memory(&data(&mut ebpf, "MODEL_STATS")?, "MODEL_STATS", 0, entries as usize)?,
            endpoints: data(&mut ebpf, "ENDPOINT_STATS")?,
            endpoints_of: (0..entries).map(|_| None).collect(),
            lost: map_into_memory(&data(&mut ebpf, "LOST")?, "LOST", 0, LOST_CELLS)?,
            older: Vec::new(),
            ebpf,
        };
        // Before they are attached: so no segment is looked at under half a configuration.
        net.measure(ports)?;
        // The callbacks count connections that begin; those that are open already are listed right before.
        net.older = open_connections(|port| ports.contains(&port));
        for &name in Family::Net.programs() {
            attach(&mut net.ebpf, name, &directory)?;
        }
        Ok(net)
    }

    /// Lets the agent's own connections be announced to these programs.
    pub fn leave_out(&mut self, own: &OwnConnections) {
        if let Some(map) = self.own.take() {
            own.attach(map);
        }
    }

    /// How many of a port's open connections are older than the programs. Only those of the agent's own network
    /// namespace are known.
    #[must_use]
    pub fn older_connections(&self, port: u16) -> u64 {
        self.older.iter().filter(|socket| socket.local_port == port).count() as u64
    }

    /// Forgets the older connections that have closed; costs nothing once there are none.
    pub fn refresh_older_connections(&mut self) {
        if !self.older.is_empty() {
            let open = open_connections(|port| self.measured.contains(&port));
            self.older.retain(|socket| open.contains(socket));
        }
    }

    /// Whether [`Self::measure`] would take these ports.
    ///
    /// # Errors
    /// There are more ports than slots.
    pub fn can_measure(&self, ports: &BTreeSet<u16>) -> Result<(), TooManyPorts> {
        self.slots.with(ports.iter().copied()).map(drop)
    }

    /// Measures these ports from now on, and no others. What was counted stays.
    ///
    /// # Errors
    /// When there are more ports than slots, or a map cannot be written.
    pub fn measure(&mut self, ports: &BTreeSet<u16>) -> Result<(), NetError> {
        let slots = self.slots.with(ports.iter().copied())?;
        let failed = |map| move |error| NetError::Map { map, error };
        for &port in self.measured.difference(ports) {
            self.ports.set(u32::from(port), NO_SLOT, 0).map_err(failed("PORTS"))?;
        }
        for &port in ports {
            let slot = slots.get(port).map_or(NO_SLOT, |slot| slot + 1);
            self.ports.set(u32::from(port), slot, 0).map_err(failed("PORTS"))?;
        }
        self.slots = slots;
        self.measured.clone_from(ports);
        let range = match (ports.first(), ports.last()) {
            (Some(&first), Some(&last)) => {
                abi::PortRange { first: u32::from(first), span: u32::from(last) - u32::from(first) }
            }
            // No port at all: one that no packet has.
            _ => abi::PortRange { first: 0, span: 0 },
        };
        self.config.set(0, Range(range), 0).map_err(failed("CONFIG"))
    }

    /// What was counted for a port, if it ever had a slot.
    #[must_use]
    pub fn model(&self, port: u16) -> Option<Box<ModelStats>> {
        self.models.get(self.slots.get(port)? as usize)
    }

    /// What was counted for those of a port's endpoints that anyone asked.
    ///
    /// # Errors
    /// When the kernel does not map the entries.
    pub fn endpoints(&mut self, port: u16) -> Result<Vec<(Endpoint, Box<EndpointStats>)>, NetError> {
        let Some(slot) = self.slots.get(port).map(|slot| slot as usize) else { return Ok(Vec::new()) };
        let Some(place) = self.endpoints_of.get_mut(slot) else { return Ok(Vec::new()) };
        let mapped = match place {
            Some(mapped) => mapped,
            None => place.insert(map_into_memory(&self.endpoints, "ENDPOINT_STATS", slot * ENDPOINTS, ENDPOINTS)?),
        };
        // An entry is 12 KiB: look at the words that tell whether it holds anything before copying it.
        let asked = |index: usize| EndpointStats::TELLING.iter().any(|&word| mapped.word(index, word) != Some(0));
        let endpoints = Endpoint::ALL.into_iter().filter(|&endpoint| asked(endpoint as usize));
        Ok(endpoints.filter_map(|endpoint| Some((endpoint, mapped.get(endpoint as usize)?))).collect())
    }

    /// How much could not be measured, by reason.
    pub fn lost(&self) -> impl Iterator<Item = (Lost, u64)> {
        Lost::ALL.into_iter().map(|why| (why, self.lost.word(why as usize, 0).unwrap_or(0)))
    }

    /// Entries in use and capacity of the maps that can be full.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn fill(&self) -> Result<Vec<(&'static str, u64, u64)>, NetError> {
        let early = self.early.keys().count() as u64;
        Ok(vec![
            ("model_stats", self.slots.ports().count() as u64, u64::from(self.slots.capacity())),
            ("early", early, 1024),
        ])
    }

    /// What each program has cost, while the kernel keeps count.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        Family::Net.programs().iter().filter_map(|&name| {
            let program = self.ebpf.program(name)?;
            Some((name, stats::read(&program.fd().ok()?.as_fd())?))
        })
    }

    /// Removes early data whose handshake never ended.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn sweep_early(&mut self) -> Result<(), NetError> {
        let failed = |error| NetError::Map { map: "EARLY", error };
        let oldest = monotonic_ns().saturating_sub(EARLY_LIFETIME.as_nanos() as u64);
        let keys: Vec<_> = self.early.keys().collect::<Result<_, _>>().map_err(failed)?;
        for key in keys {
            let made_ns = match self.early.get(&key, 0) {
                Ok(EarlyValue(connection)) => connection.made_ns,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(failed(error)),
            };
            if made_ns < oldest {
                match self.early.remove(&key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(())
    }
}

/// The open connections on measured ports. Without them, older connections are missing from `connections_open`.
fn open_connections(measured: impl Fn(u16) -> bool) -> Vec<Socket> {
    sock_diag::read_open_connections(measured).unwrap_or_else(|error| {
        warn!(%error, "cannot list sockets: connections older than the agent are not in citadel_model_connections_open");
        Vec::new()
    })
}

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the argument is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Kernels before 5.11 charge maps to `RLIMIT_MEMLOCK`; later ones ignore it. A refusal shows when the maps are made.
fn lift_memlock_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the argument is a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, NetError> {
    ebpf.take_map(name).ok_or(NetError::Missing(name))
}

fn data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, NetError> {
    match take(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(NetError::Missing(name)),
    }
}

fn array<T: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<Array<MapData, T>, NetError> {
    Array::try_from(take(ebpf, name)?).map_err(|error| NetError::Map { map: name, error })
}

fn map_into_memory<T: super::mapped::Words>(
    map: &MapData,
    name: &'static str,
    first: usize,
    entries: usize,
) -> Result<Mapped<T>, NetError> {
    Mapped::new(map.fd(), first, entries).map_err(|error| NetError::Mmap { map: name, error })
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), NetError> {
    let result = match ebpf.program_mut(name).ok_or(NetError::Missing(name))? {
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(NetError::Missing(name)),
    };
    result.map_err(|error| refused(name, &error))
}

fn attach(ebpf: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<(), NetError> {
    // "Single" is what aya maps to a link on 5.7 and later, and the kernel still allows several at one cgroup.
    let mode = CgroupAttachMode::Single;
    let result = match ebpf.program_mut(name).ok_or(NetError::Missing(name))? {
        // Reached from `net_ingress` alone.
        Program::CgroupSkb(_) if name == "net_early" => return Ok(()),
        Program::CgroupSkb(program) => {
            let direction =
                if name == "net_ingress" { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            CgroupSkb::attach(program, cgroup, direction, mode).map(drop)
        }
        Program::SockOps(program) => SockOps::attach(program, cgroup, mode).map(drop),
        _ => return Err(NetError::Missing(name)),
    };
    result.map_err(|error| refused(name, &error))
}

fn set_continuation(ebpf: &mut Ebpf, map: &'static str, index: u32, program: &'static str) -> Result<(), NetError> {
    let loaded = ebpf.program(program).ok_or(NetError::Missing(program))?.fd();
    let fd = loaded.and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| refused(program, &error))?;
    let mut continuation = ProgramArray::try_from(ebpf.map_mut(map).ok_or(NetError::Missing(map))?)
        .map_err(|error| NetError::Map { map, error })?;
    continuation.set(index, &fd, 0).map_err(|error| NetError::Map { map, error })
}

fn refused(program: &'static str, error: &ProgramError) -> NetError {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        debug!(program, log = %verifier_log, "verifier");
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    // aya puts the verifier's whole log into the message; its first line says what was refused.
    text.truncate(text.find("\nVerifier").unwrap_or(text.len()).min(500));
    NetError::Program { program, error: text }
}
