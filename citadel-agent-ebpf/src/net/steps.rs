//! How a segment's payload is parsed, in as many steps as it takes.
//!
//! The first steps are part of `net_ingress` and `net_egress`: most segments need no more. Further ones are calls of a global
//! function, which the verifier follows once, by itself, and not from each place where it is called: so there can be hundreds
//! of them. It is handed nothing but the context and a number, which is all that 5.10 knows, and finds the rest by them. If
//! they are not enough, the program calls itself by a tail call, 33 times at most.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use citadel_agent_common::abi::{Lost, Side};
use citadel_agent_common::connection::{Connection, Window};
use citadel_agent_common::http::conn::Progress;
use citadel_agent_common::http::{Pending, Sink};
use citadel_agent_ebpf::count::escape;

use crate::connections;
use crate::maps::{self, EARLY_INGRESS, EGRESS, EGRESS_PROGRAMS, INGRESS, INGRESS_PROGRAMS};
use crate::packet::{self, Bytes, Segment};
use crate::sink::Counters;

/// Steps that are part of the programs: most segments take one.
const FIRST_STEPS: u32 = 1;

/// Further steps of a run, for a server's segment. With those of 33 runs, a packet may hold 16,929 chunks: more than fit into
/// 64 KiB.
const MORE_STEPS: u32 = 512;

/// Further steps of a run, for a client's segment: 2,178 with those of 33 runs. Fewer, because anybody can send them, and the
/// chunks of requests are not counted.
const MORE_OF_CLIENTS: u32 = 64;

/// Processes a segment's payload.
#[inline(always)]
pub(crate) fn receive(
    connection: &mut Connection,
    skb: *mut __sk_buff,
    segment: &mut Segment,
    counters: &mut Counters,
) {
    let Some(window) = packet::claim() else { return counters.lost(Lost::StepLimit, 1) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut payload = segment.payload(skb, window, now);
    let (seq, len) = (segment.seq, segment.len);
    let first = connection.conn.receive::<FIRST_STEPS, _, _>(&mut payload, seq, len, now, counters);
    let progress = go_on(first, window, |index| net_received(skb, index));
    escape(connection);
    segment.recall(window);
    packet::release(window);
    if matches!(progress, Progress::More) {
        maps::tail_call(skb, &INGRESS_PROGRAMS, INGRESS);
        counters.lost(Lost::StepLimit, 1);
    }
}

/// Processes a segment's payload.
#[inline(always)]
pub(crate) fn transmit(
    connection: &mut Connection,
    skb: *mut __sk_buff,
    segment: &mut Segment,
    counters: &mut Counters,
) {
    // Without one, the next segment shows that this one was missed.
    let Some(window) = packet::claim() else { return counters.lost(Lost::StepLimit, 1) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (seq, len) = (segment.seq, segment.len);
    let mut payload = segment.payload(skb, window, now);
    let first = connection.conn.transmit::<FIRST_STEPS, _, _>(&mut payload, seq, len, segment.ack, now, counters);
    record(connection, skb);
    let progress = go_on(first, window, |index| net_sent(skb, index));
    escape(connection);
    segment.recall(window);
    packet::release(window);
    if matches!(progress, Progress::More) {
        maps::tail_call(skb, &EGRESS_PROGRAMS, EGRESS);
        counters.lost(Lost::StepLimit, 1);
        net_overrun(skb);
    }
}

/// Processes the payload of a segment to a listener, which `EARLY` is about.
#[inline(always)]
pub(crate) fn receive_early(skb: *mut __sk_buff, segment: &Segment, pending: &mut Pending) {
    let Some(window) = packet::claim() else { return pending.lost(Lost::StepLimit, 1) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    segment.payload(skb, window, now);
    let progress = go_on(Progress::More, window, |index| {
        for _ in 0..MORE_OF_CLIENTS {
            if net_early_step(skb, index) == 0 {
                return 0;
            }
        }
        1
    });
    escape(pending);
    packet::release(window);
    if matches!(progress, Progress::More) {
        maps::tail_call(skb, &INGRESS_PROGRAMS, EARLY_INGRESS);
        pending.lost(Lost::StepLimit, 1);
    }
}

/// Takes more steps, if there are any.
#[inline(always)]
fn go_on(first: Progress, window: &mut Window, more: impl FnOnce(u32) -> u32) -> Progress {
    if matches!(first, Progress::Done) {
        return Progress::Done;
    }
    escape(window);
    if more(window.index) == 0 { Progress::Done } else { Progress::More }
}

/// Further steps of a segment from a client; returns 0 if there are no more. A function of its own, so that the verifier does not
/// follow the loop from each state in which the first step ends.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_received(skb: *mut __sk_buff, window: u32) -> u32 {
    for _ in 0..MORE_OF_CLIENTS {
        if net_received_step(skb, window) == 0 {
            return 0;
        }
    }
    1
}

/// The same for a segment from a server.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_sent(skb: *mut __sk_buff, window: u32) -> u32 {
    for _ in 0..MORE_STEPS {
        if net_sent_step(skb, window) == 0 {
            return 0;
        }
    }
    1
}

/// The connection of a packet, and its counters.
#[inline(always)]
fn followed(skb: *mut __sk_buff) -> Option<(&'static mut Connection, Counters)> {
    let sock = packet::sock(skb);
    if sock.is_null() {
        return None;
    }
    let connection = connections::find(sock)?;
    let counters = Counters::of(connection.slot, sock)?;
    Some((connection, counters))
}

/// These, and the window that the caller has claimed.
#[inline(always)]
fn found(skb: *mut __sk_buff, window: u32) -> Option<(&'static mut Connection, Counters, &'static mut Window)> {
    let (connection, counters) = followed(skb)?;
    Some((connection, counters, packet::claimed(window)?))
}

/// One more step of a segment from a client; returns 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_received_step(skb: *mut __sk_buff, window: u32) -> u32 {
    let Some((connection, mut counters, window)) = found(skb, window) else { return 0 };
    let (seq, len, now) = (window.seq, window.payload_len, window.now);
    let mut payload = Bytes::go_on(skb, window);
    let progress = connection.conn.receive::<1, _, _>(&mut payload, seq, len, now, &mut counters);
    u32::from(matches!(progress, Progress::More))
}

