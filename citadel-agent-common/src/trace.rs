//! What is recorded of single requests: an entry of the ring buffer for each that fails, that takes long, or, while somebody traces,
//! for all of them.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC`.

/// Longest request ID that is kept, in bytes; of a longer one, its beginning is. A trace ID has 32.
pub const ID: usize = 64;

/// A request that has ended: an entry of the ring buffer `TRACE`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Record {
    /// When it ended.
    pub ended_ns: u64,
    /// When its first byte arrived.
    pub first_ns: u64,
    /// When the last of its bytes that were seen arrived.
    pub complete_ns: u64,
    /// When the first byte of its response was sent; 0: none was.
    pub answered_ns: u64,
    /// From the end of the request to the first event with output. Like everything up to `flags`, it is known only with
    /// [`flag::DETAILS`], and with [`flag::EVENTS`].
    pub token_ns: u64,
    /// The longest time between two events with output.
    pub gap_ns: u64,
    /// When that ended. Known with [`flag::EVENTS`] too, like `events`.
    pub gap_at_ns: u64,
    /// Time in the receive queue; [`UNKNOWN`] if nothing measured it.
    pub queued_ns: u64,
    /// Bytes of the request.
    pub request_bytes: u32,
    /// Bytes of the response that were sent.
    pub response_bytes: u32,
    /// Segments that the server's host sent more than once.
    pub retransmits: u32,
    /// Events with output.
    pub events: u32,
    /// The request ID, of which `id_len` bytes count.
    pub id: [u64; ID / 8],
    /// Length of the ID; 0: the client sent none, or it was not found.
    pub id_len: u32,
    /// [`flag`]s.
    pub flags: u32,
    /// The client's address in network byte order, as in [`crate::connection::Tuple`].
    pub client: [u32; 4],
    /// The client's port.
    pub client_port: u32,
    /// The model's slot.
    pub slot: u32,
    /// An [`crate::abi::Endpoint`].
    pub endpoint: u32,
    /// Status code of the response; 0: there was none.
    pub code: u32,
    /// [`COMPLETED`], or one more than the [`crate::abi::Side`] that ended it.
    pub ended_by: u32,
    /// If it was aborted: the [`crate::abi::Phase`].
    pub phase: u32,
}

/// [`Record::ended_by`] of a request whose response is complete.
pub const COMPLETED: u32 = 0;

/// A duration that was not measured.
pub const UNKNOWN: u64 = u64::MAX;

/// What is known of a request.
pub mod flag {
    /// The details: the request was traced from its first byte on, and no other was outstanding on its connection.
    pub const DETAILS: u32 = 1;
    /// Its response is streamed, and its events were seen from the first on.
    pub const EVENTS: u32 = 2;
    /// The ID is a trace ID, from `traceparent`.
    pub const TRACE_ID: u32 = 4;
}

/// How a request ended, as the tracker tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finished {
    /// As in [`Record`].
    pub ended_ns: u64,
    /// As in [`Record`].
    pub first_ns: u64,
    /// As in [`Record`].
    pub complete_ns: u64,
    /// As in [`Record`].
    pub answered_ns: u64,
    /// As in [`Record`].
    pub endpoint: u32,
    /// As in [`Record`].
    pub code: u32,
    /// As in [`Record`].
    pub ended_by: u32,
    /// As in [`Record`].
    pub phase: u32,
    /// Number of the request on its connection, starting at 1.
    pub number: u32,
    /// The client's next sequence number, if no other request has begun since.
    pub request_end: u32,
    /// The server's next sequence number.
    pub response_end: u32,
    /// Whether no request has arrived since.
    pub alone: bool,
}

/// What is collected of the request under way on a connection while somebody traces: the value of the `DETAILS` map. It is created
/// then, so nothing of it costs memory otherwise.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Details {
    // Written when the request begins, by ingress.
    /// The tracing under which it began, see [`Tracing`]; 0: not known.
    pub tracing: u32,
    /// Number of the request.
    pub number: u32,
    /// Sequence number of its first byte.
    pub request_begin: u32,
    /// Sequence number of the first byte of its response.
    pub response_begin: u32,
    /// Segments that had been sent again by then.
    pub retransmits: u32,
    /// As in [`Record`].
    pub id_len: u32,
    /// [`flag::TRACE_ID`].
    pub id_kind: u32,
    /// Events with output so far, of the streamed response that began under `streamed`. Written by egress, like what follows.
    pub events: u32,
    /// As in [`Record`].
    pub id: [u64; ID / 8],
    /// As in [`Record`].
    pub token_ns: u64,
    /// As in [`Record`].
    pub gap_ns: u64,
    /// As in [`Record`].
    pub gap_at_ns: u64,
    /// The tracing under which the first event with output was seen.
    pub streamed: u32,
    /// See [`crate::http::launder`].
    pub scratch: u32,
    /// When the first byte of a request arrived that the server has read. Written as the server reads, like the next.
    pub queued_from: u64,
    /// For how long it had been in the receive queue.
    pub queued_ns: u64,
}

impl Details {
    /// Nothing: all zero, like new kernel memory.
    pub const NONE: Self = Self {
        tracing: 0,
        number: 0,
        request_begin: 0,
        response_begin: 0,
        retransmits: 0,
        id_len: 0,
        id_kind: 0,
        events: 0,
        id: [0; ID / 8],
        token_ns: 0,
        gap_ns: 0,
        gap_at_ns: 0,
        streamed: 0,
        scratch: 0,
        queued_from: 0,
        queued_ns: 0,
    };
}

/// Whether details are collected: the variable `TRACING` of the programs. 0: no; else a number that is another one each time tracing
/// begins, by which what was collected before is told from what is collected now.
pub type Tracing = u32;

/// Which of a model's requests are recorded: an entry of the map `RECORDED`. All zero: none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Recorded {
    /// Those that take at least this time, in nanoseconds, and those that fail.
    pub from_ns: u64,
    /// How many more, at most; userspace sets it again and again. A bound on what a burst of failures costs.
    pub left: u64,
}

/// Bytes of the ring buffer: about 2,000 records, which userspace takes out twenty times a second while somebody traces.
pub const RING: u32 = 512 << 10;

const _: () = assert!(size_of::<Record>().is_multiple_of(8));
