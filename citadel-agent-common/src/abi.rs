//! Layout of the maps that the eBPF programs write and userspace reads.
//!
//! Everything is `repr(C)`, without padding, made of `u64` and `u32` only, so that any byte pattern is a valid value. The
//! same holds for all types that cross the kernel boundary; padding would be uninitialised memory to the verifier.
//! `zerocopy::IntoBytes`, which the tests derive, does not compile for a type with padding.
//! Counters only grow; userspace reads them through mmap while the kernel updates them.

use core::ops::Range;

use crate::hist::Histogram;
use crate::shares::Owner;

/// The kind of a request: a closed set, so that the number of series is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Endpoint {
    /// Any other path.
    Other = 0,
    /// `/v1/chat/completions`.
    ChatCompletions = 1,
    /// `/v1/completions`, llama.cpp's `/completion`.
    Completions = 2,
    /// `/v1/responses`.
    Responses = 3,
    /// `/v1/embeddings`.
    Embeddings = 4,
    /// `/v1/rerank`.
    Rerank = 5,
    /// `/v1/models`.
    Models = 6,
    /// `/health`.
    Health = 7,
    /// `/metrics`.
    Metrics = 8,
    /// `/v1/messages` (Anthropic's).
    Messages = 9,
    /// `/tokenize`, `/detokenize`, `/v1/messages/count_tokens`.
    Tokenize = 10,
    /// `/v1/audio/...`.
    Audio = 11,
    /// `/v1/images/...`.
    Images = 12,
    /// `/generate`, `/generate_stream` (TGI, SGLang), `/api/generate` (Ollama).
    Generate = 13,
}

impl Endpoint {
    /// All endpoints, in the order of their discriminants.
    pub const ALL: [Self; ENDPOINTS] = [
        Self::Other,
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Rerank,
        Self::Models,
        Self::Health,
        Self::Metrics,
        Self::Messages,
        Self::Tokenize,
        Self::Audio,
        Self::Images,
        Self::Generate,
    ];

    /// Whether its responses state how many tokens they took: those of `embeddings` and `rerank` do too.
    #[inline(always)]
    #[must_use]
    pub const fn states_usage(endpoint: u32) -> bool {
        const STATING: u32 = {
            let mut set = 1 << Endpoint::ChatCompletions as u32 | 1 << Endpoint::Completions as u32;
            set |= 1 << Endpoint::Responses as u32 | 1 << Endpoint::Embeddings as u32 | 1 << Endpoint::Rerank as u32;
            set | 1 << Endpoint::Messages as u32 | 1 << Endpoint::Generate as u32
        };
        STATING >> (endpoint & 31) & 1 != 0
    }

    /// The value of the `endpoint` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Models => "models",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Messages => "messages",
            Self::Tokenize => "tokenize",
            Self::Audio => "audio",
            Self::Images => "images",
            Self::Generate => "generate",
        }
    }
}

/// Number of [`Endpoint`]s.
pub const ENDPOINTS: usize = 14;

/// The side that closed a connection first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Side {
    /// The client sent FIN or RST first, or disappeared.
    Client = 0,
    /// The server closed first.
    Server = 1,
}

impl Side {
    /// Both, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The value of the `side` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The phase of a request when its connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Its last byte had not arrived.
    Request = 0,
    /// It was complete, and no response byte had been sent.
    Waiting = 1,
    /// Response bytes had been sent, but no body byte.
    Headers = 2,
    /// In the body of a streamed response.
    Streaming = 3,
    /// In any other body.
    Body = 4,
    /// The server reported an error inside the streamed response.
    Error = 5,
}

/// Number of [`Phase`]s.
pub const PHASES: u32 = 6;

impl Phase {
    /// All phases, in the order of their discriminants.
    pub const ALL: [Self; PHASES as usize] =
        [Self::Request, Self::Waiting, Self::Headers, Self::Streaming, Self::Body, Self::Error];