/// One step of a segment to a listener; returns 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_early_step(skb: *mut __sk_buff, window: u32) -> u32 {
    // SAFETY: a map value of this CPU only.
    let Some(early) = maps::EARLY.get_ptr_mut(0).map(|early| unsafe { &mut *early }) else { return 0 };
    let Some(window) = packet::claimed(window) else { return 0 };
    let (seq, len, now) = (window.seq, window.payload_len, window.now);
    let mut payload = Bytes::go_on(skb, window);
    let progress = early.connection.conn.receive::<1, _, _>(&mut payload, seq, len, now, &mut early.pending);
    u32::from(matches!(progress, Progress::More))
}

/// One more step of a segment from a server; returns 0 if there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_sent_step(skb: *mut __sk_buff, window: u32) -> u32 {
    let Some((connection, mut counters, window)) = found(skb, window) else { return 0 };
    let (seq, len, ack, now) = (window.seq, window.payload_len, window.ack, window.now);
    let mut payload = Bytes::go_on(skb, window);
    let progress = connection.conn.transmit::<1, _, _>(&mut payload, seq, len, ack, now, &mut counters);
    record(connection, skb);
    u32::from(matches!(progress, Progress::More))
}

/// The rest of a segment from a server will not be parsed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_overrun(skb: *mut __sk_buff) -> u32 {
    let Some(segment) = Segment::read(skb) else { return 0 };
    let Some((connection, mut counters)) = followed(skb) else { return 0 };
    let Some(window) = packet::claim() else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut payload = segment.payload(skb, window, now);
    connection.conn.overrun(&mut payload, segment.seq, segment.len, now, &mut counters);
    record(connection, skb);
    packet::release(window);
    1
}

/// Records the request that a step has ended, if that is wanted.
#[inline(always)]
pub(crate) fn record(connection: &mut Connection, skb: *mut __sk_buff) {
    if connection.conn.has_due() {
        escape(connection);
        net_record(skb);
        escape(connection);
    }
}

/// A function of its own because of the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_record(skb: *mut __sk_buff) -> u32 {
    let Some((connection, mut counters)) = followed(skb) else { return 0 };
    connection.conn.record_due(&mut counters);
    1
}

/// For [`net_closed`]: the server sent a FIN.
pub(crate) const FIN: u32 = 1;
/// For [`net_closed`]: the server sent a RST.
pub(crate) const RESET: u32 = 2;

/// The connection ends with this segment: the client's, if `how` is 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_closed(skb: *mut __sk_buff, how: u32) -> u32 {
    let Some((connection, mut counters)) = followed(skb) else { return 0 };
    let side = if how == 0 { Side::Client } else { Side::Server };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // No callback reports the end of a connection that is older than the programs.
    connection.conn.close(how == FIN, side, connection.joined != 0, now, &mut counters);
    1
}

/// Reads on in a stream's events, for a step.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_events(skb: *mut __sk_buff, window: u32) -> u32 {
    let sock = packet::sock(skb);
    if sock.is_null() {
        return 0;
    }
    let Some(window) = packet::claimed(window) else { return 0 };
    let Some(connection) = connections::find(sock) else { return 0 };
    connection.conn.events().look(&mut Bytes::go_on(skb, window));
    1
}

/// Searches a block of a segment for token counts, for `net_tokens`: of the `left` bytes of its payload from `from` on. Returns how
/// many it took.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_search(skb: *mut __sk_buff, window: u32, from: u32, left: u32) -> u32 {
    let sock = packet::sock(skb);
    if sock.is_null() {
        return 0;
    }
    let Some(window) = packet::claimed(window) else { return 0 };
    let Some(connection) = connections::find(sock) else { return 0 };
    connection.conn.usage().search_block(&mut Bytes::go_on(skb, window), from, left)
}
