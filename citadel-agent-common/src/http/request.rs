//! The requests under way on a connection.

/// Requests under way that one connection can have (pipelining, RFC 9112, section 9.3.2); a power of two.
pub const PIPELINE: usize = 16;

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
    pub(super) _reserved: u32,
}

/// A request's last byte has arrived.
pub(super) const COMPLETE: u32 = 1 << 31;

impl Request {
    /// None: all zero, as new kernel memory is.
    pub(super) const NONE: Self = Self { first_ns: 0, last_ns: 0, endpoint: 0, flags: 0, number: 0, _reserved: 0 };
}