    /// The value of the `phase` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Waiting => "waiting",
            Self::Headers => "headers",
            Self::Streaming => "streaming",
            Self::Body => "body",
            Self::Error => "error",
        }
    }
}

/// The protocol detected from the first bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Protocol {
    /// Not known yet.
    Unknown = 0,
    /// HTTP/1.0 or HTTP/1.1.
    Http1 = 1,
    /// The HTTP/2 preface (RFC 9113, section 3.4).
    Http2 = 2,
    /// A TLS record (RFC 8446, section 5.1).
    Tls = 3,
    /// Anything else, or nothing at all.
    Other = 4,
    /// HTTP/1.x until a response switched it to another protocol or made a tunnel of it (101, CONNECT): such a connection counts as
    /// [`Self::Http1`] too.
    Upgraded = 5,
}

/// Why something could not be measured: index into the `LOST` map and value of the `reason` label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Lost {
    /// A request's framing could not be followed (malformed, or bytes were missed because segments arrived out of
    /// order).
    RequestFraming = 0,
    /// Responses whose framing could not be followed.
    ResponseFraming = 1,
    /// Requests beyond [`crate::http::conn::PIPELINE`] outstanding ones on a connection.
    PipelineFull = 2,
    /// Packets with more framing than one program run can parse.
    StepLimit = 3,
    /// Connections without state: the kernel had no memory for it.
    NoMemory = 4,
    /// Packets whose headers could not be read.
    PacketHeader = 5,
    /// Threads of models that could not be followed: the model's share of the map was full ([`crate::shares`]).
    ThreadsFull = 6,
    /// Errors of system calls that could not be counted, likewise.
    FailuresFull = 7,
    /// System calls that were not timed, because the program was already running on that CPU. The kernel counts them.
    Recursion = 8,
    /// Processes of models that could not be followed: the model's share of the map was full.
    ProcessesFull = 9,
    /// Requests whose reader could not be noted, likewise.
    ReadersFull = 10,
    /// Connections that are not followed, because as many as may be are ([`crate::connection::room`]).
    ConnectionsFull = 11,
    /// Records of single requests for which the ring buffer had no room ([`crate::trace`]).
    TraceFull = 12,
}

impl Lost {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 13] = [
        Self::RequestFraming,
        Self::ResponseFraming,
        Self::PipelineFull,
        Self::StepLimit,
        Self::NoMemory,
        Self::PacketHeader,
        Self::ThreadsFull,
        Self::FailuresFull,
        Self::Recursion,
        Self::ProcessesFull,
        Self::ReadersFull,
        Self::ConnectionsFull,
        Self::TraceFull,
    ];

    /// The value of the `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RequestFraming => "request_framing",
            Self::ResponseFraming => "response_framing",
            Self::PipelineFull => "pipeline_full",
            Self::StepLimit => "step_limit",
            Self::NoMemory => "no_memory",
            Self::PacketHeader => "packet_header",
            Self::ThreadsFull => "threads_full",
            Self::FailuresFull => "failures_full",
            Self::Recursion => "recursion",
            Self::ProcessesFull => "processes_full",
            Self::ReadersFull => "readers_full",
            Self::ConnectionsFull => "connections_full",
            Self::TraceFull => "trace_full",
        }
    }
}

/// Entries of the `LOST` map: a power of two, at least the number of reasons.
pub const LOST_CELLS: usize = 16;

/// A latency of an endpoint: index into [`EndpointStats::latencies`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Latency {
    /// From the first request byte to the last response byte, of successful requests.
    Duration = 0,
    /// Last request byte in to first response byte out; responses that are not streamed.
    FirstByte = 1,
    /// Last request byte in to the first event with output, streamed responses only.
    FirstToken = 2,
    /// Between consecutive events with output of a streamed response.
    InterToken = 3,
    /// Last request byte in to first response byte out, streamed responses only.
    FirstByteOfStream = 4,
    /// From the last request byte to the first body byte, for streamed responses only.
    FirstChunk = 5,
    /// [`Self::Duration`] of requests with a status code of 400 to 499.
    DurationOfClientError = 6,
    /// [`Self::Duration`] of requests with a status code of 500 or above.
    DurationOfServerError = 7,
}

