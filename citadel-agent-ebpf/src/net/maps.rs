//! The family's maps: key, value, size, and what happens when one is full.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, ProgramArray};
use aya_ebpf::programs::SkBuffContext;
use citadel_agent_common::abi::{EndpointStats, LOST_CELLS, ModelStats, NO_SLOT, PortRange};
use citadel_agent_common::http::conn::Conn;

use crate::packet::Window;

/// What is kept per connection: lives in the socket and goes with it, so it cannot fill up or be evicted.
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) conn: Conn,
    pub(crate) rx_window: Window,
    pub(crate) tx_window: Window,
    /// The state above was set up: new memory is zero.
    pub(crate) known: u32,
    /// The connection is older than the programs: no callback will say that it closes.
    pub(crate) joined: u32,
    /// It is counted as open.
    pub(crate) open: u32,
    /// The socket's retransmitted segments that are counted.
    pub(crate) retransmits: u32,
    /// In `EARLY`: the sequence number that its data began with, and when it came.
    pub(crate) first_seq: u32,
    pub(crate) _reserved: u32,
    pub(crate) first_ns: u64,
}

/// A connection's addresses, for the moment in which it has no socket of its own. IPv4 as v4-mapped IPv6.
///
/// Aligned to eight bytes: it lies on the stack, where the verifier wants every access aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Tuple {
    pub(crate) remote: [u32; 4],
    pub(crate) local: [u32; 4],
    pub(crate) remote_port: u32,
    pub(crate) local_port: u32,
}

/// The first 96 bits of a v4-mapped IPv6 address, as words in network byte order (RFC 4291, section 2.5.5.2).
pub(crate) const V4_MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// Which ports can be measured at all; written by userspace, also while the programs run.
#[map]
static CONFIG: Array<PortRange> = Array::with_max_entries(1, 0);

/// Port -> slot + 1, [`NO_SLOT`] where the port is not measured. Half a megabyte, so that no port needs a search.
#[map]
static PORTS: Array<u32> = Array::with_max_entries(1 << 16, 0);

/// Slot -> what is counted per model. Userspace sets the size to the number of slots before it loads.
#[map]
pub(crate) static MODEL_STATS: Array<ModelStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slot * 9 + endpoint -> what is counted per endpoint. Sized like `MODEL_STATS`.
#[map]
pub(crate) static ENDPOINT_STATS: Array<EndpointStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Reason -> how much could not be measured.
#[map]
pub(crate) static LOST: Array<u64> = Array::with_max_entries(LOST_CELLS as u32, BPF_F_MMAPABLE);

/// Socket -> connection.
#[btf_map]
pub(crate) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// Addresses -> connection, between a listener's segment and the child's callback in the same softirq. What finds no
/// child (its handshake failed) is swept by userspace; full means that new ones are lost, and counted.
#[map]
pub(crate) static EARLY: HashMap<Tuple, Connection> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// A connection of zeros: what `EARLY` entries begin as. Nothing writes it.
#[map]
pub(crate) static BLANK: Array<Connection> = Array::with_max_entries(1, 0);

/// `net_ingress` itself, for packets with more framing than one run may parse. One map a program, because the kernel
/// refuses programs with different attach types in one (`bpf_prog_map_compatible`).
#[map]
pub(crate) static INGRESS_AGAIN: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// `net_egress` itself, likewise.
#[map]
pub(crate) static EGRESS_AGAIN: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The slot of a port, if it is measured.
#[inline(always)]
pub(crate) fn slot(port: u32) -> Option<u32> {
    let range = CONFIG.get(0)?;
    if port.wrapping_sub(range.first) > range.span {
        return None;
    }
    match *PORTS.get(port)? {
        NO_SLOT => None,
        slot => Some(slot - 1),
    }
}

/// Runs the program in `program` again on the same packet: sequence numbers tell it where to go on. Returns only if the
/// kernel refuses (33 runs, `MAX_TAIL_CALL_CNT`).
#[inline(always)]
pub(crate) fn again(skb: *mut __sk_buff, program: &ProgramArray) {
    // SAFETY: the entry is a program of the same type; an empty one makes the call return.
    let _ = unsafe { program.tail_call(&SkBuffContext::new(skb), 0) };
}
