//! The outstanding requests of a connection in its two queues: those that the server has not started to read, and those
//! without a complete response.

/// Maximum number of requests of one connection in either queue (pipelining, RFC 9112, section 9.3.2); a power of two.
pub const PIPELINE: usize = 16;

/// A place in both queues. The queues have separate counters, because a request is unread from its first byte on and
/// outstanding from the end of its request line on. But usually a request uses the same place in both: what ingress
/// writes there moves to the server's CPU once, as a whole cache line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct Place {
    pub(super) request: Request,
    pub(super) arrival: Arrival,
    _to_a_line: [u64; 2],
}

impl Place {
    /// Empty: all zero, like new kernel memory.
    pub(super) const EMPTY: Self = Self {
        request: Request { first_ns: 0, last_ns: 0, endpoint: 0, flags: 0, number: 0, _reserved: 0 },
        arrival: Arrival { time: 0, seq: 0, number: 0 },
        _to_a_line: [0; 2],
    };
}

/// An outstanding request.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct Request {
    /// Time of its first byte.
    pub(super) first_ns: u64,
    /// Time of its last byte so far.
    pub(super) last_ns: u64,
    /// An [`crate::abi::Endpoint`].
    pub(super) endpoint: u32,
    /// `flag::HEAD` and `flag::CONNECT` of the framer, and [`COMPLETE`].
    pub(super) flags: u32,
    /// Number of the request on its connection, starting at 1: the reader can tell from the entry alone whether it is
    /// the expected one, so no counter has to move between the CPUs' caches.
    pub(super) number: u32,
    _reserved: u32,
}

/// The request's last byte has arrived.
pub(super) const COMPLETE: u32 = 1 << 31;

/// A request that has arrived and that the server has not started to read.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub(super) struct Arrival {
    /// When its first byte arrived, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) time: u64,
    /// That byte's sequence number.
    pub(super) seq: u32,
    /// Number of the arrival, starting at 1; as in [`Request`].
    pub(super) number: u32,
}
