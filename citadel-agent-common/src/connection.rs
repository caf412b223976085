//! The kernel's state of each connection, and of data that arrives before the connection exists.

use crate::http::Pending;
use crate::http::conn::Conn;
use crate::http::{Text, after};

/// Payload bytes in a [`Window`]: the head of most messages; a power of two.
pub const WINDOW: usize = 512;

/// A part of a payload. The stack is too small for it, and a connection would pay for it as long as it lives: so each CPU has
/// some ([`WINDOWS`]), of which a run takes one and gives it back.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Window {
    /// The bytes, plus room for a text that starts at the last of them.
    pub bytes: [u8; WINDOW + Text::LEN],
    /// Payload offset of the first byte.
    pub base: u32,
    /// The last offset at which a text may start.
    pub last_text: u32,
    /// Offset of the segment's payload from the IP header.
    pub payload_at: u32,
    /// Length of the payload.
    pub payload_len: u32,
    /// The segment's TCP flags.
    pub flags: u32,
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// See [`crate::http::launder`].
    pub scratch: u32,
    /// Runs that want it: the one that finds itself alone has it.
    pub claims: u64,
    /// When the segment was seen.
    pub now: u64,
    /// Which of the CPU's windows it is.
    pub index: u32,
    _reserved: u32,
}

/// Windows a CPU: a run may be interrupted by a softirq, and on a kernel that preempts by other tasks' runs.
pub const WINDOWS: u32 = 6;

/// What is kept of a socket whose connection has no [`Connection`]: the value of the `NOTES` map. Either nothing has come yet, or
/// what comes is not parsed and only counted. Aligned to eight bytes for the reason given at [`Tuple`].
#[repr(C, align(8))]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Note {
    /// The client's bytes, if they are not parsed. Written by ingress.
    pub received: Counted,
    /// The server's bytes, likewise. Written by egress.
    pub sent: Counted,
    /// The socket's retransmitted segments that have been counted.
    pub retransmits: u32,
    /// See [`note`]. The last field: what is zero in a new note is then in whole words.
    pub flags: u32,
}

impl Note {
    /// A note with these flags, of a connection of which nothing has been counted.
    #[must_use]
    pub const fn new(flags: u32) -> Self {
        Self { received: Counted::NONE, sent: Counted::NONE, retransmits: 0, flags }
    }
}

/// How many bytes of one direction have been counted.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Counted {
    /// Whether the direction is counted here, and no longer in its [`Connection`].
    pub here: u32,
    /// Sequence number of the first byte that has not been counted.
    pub next: u32,
}

impl Counted {
    /// Nothing.
    pub const NONE: Self = Self { here: 0, next: 0 };

    /// Counts what is new in a segment of `len` bytes from `seq` on. Everything up to `has` has been sent before, whether it was seen
    /// here or not. What comes before the bytes that precede it is left out: it is counted when `has` tells that it has arrived.
    #[inline(always)]
    pub const fn count(&mut self, seq: u32, len: u32, has: u32) -> u32 {
        let (end, mut to) = (seq.wrapping_add(len), self.next);
        if after(has, to) {
            to = has;
        }
        if !after(seq, to) && after(end, to) {
            to = end;
        }
        let new = to.wrapping_sub(self.next);
        self.next = to;
        new
    }
}

/// Flags of a [`Note`].
pub mod note {
    /// The programs saw the connection begin, and count it as open; callbacks will tell its end.
    pub const OPEN: u32 = 1;
    /// Not measured: the agent itself opened the connection, or it was not accepted by a listener of the port.
    pub const IGNORED: u32 = 2;
    /// What the connection carries is not parsed (TLS, HTTP/2, upgraded, unintelligible).
    pub const OPAQUE: u32 = 4;
    /// Ingress made it, of a connection that is not parsed.
    pub const BY_INGRESS: u32 = 8;
    /// Egress did.
    pub const BY_EGRESS: u32 = 16;
    /// Both.
    pub const MAKERS: u32 = BY_INGRESS | BY_EGRESS;
}

/// Indices into the `ROOM` map: how many sockets have state in the kernel's memory, which counts as the agent's, and how many
/// may. Userspace writes the limits.
pub mod room {
    /// Connections that are followed: entries of `CONNECTIONS`.
    pub const FOLLOWED: u32 = 0;
    /// How many may be.
    pub const MAX_FOLLOWED: u32 = 1;
    /// Sockets of which only a note is kept: entries of `NOTES`.
    pub const NOTED: u32 = 2;
    /// How many may be.
    pub const MAX_NOTED: u32 = 3;
    /// Entries of the map.
    pub const CELLS: usize = 4;
}

