//! Drives one tracked connection and keeps what the tracker observed of it. The fuzz target uses this file too.

use citadel_agent_common::abi::{Endpoint, Latency, Lost, Phase, Protocol, Side};
use citadel_agent_common::http::conn::{Conn, PIPELINE, Progress, Writer};
use citadel_agent_common::http::usage::Tokens;
use citadel_agent_common::http::{Payload, Sink, Text};
use citadel_agent_common::trace::{COMPLETED, Finished};

/// What the tracker reported, byte counts aside: where these are reported depends on the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Observation {
    Protocol(Protocol),
    Begun,
    Ended(u32),
    Completed { endpoint: u32, code: u32 },
    Latency { which: Latency, endpoint: u32, ns: u64 },
    Chunk { endpoint: u32 },
    Event { endpoint: u32, output: bool },
    Unread { endpoint: u32 },
    Unseen { endpoint: u32, bytes: u32 },
    Aborted { endpoint: u32, side: Side, phase: Phase },
    Lost { why: Lost, count: u32 },
}

/// A sink that remembers, in order and with the time of the segment.
#[derive(Default)]
struct Recorder {
    now: u64,
    /// How much was seen before this call.
    before: usize,
    seen: Vec<(u64, Observation)>,
    request_bytes: u64,
    response_bytes: u64,
    tokens: Vec<Tokens>,
    /// The end of a request that is to be recorded.
    due: Option<(u64, Observation)>,
}

impl Recorder {
    fn note(&mut self, observation: Observation) {
        self.seen.push((self.now, observation));
    }
}

impl Sink for Recorder {
    fn bytes(&mut self, response: bool, count: u32) {
        *if response { &mut self.response_bytes } else { &mut self.request_bytes } += u64::from(count);
    }
    fn protocol(&mut self, protocol: u32) {
        let all = [Protocol::Http1, Protocol::Http2, Protocol::Tls, Protocol::Other, Protocol::Upgraded];
        let protocol = all.into_iter().find(|&one| one as u32 == protocol).expect("a protocol");
        // Told at the end of a call, for the kernel's sake, of what showed first.
        let at = if protocol == Protocol::Upgraded { self.seen.len() } else { self.before };
        self.seen.insert(at, (self.now, Observation::Protocol(protocol)));
    }
    fn barrier(&mut self) {}
    fn begun(&mut self, count: u32) {
        // Told at the end of a call, for the kernel's sake; but nothing begins after a loss, up to the next segment.
        let is_loss = |&(_, seen): &(u64, Observation)| matches!(seen, Observation::Lost { .. });
        let new = &self.seen[self.before..];
        let at = self.before + new.iter().position(is_loss).unwrap_or(new.len());
        self.seen.splice(at..at, std::iter::repeat_n((self.now, Observation::Begun), count as usize));
    }
    fn ended(&mut self, count: u32) {
        self.note(Observation::Ended(count));
    }
    fn completed(&mut self, endpoint: u32, code: u32, ns: u64) {
        self.note(Observation::Latency { which: Latency::Duration, endpoint, ns });
        self.note(Observation::Completed { endpoint, code });
    }
    fn latency(&mut self, which: Latency, endpoint: u32, ns: u64) {
        self.note(Observation::Latency { which, endpoint, ns });
    }
    fn chunk(&mut self, endpoint: u32) {
        self.note(Observation::Chunk { endpoint });
    }
    fn event(&mut self, endpoint: u32, output: bool) {
        self.note(Observation::Event { endpoint, output });
    }
    fn unread(&mut self, endpoint: u32) {
        self.note(Observation::Unread { endpoint });
    }
    fn unseen(&mut self, endpoint: u32, bytes: u32) {
        self.note(Observation::Unseen { endpoint, bytes });
    }
    fn tokens(&mut self, tokens: Tokens, count: u32) {
        self.tokens.extend(std::iter::repeat_n(tokens, count as usize));
    }
    fn aborted(&mut self, endpoint: u32, side: Side, phase: Phase) {
        self.note(Observation::Aborted { endpoint, side, phase });
    }
    fn records(&mut self, ns: u64, failed: bool) -> bool {
        // What it asks for is what it has observed just now.
        let &(_, last) = self.seen.last().expect("a request has ended");
        match last {
            Observation::Completed { code, endpoint } => {
                assert_eq!(failed, code >= 500);
                let duration = Observation::Latency { which: Latency::Duration, endpoint, ns };
                assert_eq!(self.seen[self.seen.len() - 2].1, duration);
            }
            Observation::Aborted { .. } => assert!(failed),
            other => panic!("{other:?} ends no request"),
        }
        // One a step.
        self.due.is_none() && self.due.replace((self.now, last)).is_none()
    }
    fn record(&mut self, finished: Finished) {
        let (at, last) = self.due.take().expect("it asked whether it is wanted");
        let Finished { first_ns, complete_ns, answered_ns, ended_ns, .. } = finished;
        assert!(first_ns <= complete_ns && complete_ns <= ended_ns && answered_ns <= ended_ns, "{finished:?}");
        assert!(ended_ns <= at, "{finished:?}");
        match last {
            Observation::Completed { endpoint, code } => {
                assert_eq!((finished.endpoint, finished.code, finished.ended_by), (endpoint, code, COMPLETED));
            }
            Observation::Aborted { endpoint, side, phase } => {
                let ended_by = side as u32 + 1;
                assert_eq!((finished.endpoint, finished.ended_by, finished.phase), (endpoint, ended_by, phase as u32));
                let answered = !matches!(phase, Phase::Request | Phase::Waiting);
                assert!(answered || finished.answered_ns == 0, "{finished:?}");
            }
            other => panic!("{other:?} ends no request"),
        }
    }
    fn lost(&mut self, why: Lost, count: u32) {
        self.note(Observation::Lost { why, count });
    }
}