impl Latency {
    /// The duration of a request with status `code`.
    #[inline(always)]
    #[must_use]
    pub const fn duration(code: u32) -> usize {
        let error = Self::DurationOfClientError as usize + (code >= 500) as usize;
        if code < 400 { Self::Duration as usize } else { error }
    }
}

/// Number of [`Latency`]s: a power of two.
pub const LATENCIES: usize = 8;

/// Everything that is counted per model and endpoint: one entry of the `ENDPOINT_STATS` map, at
/// `slot * ENDPOINTS + endpoint`. Five pages, so that a slot's entries can be mapped on their own.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct EndpointStats {
    /// Indexed by [`Latency`].
    pub latencies: [Histogram; LATENCIES],
    /// Indexed by the functions below.
    pub counters: [u64; 512],
}

impl EndpointStats {
    /// Index of the number of body chunks of streamed responses.
    pub const CHUNKS: usize = 0;
    /// Index of the number of events with output of streamed responses.
    pub const EVENTS_WITH_OUTPUT: usize = 1;
    /// Index of the number of events without.
    pub const EVENTS_WITHOUT: usize = 2;
    /// Index of the number of streamed responses whose events could not be read.
    pub const UNREAD: usize = 3;

    /// Index of the number of bytes of streamed responses in which neither chunks nor events were looked for.
    pub const UNSEEN_BYTES: usize = Self::requests(Self::CODES.end - 1) + 1;

    /// The status codes of final responses (RFC 9110, section 15), but for 101.
    pub const CODES: Range<u32> = 200..600;
    /// The code with which HTTP ends on a connection (section 15.2.2).
    pub const SWITCHING: u32 = 101;
    /// Index of the number of requests with a status code that is none of these.
    pub const INVALID: usize = 4 + 2 * PHASES as usize;

    /// Words of the entry, at least one of which is not zero as soon as anything was counted: the sums of the latencies
    /// (a completed request took some time), then the aborted requests.
    pub const TELLING: [usize; LATENCIES + 2 * PHASES as usize] = {
        let mut words = [0; LATENCIES + 2 * PHASES as usize];
        let mut i = 0;
        while i < LATENCIES {
            words[i] = i * crate::hist::CELLS + crate::hist::SUM_CELL;
            i += 1;
        }
        while i < words.len() {
            words[i] = LATENCIES * crate::hist::CELLS + Self::aborted(0, 0) + (i - LATENCIES);
            i += 1;
        }
        words
    };

    /// Index of the counter of aborted requests.
    #[inline(always)]
    #[must_use]
    pub const fn aborted(side: u32, phase: u32) -> usize {
        4 + (side * PHASES + phase) as usize
    }

    /// Index of the counter of requests with status `code`; all codes outside [`Self::CODES`] share one.
    #[inline(always)]
    #[must_use]
    pub const fn requests(code: u32) -> usize {
        let above = code.wrapping_sub(Self::CODES.start);
        if above < Self::CODES.end - Self::CODES.start {
            Self::INVALID + 2 + above as usize
        } else {
            Self::INVALID + (code == Self::SWITCHING) as usize
        }
    }
}

/// Everything counted per model: one entry of the `MODEL_STATS` map, exactly one page.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct ModelStats {
    /// Smoothed round-trip times.
    pub rtt: Histogram,
    /// Indexed by [`counter`].
    pub counters: [u64; 256],
}

/// The tokens of a model's requests, as its responses state them: one entry of the `TOKEN_STATS` map, exactly one page.
///
/// A token is recorded like `2^-20` s, the zero threshold, so bounds are powers of two in tokens too, from 1 on. The sum is that of
/// the tokens.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct TokenStats {
    /// Prompt tokens by request.
    pub prompt: Histogram,
    /// Completion tokens by request.
    pub completion: Histogram,
}

