//! The requests of a connection that are not done yet, as its two queues hold them: those that the server has not begun to
//! read, and those that have no response yet.

/// Requests that one connection can have in either queue (pipelining, RFC 9112, section 9.3.2); a power of two.
pub const PIPELINE: usize = 16;

/// A place in both queues. They have counters of their own, since a request is unread from its first byte on and under way
/// from the end of its request line on, but mostly one request has one place in both: what ingress's CPU wrote there goes
/// to the server's CPU once, as a whole cache line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) request: Request,
    pub(super) arrival: Arrival,
    _to_a_line: [u64; 2],
}

impl Place {
    /// Empty: all zero, as new kernel memory is.
    pub(super) const EMPTY: Self = Self {
        request: Request { first_ns: 0, last_ns: 0, endpoint: 0, flags: 0, number: 0, _reserved: 0 },
        arrival: Arrival { time: 0, seq: 0, number: 0 },
        _to_a_line: [0; 2],
    };
}

/// A request under way.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// Time of its first byte.
    pub(super) first_ns: u64,
    /// Time of its last byte so far.
    pub(super) last_ns: u64,
    /// An [`crate::abi::Endpoint`].
    pub(super) endpoint: u32,
    /// `flag::HEAD` and `flag::CONNECT` of the framer, [`COMPLETE`].
    pub(super) flags: u32,
    /// Which of the connection's requests it is, from 1 on: so the reader sees by the entry alone whether it is the one
    /// that it waits for, and no counter has to go from one CPU's cache to the other's besides.
    pub(super) number: u32,
    _reserved: u32,
}

/// A request's last byte has arrived.
pub(super) const COMPLETE: u32 = 1 << 31;

/// A request that has come and that the server has not begun to read.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival {
    /// When its first byte came, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) time: u64,
    /// That byte's sequence number.
    pub(super) seq: u32,
    /// Which of those that have come it is, from 1 on; as in [`Request`].
    pub(super) number: u32,
}