/// What is kept per connection from its first payload byte on: the value of the `CONNECTIONS` map, in the socket.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Connection {
    /// Whether the state was initialised: new memory is zero.
    pub known: u32,
    /// Whether the connection is older than the programs: no callback will report that it closes.
    pub joined: u32,
    /// The socket's retransmitted segments that have been counted.
    pub retransmits: u32,
    /// The model's slot.
    pub slot: u32,
    /// PID of the process that last started to read a request; 0: none yet.
    pub reader: u32,
    _reserved: u32,
    // Up to here, and at the start of `conn`: read for each segment and almost never written.
    /// Both directions, and the outstanding requests.
    pub conn: Conn,
}

/// The client of a [`Connection`], in the list of those with requests in flight.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Client {
    /// Its address in network byte order, as in [`Tuple`].
    pub address: [u32; 4],
    /// Its port.
    pub port: u32,
    _reserved: u32,
}

impl Client {
    /// The client at this address and port.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u32; 4], port: u32) -> Self {
        Self { address, port, _reserved: 0 }
    }
}

/// An element of the list of connections with requests in flight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Listed {
    /// Whose connection it is.
    pub client: Client,
    /// As it is in the map.
    pub connection: Connection,
}

/// Data of a segment to a listener for a connection that does not exist yet, and may never exist: the value of `EARLY`.
/// The connection is created from it in the same softirq, on the same CPU, or not at all: so one entry per CPU
/// suffices, and an unused entry is not counted.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Early {
    /// The connection's addresses.
    pub tuple: Tuple,
    /// The sequence number of its first byte.
    pub first_seq: u32,
    /// Whether the entry is used.
    pub present: u32,
    /// What to count once the connection exists.
    pub pending: Pending,
    /// The initial state of the connection.
    pub connection: Connection,
}

/// The addresses of a connection before it has a socket of its own. IPv4 addresses are v4-mapped IPv6 addresses;
/// addresses are in network byte order, ports in host byte order.
///
/// Aligned to eight bytes: it is on the stack, where the verifier requires every access to be aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Tuple {
    /// The client's address.
    pub remote: [u32; 4],
    /// The server's address.
    pub local: [u32; 4],
    /// The client's port.
    pub remote_port: u32,
    /// The server's port.
    pub local_port: u32,
}

impl Tuple {
    /// Whether both are equal. Compared word by word, because comparing arrays would be a function call.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        const WORDS: usize = size_of::<Tuple>() / 8;
        let (one, other) = ((&raw const *self).cast::<u64>(), (&raw const *other).cast::<u64>());
        let (mut differ, mut i) = (0, 0);
        while i < WORDS {
            // SAFETY: both have the same length, are aligned to a word, and have no padding.
            differ |= unsafe { *one.add(i) ^ *other.add(i) };
            i += 1;
        }
        differ == 0
    }
}

/// Offset of a socket's storage in the kernel's allocation (`struct bpf_local_storage_elem`, whose `sdata` begins the second cache
/// line with a pointer).
const STORAGE_AT: usize = 72;

const _: () = {
    // The kernel allocates powers of two, at a multiple of them: one more byte would cost another KiB.
    assert!(STORAGE_AT + size_of::<Connection>() <= 1024 && STORAGE_AT + size_of::<Note>() <= 96);
    // What ingress writes is not in a pair of cache lines with what both directions read, nor with what egress writes: CPUs
    // prefetch lines in pairs. A request's place does not straddle two lines.
    let at = STORAGE_AT + core::mem::offset_of!(Connection, conn);
    let [rx, places, tx] = Conn::GROUPS;
    assert!((at + rx).is_multiple_of(128) && (at + places).is_multiple_of(16) && (at + tx).is_multiple_of(64));
    assert!(size_of::<Tuple>() == 40);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_parsed_count_once() {
        let mut counted = Counted { here: 1, next: u32::MAX - 9 };
        let mut count = |offset: u32, len, has: u32| {
            let start = u32::MAX - 9;
            counted.count(start.wrapping_add(offset), len, start.wrapping_add(has))
        };
        assert_eq!(count(0, 20, 0), 20);
        assert_eq!(count(0, 20, 20), 0, "again");
        assert_eq!(count(10, 15, 20), 5, "partly again");
        assert_eq!(count(35, 10, 25), 0, "before what precedes it");
        assert_eq!(count(25, 10, 25), 10, "what preceded it");
        assert_eq!(count(45, 5, 45), 15, "with what had come before");
        assert_eq!(count(60, 0, 60), 10, "what was not seen");
    }
}
