//! What a response says about its tokens.
//!
//! While [`Conn::transmit`] follows the response, it only notes where counts may be: in events without output, and near the end of
//! a response that is not streamed. They are searched afterwards, once a segment at most, by a program of its own: so an event with
//! output costs as much as without, and the verifier does not follow the search from each step.

use super::Conn;
use crate::abi::Endpoint;
use crate::http::framer::{event, flag, state};
use crate::http::usage::{self, TAIL, Usage};
use crate::http::{Payload, Sink};

impl Conn {
    /// The search in the response under way.
    #[inline(always)]
    pub const fn usage(&mut self) -> &mut Usage {
        &mut self.usage
    }

    /// A response to this request begins.
    #[inline(always)]
    pub(super) fn begin_tokens(&mut self, endpoint: u32) {
        let mut search = if Endpoint::states_usage(endpoint) { usage::SEARCHED } else { usage::NOTHING };
        if endpoint == Endpoint::Messages as u32 {
            search |= usage::MESSAGES;
        } else if endpoint == Endpoint::Generate as u32 {
            search |= usage::ALL;
        }
        self.usage.begin(search, fresh!(self.tx_next));
    }

    /// Notes what a step has found of the response, which ends at `tx_next`: an event that may state tokens, or the end of a
    /// response that is not streamed; and whether the response is complete.
    // Inlined: a further frame is too much for the stack on 5.10.
    #[inline(always)]
    pub(super) fn note_tokens(&mut self, event: u32, streamed: bool) {
        let beside_output = if self.states_beside_output() { event::OUTPUT | event::EVENT_ENDS } else { event::NONE };
        let stating = event & (event::OTHER | beside_output);
        if (stating | event & event::END) == 0 || !self.usage.is_searched() {
            return;
        }
        let end = fresh!(self.tx_next);
        if !streamed {
            if event & event::END != 0 {
                self.usage.note_all(end);
            }
        } else if stating != 0 {
            // Not from the step's start: a long event takes several.
            self.usage.note(end.wrapping_sub(TAIL), end);
            if event & event::CUT != 0 {
                self.usage.miss();
            }
        }
        let failed = streamed && self.events.has_failed();
        if event & event::END != 0 && !failed && fresh!(self.tx.message.subject) / 100 == 2 {
            self.usage.complete();
        }
    }

    /// Whether the events of this stream may have counts beside output: those of TGI and SGLang, not Ollama's lines.
    #[inline(always)]
    fn states_beside_output(&self) -> bool {
        self.usage.is_all_searched() && !self.events.are_lines()
    }

    /// Called after [`Conn::transmit`] has processed a segment with `len` bytes from `seq` on: whether to call
    /// [`Conn::search_tokens`] with the same ones.
    // Likewise.
    #[inline(never)]
    pub fn may_state_tokens(&mut self, seq: u32, len: u32) -> bool {
        // Counts may be split: what came so far of an event, or of the end of a response that is not streamed.
        if self.usage.is_searched() && matches!(self.tx.state(), state::DATA | state::UNTIL_CLOSE | state::CHUNK_SIZE) {
            let flags = fresh!(self.tx.message.flags);
            let far =
                flags & (flag::LENGTH | flag::CHUNKED) == flag::LENGTH && self.tx.message.skippable() > u64::from(TAIL);
            let next = fresh!(self.tx_next);
            let sent = next.wrapping_sub(seq);
            let new = sent != 0 && sent <= len;
            if new && flags & flag::STREAMED == 0 && !far {
                self.usage.note_all(next);
            } else if new && flags & flag::STREAMED != 0 && self.events.is_within(!self.states_beside_output()) {
                self.usage.note(seq, next);
            }
        }
        // The rest of a stream that is not read may have stated newer ones.
        if self.events.is_unread() {
            self.usage.miss();
        }
        self.usage.is_noted()
    }

    /// Searches a segment for token counts, and reports those of a complete response.
    #[inline(always)]
    pub fn search_tokens<P: Payload, S: Sink>(&mut self, payload: &mut P, seq: u32, len: u32, sink: &mut S) {
        self.usage.search(payload, seq, len);
        let tokens = self.usage.tokens();
        let (complete, unreported) = self.usage.take_complete();
        if complete {
            sink.tokens(tokens, 1);
        }
        if unreported != 0 {
            let nothing = self.usage.nothing();
            sink.tokens(nothing, unreported);
        }
    }
}