/// A segment's payload. What is unspecified beyond its end differs from place to place, and means something to a parser.
struct Bytes<'a> {
    payload: &'a [u8],
    text: Text,
}

impl<'a> Bytes<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Self { payload, text: Text::EMPTY }
    }
}

impl Payload for Bytes<'_> {
    fn text(&mut self, offset: u32) -> Option<&Text> {
        let rest = &self.payload[offset as usize..];
        let mut beyond = [b'\n', 3, b'0', b'G', b'\r', b':', b' ', 0xff];
        beyond.rotate_left(offset as usize % 8);
        for (byte, beyond) in self.text.0.iter_mut().zip(beyond.iter().cycle()) {
            *byte = *beyond;
        }
        for (byte, payload) in self.text.0.iter_mut().zip(rest) {
            *byte = *payload;
        }
        Some(&self.text)
    }
}

/// How many steps a call takes at most: of the kernel programs' calls, and more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Steps {
    One,
    Two,
    Eight,
}

/// A connection under the tracker.
pub(crate) struct Tracked {
    conn: Conn,
    recorder: Recorder,
    steps: Steps,
}

impl Tracked {
    /// Seen from its beginning.
    pub(crate) fn new() -> Self {
        Self { conn: Conn::NEW, recorder: Recorder::default(), steps: Steps::Two }
    }

    /// The same with other steps.
    pub(crate) fn in_steps(self, steps: Steps) -> Self {
        Self { steps, ..self }
    }

    /// Open before anyone looked.
    pub(crate) fn joined() -> Self {
        let mut tracked = Self::new();
        tracked.conn.join();
        tracked
    }

    /// The handshake told the client's first sequence number.
    pub(crate) fn expect_first(&mut self, seq: u32) {
        self.conn.expect_first(seq);
    }

    /// A segment from the client.
    pub(crate) fn client(&mut self, seq: u32, bytes: &[u8], now: u64) {
        self.recorder.now = now;
        let mut payload = Bytes::new(bytes);
        let before = self.conn;
        until_done(bytes.len(), || {
            self.recorder.before = self.recorder.seen.len();
            let len = bytes.len() as u32;
            match self.steps {
                Steps::One => self.conn.receive::<1, _, _>(&mut payload, seq, len, now, &mut self.recorder),
                Steps::Two => self.conn.receive::<2, _, _>(&mut payload, seq, len, now, &mut self.recorder),
                Steps::Eight => self.conn.receive::<8, _, _>(&mut payload, seq, len, now, &mut self.recorder),
            }
        });
        self.assert_written_by(Writer::Ingress, &before);
    }

