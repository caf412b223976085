//! What the kernel keeps per connection, and of what arrives before there is one.

use crate::apart::Apart;
use crate::http::Pending;
use crate::http::Text;
use crate::http::conn::Conn;

/// Payload bytes that a [`Window`] holds: the head of most messages; a power of two.
pub const WINDOW: usize = 512;

/// A part of a payload. It lives with the connection, because the stack is too small and a per-CPU map could be
/// overwritten by a softirq that interrupts an egress run.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Window {
    /// The bytes, and room for a text that begins in the last of them.
    pub bytes: [u8; WINDOW + Text::LEN],
    /// Payload offset of the first byte.
    pub base: u32,
    /// The last byte that a text may begin with.
    pub last_text: u32,
    /// Where the segment's payload begins, from the IP header on.
    pub payload_at: u32,
    /// How long it is.
    pub payload_len: u32,
    /// The segment's TCP flags.
    pub flags: u32,
    /// See [`crate::http::forget`].
    pub scratch: u32,
}

/// What is kept per connection: the value of the `CONNECTIONS` map, in the socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connection {
    /// The state was set up: new memory is zero.
    pub known: u32,
    /// The connection is older than the programs: no callback will say that it closes.
    pub joined: u32,
    /// It is counted as open.
    pub open: u32,
    /// The socket's retransmitted segments that are counted.
    pub retransmits: u32,
    /// Nothing of it is measured: the agent itself opened it, or no listener of the port has accepted it.
    pub ignored: u32,
    /// The model's slot.
    pub slot: u32,
    /// The process that last began to read a request; 0: none yet.
    pub reader: u32,
    _reserved: u32,
    // Up to here, and at the beginning of `conn`: what is looked at for each segment and hardly ever written.
    /// Both directions, and the requests that are not done yet.
    pub conn: Conn,
    _apart_from_conn: Apart,
    /// For ingress.
    pub rx_window: Window,
    _apart_from_rx: Apart,
    /// For egress.
    pub tx_window: Window,
}

/// What a listener's segment brought for a connection that does not exist yet, and may never: the value of `EARLY`. The
/// connection is made from it in the same softirq, on the same CPU, or never: so there is one place a CPU, and what nobody
/// takes from there has not counted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Early {
    /// Whose it is.
    pub tuple: Tuple,
    /// The sequence number of its first byte.
    pub first_seq: u32,
    /// Something is there.
    pub present: u32,
    /// What has to be counted once the connection exists.
    pub pending: Pending,
    /// What the connection begins as.
    pub connection: Connection,
}

/// A connection's addresses, for the time before it has a socket of its own. IPv4 is v4-mapped IPv6, addresses are in network
/// and ports in host byte order.
///
/// Aligned to eight bytes: it lies on the stack, where the verifier wants every access aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    /// The client's address.
    pub remote: [u32; 4],
    /// The server's.
    pub local: [u32; 4],
    /// The client's port.
    pub remote_port: u32,
    /// The server's.
    pub local_port: u32,
}

impl Tuple {
    /// Whether it is the same. Word by word, since a comparison of arrays would be a call.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        const WORDS: usize = size_of::<Tuple>() / 8;
        let (one, other) = ((&raw const *self).cast::<u64>(), (&raw const *other).cast::<u64>());
        let (mut differ, mut i) = (0, 0);
        while i < WORDS {
            // SAFETY: both are as long, aligned to a word, and without padding.
            differ |= unsafe { *one.add(i) ^ *other.add(i) };
            i += 1;
        }
        differ == 0
    }
}

/// How far into a cache line the kernel places a socket's storage (`struct bpf_local_storage_elem`, whose `sdata` begins a
/// line with a pointer).
const STORAGE_AT: usize = 8;

const _: () = {
    // A place in two lines goes from CPU to CPU twice.
    let (places, place) = Conn::PLACES;
    assert!((STORAGE_AT + core::mem::offset_of!(Connection, conn) + places).is_multiple_of(64) && place == 64);
    assert!(size_of::<Tuple>() == 40);
    // No padding: the sum of the fields.
    assert!(size_of::<Connection>() == 32 + size_of::<Conn>() + 2 * size_of::<Window>() + 2 * size_of::<Apart>());
};
