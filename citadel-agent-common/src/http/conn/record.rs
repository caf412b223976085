//! Records of single requests.
//!
//! That a response has ended is noted, and the record is made after the step: `response_event` is called at a depth at which 5.10
//! has no stack left.

use super::{Conn, Sink};
use crate::abi::{Lost, Phase, Side};
use crate::http::reorder::after;
use crate::http::request::{PIPELINE, Place};
use crate::trace::{COMPLETED, Finished};

/// In `Conn::due_how`, beside the status code: the stream reported an error.
const FAILED: u32 = 1 << 31;

/// How a request was aborted, in one word, because a function of BPF has at most five arguments.
#[derive(Clone, Copy)]
pub(super) struct Aborted(u32);

impl Aborted {
    const ANSWERED: u32 = 1 << 16;

    /// By whom, in which phase; `answered`: a part of its response was sent.
    #[inline(always)]
    pub(super) const fn new(side: Side, phase: Phase, answered: bool) -> Self {
        Self(side as u32 | (phase as u32) << 8 | if answered { Self::ANSWERED } else { 0 })
    }
}

impl Conn {
    /// The response to the oldest request ends: notes it if it is to be recorded.
    #[inline(always)]
    pub(super) fn note_end<S: Sink>(&mut self, request: Place, now: u64, code: u32, failed: bool, sink: &mut S) {
        if !sink.records(request.first.until(now), failed || code >= 500) {
            return;
        }
        if fresh!(self.due) != 0 {
            // Two in one step.
            sink.lost(Lost::TraceFull, 1);
        }
        self.due_ns = now;
        // The next response may begin in the same step.
        self.due_answered_ns = self.tx_first_ns;
        self.due_how = code | if failed { FAILED } else { 0 };
        self.due = fresh!(self.head).wrapping_add(1);
    }

    /// Whether [`Self::record_due`] has something to do.
    #[inline(always)]
    #[must_use]
    pub fn has_due(&self) -> bool {
        fresh!(self.due) != 0
    }

    /// Records the request that has ended.
    #[inline(always)]
    pub fn record_due<S: Sink>(&mut self, sink: &mut S) {
        let number = fresh!(self.due);
        self.due = 0;
        let request = fresh!(self.places[number.wrapping_sub(1) as usize & (PIPELINE - 1)]);
        if request.first.mark() != number & 0xff {
            // Its place is another one's already.
            return sink.lost(Lost::TraceFull, 1);
        }
        let how = fresh!(self.due_how);
        let (ended_by, phase) =
            if how & FAILED != 0 { (Side::Server as u32 + 1, Phase::Error as u32) } else { (COMPLETED, 0) };
        let ended = self.finished(request, number, self.due_ns, self.due_answered_ns);
        sink.record(Finished { code: how & !FAILED, ended_by, phase, ..ended });
    }

    /// Records the oldest request, which is aborted, if that is wanted. Not inlined: the verifier would follow the rest of the loop
    /// once for each way through it.
    #[inline(never)]
    pub(super) fn record_aborted<S: Sink>(&self, now: u64, aborted: Aborted, sink: &mut S) {
        let request = self.oldest();
        if !sink.records(request.first.until(now), true) {
            return;
        }
        // The status line may not be complete before the body.
        let phase = aborted.0 >> 8 & 0xff;
        let has_code = [Phase::Streaming, Phase::Body, Phase::Error].into_iter().any(|with| with as u32 == phase);
        let code = if has_code { fresh!(self.tx.message.subject) } else { 0 };
        let answered_ns = if aborted.0 & Aborted::ANSWERED != 0 { self.tx_first_ns } else { 0 };
        let ended = self.finished(request, fresh!(self.head).wrapping_add(1), now, answered_ns);
        sink.record(Finished { code, ended_by: (aborted.0 & 0xff) + 1, phase, ..ended });
    }

    #[inline(always)]
    fn finished(&self, request: Place, number: u32, ended_ns: u64, answered_ns: u64) -> Finished {
        Finished {
            ended_ns,
            first_ns: ended_ns.wrapping_sub(request.first.until(ended_ns)),
            complete_ns: ended_ns.wrapping_sub(request.last.until(ended_ns)),
            answered_ns,
            endpoint: request.endpoint(),
            code: 0,
            ended_by: COMPLETED,
            phase: 0,
            number,
            request_end: fresh!(self.rx_next),
            response_end: fresh!(self.tx_next),
            alone: fresh!(self.tail) == number && fresh!(self.noted) == number,
        }
    }

    /// The number of the request that begins with the client's byte `seq`; `None` if none does, or another one is outstanding.
    #[inline(always)]
    #[must_use]
    pub fn next_request(&self, seq: u32) -> Option<u32> {
        let tail = fresh!(self.tail);
        let idle = tail == fresh!(self.head) && tail == fresh!(self.noted);
        (idle && self.is_next(seq) && self.rx.at_message_start()).then(|| tail.wrapping_add(1))
    }

    /// Whether the server has sent bytes from `seq` on before.
    #[inline(always)]
    #[must_use]
    pub fn has_sent(&self, seq: u32) -> bool {
        self.tx_synced != 0 && after(fresh!(self.tx_next), seq)
    }

    /// The server's next sequence number, if it has sent anything.
    #[inline(always)]
    #[must_use]
    pub fn next_response(&self) -> Option<u32> {
        (fresh!(self.tx_synced) != 0).then(|| fresh!(self.tx_next))
    }
}