    /// A segment from the server.
    pub(crate) fn server(&mut self, seq: u32, bytes: &[u8], ack: u32, now: u64) {
        self.recorder.now = now;
        let (mut payload, len) = (Bytes::new(bytes), bytes.len() as u32);
        let before = self.conn;
        until_done(bytes.len(), || {
            let (conn, recorder) = (&mut self.conn, &mut self.recorder);
            let progress = match self.steps {
                Steps::One => conn.transmit::<1, _, _>(&mut payload, seq, len, ack, now, recorder),
                Steps::Two => conn.transmit::<2, _, _>(&mut payload, seq, len, ack, now, recorder),
                Steps::Eight => conn.transmit::<8, _, _>(&mut payload, seq, len, ack, now, recorder),
            };
            self.record();
            progress
        });
        self.search_tokens(&mut payload, seq, len);
        self.assert_written_by(Writer::Egress, &before);
    }

    /// As the program does after each step.
    fn record(&mut self) {
        if self.conn.has_due() {
            self.conn.record_due(&mut self.recorder);
        }
    }

    /// As the program does after each segment.
    fn search_tokens(&mut self, payload: &mut Bytes<'_>, seq: u32, len: u32) {
        if self.conn.may_state_tokens(seq, len) {
            self.conn.search_tokens(payload, seq, len, &mut self.recorder);
        }
    }

    /// A segment from the server that takes more than `STEPS` steps, which is all that there is.
    pub(crate) fn overrun<const STEPS: u32>(&mut self, seq: u32, bytes: &[u8], ack: u32, now: u64) {
        self.recorder.now = now;
        let (mut payload, len) = (Bytes::new(bytes), bytes.len() as u32);
        let before = self.conn;
        if self.conn.transmit::<STEPS, _, _>(&mut payload, seq, len, ack, now, &mut self.recorder) == Progress::More {
            self.record();
            self.conn.overrun(&mut payload, seq, len, now, &mut self.recorder);
        }
        self.record();
        self.search_tokens(&mut payload, seq, len);
        self.assert_written_by(Writer::Egress, &before);
    }

    /// One writer a field.
    fn assert_written_by(&self, writer: Writer, before: &Conn) {
        let (before, after) = (bytes_of(before), bytes_of(&self.conn));
        let mut own = writer.bytes();
        own.sort_by_key(|part| part.start);
        let mut from = 0;
        // The gaps between its parts, and what comes after them.
        for part in own.into_iter().chain(std::iter::once(before.len()..before.len())) {
            let foreign = from..part.start;
            assert!(before[foreign.clone()] == after[foreign.clone()], "{writer:?} wrote to bytes of {foreign:?}");
            from = part.end;
        }
    }

    /// The client sent FIN or RST.
    pub(crate) fn client_ends(&mut self) {
        let before = self.conn;
        self.conn.client_ends();
        self.assert_written_by(Writer::Ingress, &before);
    }

    /// The server closes the connection.
    pub(crate) fn close(&mut self, orderly: bool, otherwise: Side, now: u64) {
        self.close_or_end(orderly, otherwise, false, now);
    }

    /// The connection is gone.
    pub(crate) fn end(&mut self, otherwise: Side, now: u64) {
        self.close_or_end(false, otherwise, true, now);
    }

    fn close_or_end(&mut self, orderly: bool, otherwise: Side, last: bool, now: u64) {
        self.recorder.now = now;
        let before = self.conn;
        self.recorder.before = self.recorder.seen.len();
        self.conn.close(orderly, otherwise, last, now, &mut self.recorder);
        self.record();
        self.search_tokens(&mut Bytes::new(&[]), 0, 0);
        self.assert_written_by(Writer::Egress, &before);
    }

    /// What was observed, in order.
    pub(crate) fn observed(&self) -> impl Iterator<Item = Observation> {
        self.recorder.seen.iter().map(|&(_, observation)| observation)
    }

