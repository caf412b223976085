//! Records observations: atomic adds to the maps that userspace has mapped.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use citadel_agent_common::abi::{ENDPOINTS, EndpointStats, Latency, Lost, ModelStats, Phase, Side, counter};
use citadel_agent_common::http::conn::Sink;
use citadel_agent_common::http::usage::Tokens;
use citadel_agent_common::trace::Finished;
use citadel_agent_ebpf::count::{add, barrier, cell, observe, observe_tokens};

use crate::maps::{self, ENDPOINT_STATS, LOST, MODEL_STATS, RECORDED, TOKEN_STATS};
use crate::{say, trace};

/// Counts something that could not be measured.
#[inline(always)]
pub(crate) fn lost(why: Lost, count: u32) {
    if let Some(cell) = LOST.get_ptr_mut(why as u32) {
        // SAFETY: a map value; other CPUs only add atomically.
        add(unsafe { &mut *cell }, count as u64);
    }
}

/// The counters of one model, and the socket whose round-trip time is recorded with its responses.
pub(crate) struct Counters {
    slot: u32,
    model: *mut ModelStats,
    sock: *mut bpf_sock,
}

impl Counters {
    /// The counters of `slot`; `None` only if userspace gave a port a slot that does not exist.
    #[inline(always)]
    pub(crate) fn of(slot: u32, sock: *mut bpf_sock) -> Option<Self> {
        Some(Self { slot, model: MODEL_STATS.get_ptr_mut(slot)?, sock })
    }

    /// Adds to one of the cells in [`counter`].
    #[inline(always)]
    pub(crate) fn add(&mut self, cell: usize, count: u64) {
        // SAFETY: a map value; other CPUs only add atomically.
        add(self::cell(unsafe { &mut (*self.model).counters }, cell), count);
    }

    #[inline(always)]
    fn endpoint(&self, endpoint: u32) -> Option<&'static mut EndpointStats> {
        let stats = ENDPOINT_STATS.get_ptr_mut(self.slot * ENDPOINTS as u32 + endpoint)?;
        // SAFETY: a map value; other CPUs only add atomically.
        Some(unsafe { &mut *stats })
    }
}

impl Sink for Counters {
    #[inline(always)]
    fn bytes(&mut self, response: bool, count: u32) {
        self.add(if response { counter::RESPONSE_BYTES } else { counter::REQUEST_BYTES }, count as u64);
    }

    #[inline(always)]
    fn protocol(&mut self, protocol: u32) {
        self.add(counter::PROTOCOLS + protocol as usize, 1);
    }

    #[inline(always)]
    fn barrier(&mut self) {
        // SAFETY: a map value; other CPUs only add atomically.
        barrier(self::cell(unsafe { &mut (*self.model).counters }, counter::ENDED));
    }

    #[inline(always)]
    fn begun(&mut self, count: u32) {
        self.add(counter::BEGUN, count as u64);
    }

    #[inline(always)]
    fn ended(&mut self, count: u32) {
        self.add(counter::ENDED, count as u64);
    }

    #[inline(always)]
    fn completed(&mut self, endpoint: u32, code: u32, ns: u64) {
        if let Some(stats) = self.endpoint(endpoint) {
            add(cell(&mut stats.counters, EndpointStats::requests(code)), 1);
            observe(cell(&mut stats.latencies, Latency::duration(code)), ns);
        }
        // SAFETY: the socket is valid while its packet is processed.
        let tcp = unsafe { bpf_tcp_sock(self.sock) };
        if !tcp.is_null() {
            // SAFETY: not null. The kernel stores eight times the smoothed round-trip time, in microseconds.
            let srtt_ns = unsafe { (*tcp).srtt_us } as u64 * (1000 / 8);
            // SAFETY: a map value; other CPUs only add atomically.
            observe(unsafe { &mut (*self.model).rtt }, srtt_ns);
        }
    }

    #[inline(always)]
    fn latency(&mut self, which: Latency, endpoint: u32, ns: u64) {
        if let Some(stats) = self.endpoint(endpoint) {
            observe(&mut stats.latencies[which as usize], ns);
        }
        if matches!(which, Latency::FirstToken | Latency::InterToken) && maps::tracing() != 0 {
            trace::output(self.sock, matches!(which, Latency::FirstToken), ns);
        }
    }

    #[inline(always)]
    fn chunk(&mut self, endpoint: u32) {
        if let Some(stats) = self.endpoint(endpoint) {
            add(&mut stats.counters[EndpointStats::CHUNKS], 1);
        }
    }

    #[inline(always)]
    fn event(&mut self, endpoint: u32, output: bool) {
        if let Some(stats) = self.endpoint(endpoint) {
            let which = if output { EndpointStats::EVENTS_WITH_OUTPUT } else { EndpointStats::EVENTS_WITHOUT };
            add(cell(&mut stats.counters, which), 1);
        }
    }

    #[inline(always)]
    fn unread(&mut self, endpoint: u32) {
        if let Some(stats) = self.endpoint(endpoint) {
            add(&mut stats.counters[EndpointStats::UNREAD], 1);
        }
    }

    // Without branches: what is not known is added as 0.
    #[inline(always)]
    fn tokens(&mut self, tokens: Tokens, count: u32) {
        let stated = tokens.knows(Tokens::PROMPT | Tokens::COMPLETION);
        self.add(counter::USAGE_STATED, stated);
        self.add(counter::USAGE_MISSING, u64::from(count) - stated);
        self.add(counter::CACHED_TOKENS, u64::from(tokens.cached));
        self.add(counter::CACHED_STATED, tokens.knows(Tokens::CACHED));
        let Some(stats) = TOKEN_STATS.get_ptr_mut(self.slot) else { return };
        // SAFETY: a map value; other CPUs only add atomically.
        let stats = unsafe { &mut *stats };
        observe_tokens(&mut stats.prompt, tokens.prompt, tokens.knows(Tokens::PROMPT));
        observe_tokens(&mut stats.completion, tokens.completion, tokens.knows(Tokens::COMPLETION));
    }

    #[inline(always)]
    fn unseen(&mut self, endpoint: u32, bytes: u32) {
        if let Some(stats) = self.endpoint(endpoint) {
            add(&mut stats.counters[EndpointStats::UNSEEN_BYTES], bytes as u64);
        }
    }

    #[inline(always)]
    fn aborted(&mut self, endpoint: u32, side: Side, phase: Phase) {
        if let Some(stats) = self.endpoint(endpoint) {
            add(cell(&mut stats.counters, EndpointStats::aborted(side as u32, phase as u32)), 1);
        }
    }

    #[inline(always)]
    fn records(&mut self, ns: u64, failed: bool) -> bool {
        // SAFETY: a map value. What another CPU takes at the same time may count once: it is a rough bound.
        let Some(recorded) = RECORDED.get_ptr_mut(self.slot).map(|recorded| unsafe { &mut *recorded }) else {
            return false;
        };
        if recorded.left == 0 || !(failed || ns >= recorded.from_ns) {
            return false;
        }
        recorded.left = recorded.left.wrapping_sub(1);
        true
    }

    #[inline(always)]
    fn record(&mut self, finished: Finished) {
        trace::record(self.slot, self.sock, finished);
    }

    #[inline(always)]
    fn lost(&mut self, why: Lost, count: u32) {
        lost(why, count);
        say::lost(self.sock, why);
    }
}
