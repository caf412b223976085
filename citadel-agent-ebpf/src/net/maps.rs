//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_map_lookup_elem;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::programs::SkBuffContext;
use citadel_agent_common::abi::{EndpointStats, LOST_CELLS, ModelStats, NO_SLOT, PortRange, ReadAt, TokenStats};
use citadel_agent_common::connection::{Connection, Early, Note, Tuple, WINDOWS, Window, room};
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::{self, Held};
use citadel_agent_common::trace::{self, Details, Recorded, Tracing};
use citadel_agent_ebpf::shares::Shares;

/// The first 96 bits of a v4-mapped IPv6 address, as words in network byte order (RFC 4291, section 2.5.5.2).
pub(crate) const V4_MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// The range of ports that can be measured; written by userspace, also while the programs run, as the only value of the
/// map `.bss`. A variable, because it is read for every packet of the host: that takes one instruction, a map look-up a
/// dozen.
static mut PORT_RANGE: PortRange = PortRange { first: 0, span: 0 };

/// Port -> slot + 1, [`NO_SLOT`] if the port is not measured. Half a megabyte, so that no port needs a search.
#[map]
static PORTS: Array<u32> = Array::with_max_entries(1 << 16, 0);

/// Slot -> counters of the model. Userspace sets the size to the number of slots before loading.
#[map]
pub(crate) static MODEL_STATS: Array<ModelStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot -> tokens of the model's requests. Sized like `MODEL_STATS`.
#[map]
pub(crate) static TOKEN_STATS: Array<TokenStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot * `ENDPOINTS` + endpoint -> what is counted per endpoint. Sized like `MODEL_STATS`.
#[map]
pub(crate) static ENDPOINT_STATS: Array<EndpointStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot -> time of requests in the receive queue. Sized like `MODEL_STATS`.
#[map]
pub(crate) static RECEIVE_QUEUE: Array<Histogram> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `reader_key` of a slot and a process that read a request of it -> when the process last started to read a
/// connection. Userspace removes exited processes. Sized and shared according to `shares::READERS`: further readers
/// beyond a model's share are not recorded, and counted. Preallocated, because in 5.11 tracing programs cannot
/// allocate.
#[map]
pub(crate) static READERS: HashMap<u64, ReadAt> = HashMap::with_max_entries(1, 0);

/// Usage of `READERS` by model.
#[map]
static READERS_HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The shares of `READERS`.
pub(crate) const READERS_SHARES: Shares = Shares { held: &READERS_HELD, own: shares::READERS.own };

/// Reason -> number of events that could not be measured.
#[map]
pub(crate) static LOST: Array<u64> = Array::with_max_entries(LOST_CELLS as u32, BPF_F_MMAPABLE);

/// Socket -> connection, from its first payload byte on. Stored in the socket and freed with it, or earlier when a
/// callback reports the close. Limited by `ROOM`.
#[btf_map]
pub(crate) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// Socket -> what is noted of it, until the first payload byte, and once what it carries is not parsed. Limited in the same way.
#[btf_map]
pub(crate) static NOTES: SkStorage<Note> = SkStorage::new();

/// Number of entries of both, and their limits: `connection::room`.
#[map]
pub(crate) static ROOM: Array<u64> = Array::with_max_entries(room::CELLS as u32, BPF_F_MMAPABLE);

/// Slot -> which requests are recorded. Sized like `MODEL_STATS`, written by userspace too.
#[map]
pub(crate) static RECORDED: Array<Recorded> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Records of single requests. What finds no room is counted.
#[map]
pub(crate) static TRACE: RingBuf = RingBuf::with_byte_size(trace::RING, 0);

/// Socket -> details of its request under way, from the first request on that begins while somebody traces. Freed with the socket.
#[btf_map]
pub(crate) static DETAILS: SkStorage<Details> = SkStorage::new();

/// Whether details are collected: [`trace::Tracing`]. In a section, and so in a map, of its own: it has another writer in userspace.
#[unsafe(link_section = ".data.tracing")]
static mut TRACING: Tracing = 0;

/// Windows in which runs parse payloads.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Window> = PerCpuArray::with_max_entries(WINDOWS, 0);

/// Data of a listener's segment, until the child's callback in the same softirq takes it: one entry per CPU, so nobody
/// can fill it, and an entry without a child (its handshake failed, or there was none) is overwritten.
#[map]
pub(crate) static EARLY: PerCpuArray<Early> = PerCpuArray::with_max_entries(1, 0);

/// Addresses of the connections that the agent itself is about to open -> anything; written by userspace, which does
/// not connect if the map is full.
#[map]
pub(crate) static OWN: HashMap<Tuple, u32> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// The initial value of an `EARLY` entry, all zero. Never written.
#[map]
pub(crate) static BLANK: Array<Early> = Array::with_max_entries(1, 0);

/// The ingress programs: to continue with a listener's segment, and to run again on packets with more framing than one
/// run can parse. One map per direction, because the kernel refuses programs with different attach types in one map
/// (`bpf_prog_map_compatible`).
#[map]
pub(crate) static INGRESS_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// The egress programs, for the same purpose, and to search for tokens.
#[map]
pub(crate) static EGRESS_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Index of `net_ingress` in `INGRESS_PROGRAMS`.
pub(crate) const INGRESS: u32 = 0;
/// Index of `net_early` in `INGRESS_PROGRAMS`.
pub(crate) const EARLY_INGRESS: u32 = 1;
/// Index of `net_egress` in `EGRESS_PROGRAMS`.
pub(crate) const EGRESS: u32 = 0;
/// Index of `net_tokens` in `EGRESS_PROGRAMS`.
pub(crate) const TOKENS: u32 = 1;

/// The slot of a port, if it is measured.
#[inline(always)]
pub(crate) fn slot(port: u32) -> Option<u32> {
    // SAFETY: always readable. Volatile: userspace may write it at any time.
    let (first, span) =
        unsafe { ((&raw const PORT_RANGE.first).read_volatile(), (&raw const PORT_RANGE.span).read_volatile()) };
    if port.wrapping_sub(first) > span {
        return None;
    }
    match *PORTS.get(port)? {
        NO_SLOT => None,
        slot => Some(slot - 1),
    }
}

/// Whether details of requests are collected; not 0 if so.
#[inline(always)]
pub(crate) fn tracing() -> Tracing {
    // SAFETY: always readable. Volatile: userspace may write it at any time.
    unsafe { (&raw const TRACING).read_volatile() }
}

/// Whether the agent itself opens this connection.
#[inline(always)]
pub(crate) fn is_own(tuple: &mut Tuple) -> bool {
    // SAFETY: a valid map and key.
    let found = unsafe { bpf_map_lookup_elem((&raw const OWN).cast_mut().cast(), (&raw mut *tuple).cast()) };
    !found.is_null()
}

/// Continues with another program, or runs the same one again: sequence numbers tell it where it stopped. Returns only
/// if the kernel refuses (33 runs per packet, `MAX_TAIL_CALL_CNT`).
#[inline(always)]
pub(crate) fn tail_call(skb: *mut __sk_buff, programs: &ProgramArray, index: u32) {
    // SAFETY: the entries are programs of the same type; an empty one makes the call return.
    unsafe { programs.tail_call(&SkBuffContext::new(skb), index) };
}