/// Indexes into [`ModelStats::counters`]. Counters written by ingress and by egress are in different pairs of cache
/// lines, because the two run on different CPUs at the same time, and Intel CPUs prefetch lines in pairs.
pub mod counter {
    /// Payload bytes received.
    pub const REQUEST_BYTES: usize = 0;
    /// Requests started.
    pub const BEGUN: usize = 1;
    /// Payload bytes sent.
    pub const RESPONSE_BYTES: usize = 16;
    /// Requests completed, aborted or lost.
    pub const ENDED: usize = 17;
    /// Retransmitted segments.
    pub const RETRANSMITS: usize = 18;
    /// Connections established.
    pub const OPENED: usize = 32;
    /// Closed connections that had been counted as established.
    pub const CLOSED: usize = 33;
    /// Responses that stated their tokens.
    pub const USAGE_STATED: usize = 19;
    /// Responses that could have, and did not.
    pub const USAGE_MISSING: usize = 20;
    /// Prompt tokens that were in a cache.
    pub const CACHED_TOKENS: usize = 21;
    /// Responses that stated [`CACHED_TOKENS`].
    pub const CACHED_STATED: usize = 22;
    /// Connections by protocol: add [`super::Protocol`].
    pub const PROTOCOLS: usize = 40;
}

/// The measured ports: the variable `PORT_RANGE` of the `net` programs.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct PortRange {
    /// Lowest measured port.
    pub first: u32,
    /// Highest measured port minus the lowest.
    pub span: u32,
}

/// Entries of `MARKS`, a power of two: the default number of PIDs in Linux (`PID_MAX_DEFAULT` in `<linux/threads.h>`).
pub const MARKS: u32 = 1 << 15;

/// The mark of a process: processes whose PIDs have the same low bits share one.
#[inline(always)]
#[must_use]
pub const fn mark(process: u32) -> u32 {
    process & (MARKS - 1)
}

/// Seats for threads: entries of `SEATED`; a power of two.
pub const SEATS: u32 = 16384;

/// The seat of a thread: threads whose TIDs have the same low bits share one.
#[inline(always)]
#[must_use]
pub const fn seat(tid: u32) -> u32 {
    tid & (SEATS - 1)
}

/// Key of `READERS`: the slot whose request a process read, and the process.
#[inline(always)]
#[must_use]
pub const fn reader_key(slot: u32, process: u32) -> u64 {
    (slot as u64) << 32 | process as u64
}

/// What is noted of a process that reads requests: value of `READERS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct ReadAt {
    /// When a connection last came to be read by it, in nanoseconds of `CLOCK_BOOTTIME`.
    pub ns: u64,
    /// The slot, and where the entry is charged.
    pub owner: Owner,
    _reserved: u32,
}

impl ReadAt {
    /// Noted at this time.
    #[inline(always)]
    #[must_use]
    pub const fn new(ns: u64, owner: Owner) -> Self {
        Self { ns, owner, _reserved: 0 }
    }
}

/// Slot and process of a key: the inverse of [`reader_key`].
#[must_use]
pub const fn reader(key: u64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}

/// Entry of the `PORTS` map for a port that is not measured; any other value is the port's slot plus one.
pub const NO_SLOT: u32 = 0;

const _: () = {
    assert!(size_of::<Histogram>() == 2048);
    assert!(size_of::<EndpointStats>() == 5 * 4096);
    assert!(size_of::<ModelStats>() == 4096);
    assert!(size_of::<TokenStats>() == 4096);
    assert!(size_of::<PortRange>() == 8);
    assert!(size_of::<ReadAt>() == 16);
    assert!(Endpoint::ALL.len() == ENDPOINTS);
    assert!(Lost::ALL.len() <= LOST_CELLS);
    assert!(EndpointStats::aborted(1, PHASES - 1) < EndpointStats::requests(0));
    assert!(EndpointStats::UNSEEN_BYTES < 512);
};