    /// What was observed of requests and of responses, each in order and with the time of the segment that showed it.
    pub(crate) fn by_direction(&self) -> [Vec<(u64, Observation)>; 2] {
        let of_requests = |(_, observation): &(u64, Observation)| {
            let framing = Lost::RequestFraming;
            matches!(observation, Observation::Protocol(_) | Observation::Begun)
                && *observation != Observation::Protocol(Protocol::Upgraded)
                || matches!(observation, Observation::Lost { why, .. }
                    if [framing, Lost::PipelineFull].contains(why))
        };
        let (requests, responses) = self.recorder.seen.iter().copied().partition(of_requests);
        [requests, responses]
    }

    /// What complete responses have stated.
    pub(crate) fn tokens(&self) -> &[Tokens] {
        &self.recorder.tokens
    }

    /// Payload bytes counted: from the client, from the server.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        [self.recorder.request_bytes, self.recorder.response_bytes]
    }

    /// Requests that began.
    pub(crate) fn begun(&self) -> u64 {
        self.observed().filter(|seen| *seen == Observation::Begun).count() as u64
    }

    /// How many were lost for this reason.
    pub(crate) fn lost(&self, why: Lost) -> u64 {
        let count = |seen| match seen {
            Observation::Lost { why: this, count } if this == why => u64::from(count),
            _ => 0,
        };
        self.observed().map(count).sum()
    }

    /// Requests that began and have not left.
    pub(crate) fn under_way(&self) -> i64 {
        let change = |seen| match seen {
            Observation::Begun => 1,
            Observation::Ended(count) => -i64::from(count),
            _ => 0,
        };
        self.observed().map(change).sum()
    }

    /// What holds of any connection at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn check(&self) {
        let mut requests = 0;
        let mut accounted = 0;
        let mut left = 0;
        for seen in self.observed() {
            match seen {
                Observation::Begun => requests += 1,
                Observation::Ended(count) => left += i64::from(count),
                Observation::Completed { .. } | Observation::Aborted { .. } => accounted += 1,
                Observation::Lost { why: Lost::ResponseFraming, count } => accounted += i64::from(count),
                Observation::Lost { count, .. } => assert_ne!(count, 0),
                Observation::Chunk { .. }
                | Observation::Event { .. }
                | Observation::Unread { .. }
                | Observation::Unseen { .. }
                | Observation::Latency { .. } => {
                    assert!(requests > 0, "a response to no request: {:?}", self.recorder.seen);
                }
                Observation::Protocol(_) => {}
            }
            assert!(left <= requests, "more requests left than began: {:?}", self.recorder.seen);
            assert!(requests - left <= PIPELINE as i64, "too many under way: {:?}", self.recorder.seen);
        }
        assert_eq!(left, accounted, "each request leaves as ended, aborted or lost: {:?}", self.recorder.seen);
        let is_upgrade = |seen: &Observation| *seen == Observation::Protocol(Protocol::Upgraded);
        assert!(self.observed().filter(is_upgrade).count() <= 1, "switched twice: {:?}", self.recorder.seen);
        let protocols = self.observed().filter(|seen| matches!(seen, Observation::Protocol(_)) && !is_upgrade(seen));
        let stating = |seen: &Observation| matches!(seen, Observation::Completed { endpoint, code: 200..300 } if Endpoint::states_usage(*endpoint));
        assert_eq!(
            self.tokens().len(),
            self.observed().filter(stating).count(),
            "each states its tokens, or is missing"
        );
        assert!(protocols.count() <= 1, "a connection has one protocol: {:?}", self.recorder.seen);
        let http1 = self.observed().any(|seen| seen == Observation::Protocol(Protocol::Http1));
        assert!(requests == 0 || http1, "requests without HTTP/1: {:?}", self.recorder.seen);
    }
}

/// The bytes of a connection in memory.
fn bytes_of(conn: &Conn) -> &[u8] {
    // SAFETY: `repr(C)` of integers, without padding.
    unsafe { std::slice::from_raw_parts((&raw const *conn).cast(), size_of::<Conn>()) }
}

/// Repeats a call that ran out of steps.
fn until_done(len: usize, mut call: impl FnMut() -> Progress) {
    // A step takes a byte at least, except one that loses the framing; gaps and early ranges are a few steps more.
    let enough = len + 64;
    assert!((0..enough).any(|_| call() == Progress::Done), "no end after {enough} calls for {len} bytes");
}
