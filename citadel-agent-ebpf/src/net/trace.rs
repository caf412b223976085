//! Records of single requests, and the details that are collected for them while somebody traces.

use core::ffi::c_void;
use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_reserve, bpf_ringbuf_submit, bpf_sk_storage_get};
use citadel_agent_common::abi::Lost;
use citadel_agent_common::trace::{Details, Finished, Record, UNKNOWN, flag};
use citadel_agent_ebpf::field::word;

use crate::maps::{DETAILS, TRACE, V4_MAPPED, tracing};
use crate::packet::{self, Segment};
use crate::{AF_INET6, connections, sink, tcp_sock};

/// What is collected on a socket; created only with the flag.
#[inline(always)]
fn details(sock: *mut c_void, flags: u32) -> Option<&'static mut Details> {
    let map = (&raw const DETAILS).cast_mut().cast();
    // SAFETY: a valid map and socket. The pointer is valid until the program returns; each field has one writer.
    unsafe { bpf_sk_storage_get(map, sock, core::ptr::null_mut(), u64::from(flags)).cast::<Details>().as_mut() }
}

/// Notes where a request begins, and its ID, if this segment of a client begins one and no other is outstanding. A function of its
/// own, for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_trace(skb: *mut __sk_buff) -> u32 {
    let Some(segment) = Segment::read(skb) else { return 0 };
    let sock = packet::sock(skb);
    if sock.is_null() {
        return 0;
    }
    let Some(connection) = connections::find(sock) else { return 0 };
    let Some(number) = connection.conn.next_request(segment.seq) else { return 0 };
    let Some(tcp) = tcp_sock(sock) else { return 0 };
    let (retransmits, next) = (tcp.total_retrans, tcp.snd_nxt);
    let Some(details) = details(sock.cast(), BPF_SK_STORAGE_GET_F_CREATE) else { return 0 };
    details.tracing = 0;
    details.number = number;
    details.request_begin = segment.seq;
    // The parser's own is exact while the server's TCP still sends.
    details.response_begin = connection.conn.next_response().unwrap_or(next);
    details.retransmits = retransmits;
    details.streamed = 0;
    let Some(window) = packet::claim() else { return 0 };
    details.find_id(&mut segment.payload(skb, window, 0), segment.len);
    packet::release(window);
    details.tracing = tracing();
    1
}

/// An event with output was sent, `ns` after the request or the one before.
#[inline(always)]
pub(crate) fn output(sock: *mut bpf_sock, first: bool, ns: u64) {
    let Some(details) = details(sock.cast(), 0) else { return };
    if first {
        details.streamed = tracing();
        details.events = 1;
        details.token_ns = ns;
        details.gap_ns = 0;
        details.gap_at_ns = 0;
        return;
    }
    details.events = details.events.wrapping_add(1);
    if ns > details.gap_ns {
        details.gap_ns = ns;
        // SAFETY: no arguments.
        details.gap_at_ns = unsafe { bpf_ktime_get_ns() };
    }
}

/// The server has read the first byte of a request, which arrived at `from` and was `ns` in the receive queue.
#[inline(always)]
pub(crate) fn queued(sock: *const c_void, from: u64, ns: u64) {
    let Some(details) = details(sock.cast_mut(), 0) else { return };
    // Of several that arrived in one segment, the first.
    if details.queued_from != from {
        details.queued_from = from;
        details.queued_ns = ns;
    }
}

/// Records a request.
#[inline(always)]
pub(crate) fn record(slot: u32, sock: *mut bpf_sock, finished: Finished) {
    // SAFETY: a valid map.
    let place = unsafe { bpf_ringbuf_reserve((&raw const TRACE).cast_mut().cast(), size_of::<Record>() as u64, 0) };
    // SAFETY: null, or the place that was reserved, which is as long as a record.
    let record = unsafe { place.cast::<Record>().as_mut() };
    let Some(record) = record else { return sink::lost(Lost::TraceFull, 1) };
    record.ended_ns = finished.ended_ns;
    record.first_ns = finished.first_ns;
    record.complete_ns = finished.complete_ns;
    record.answered_ns = finished.answered_ns;
    record.slot = slot;
    record.endpoint = finished.endpoint;
    record.code = finished.code;
    record.ended_by = finished.ended_by;
    record.phase = finished.phase;
    record.flags = 0;
    peer(record, sock);
    let tracing = tracing();
    if tracing != 0
        && finished.alone
        && let Some(details) = details(sock.cast(), 0)
        && details.tracing == tracing
        && details.number == finished.number
    {
        fill(record, details, sock, &finished, tracing);
    }
    // SAFETY: the reserved place, once.
    unsafe { bpf_ringbuf_submit(place, u64::from(BPF_RB_NO_WAKEUP)) };
}

/// The client's address.
#[inline(always)]
fn peer(record: &mut Record, sock: *mut bpf_sock) {
    const V6: usize = offset_of!(bpf_sock, dst_ip6);
    macro_rules! word {
        ($at:expr) => {
            // SAFETY: the socket is valid while its packet is processed, and this is a field of four bytes.
            unsafe { word::<{ $at }, _>(sock) }
        };
    }
    // The port has been 16 bits wide since 5.18; before, 32 bits, of which these are the lower ones.
    record.client_port = u32::from(u16::from_be(word!(offset_of!(bpf_sock, dst_port)) as u16));
    if word!(offset_of!(bpf_sock, family)) == AF_INET6 {
        record.client = [word!(V6), word!(V6 + 4), word!(V6 + 8), word!(V6 + 12)];
    } else {
        record.client = [V4_MAPPED[0], V4_MAPPED[1], V4_MAPPED[2], word!(offset_of!(bpf_sock, dst_ip4))];
    }
}

#[inline(always)]
fn fill(record: &mut Record, details: &Details, sock: *mut bpf_sock, finished: &Finished, tracing: u32) {
    record.flags = flag::DETAILS | details.id_kind;
    record.request_bytes = finished.request_end.wrapping_sub(details.request_begin);
    record.response_bytes = finished.response_end.wrapping_sub(details.response_begin);
    record.queued_ns = if details.queued_from == finished.first_ns { details.queued_ns } else { UNKNOWN };
    record.retransmits = tcp_sock(sock).map_or(0, |tcp| tcp.total_retrans.wrapping_sub(details.retransmits));
    if details.streamed == tracing {
        record.flags |= flag::EVENTS;
        record.token_ns = details.token_ns;
        record.gap_ns = details.gap_ns;
        record.gap_at_ns = details.gap_at_ns;
        record.events = details.events;
    }
    record.id_len = details.id_len;
    if details.id_len != 0 {
        record.id = details.id;
    }
}
