//! The `net` family: requests, tokens and TCP of each model port, observed below the socket. And `recvq`, which uses
//! its connections: a map can only be shared within an object, but each program is still loaded separately.
//!
//! `net_ingress` and `net_egress` (cgroup_skb) see every segment of every socket below their cgroup, `net_sockops`
//! (sock_ops) sees connections open and close. All three are thin: they look up the connection's state and pass on what
//! they saw; `citadel_agent_common::http` interprets it. They never change or drop a packet.
//!
//! Hooks and helpers are stable UAPI, all available in Linux 5.10 (sk_storage from cgroup_skb since 5.9; mmapable
//! arrays since 5.5).
#![no_std]
#![no_main]

mod connections;
mod in_flight;
mod maps;
mod opaque;
mod packet;
mod receive_queue;
mod say;
mod sink;
mod steps;
mod trace;

use aya_ebpf::bindings::{
    __sk_buff, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED,
    BPF_TCP_LISTEN, BPF_TCP_SYN_RECV, bpf_sock, bpf_sock_ops, bpf_tcp_sock,
};
use aya_ebpf::helpers::generated as helpers;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_map_update_elem, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::{cgroup_skb, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};
use citadel_agent_common::abi::{Lost, Protocol, Side, counter};
use citadel_agent_common::connection::{Connection, Early, Note, Tuple, note};
use citadel_agent_common::http::Sink;

use maps::{BLANK, EARLY, EARLY_INGRESS, EGRESS_PROGRAMS, INGRESS_PROGRAMS, TOKENS, V4_MAPPED};
use opaque::net_opaque;
use packet::Segment;
use sink::Counters;
use steps::{FIN, RESET, net_closed, receive, receive_early, transmit};

/// Return value of a cgroup program that lets the packet pass.
const PASS: i32 = 1;

/// Segments from clients.
#[cgroup_skb(ingress)]
pub fn net_ingress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    if let Some(slot) = maps::slot(packet::local_port(skb)) {
        ingress(skb, slot);
    }
    PASS
}

/// Segments from clients that belong to a listener: continuation of `net_ingress`. A separate program, because
/// otherwise the verifier would follow the whole parser once for each kind of memory that the connection's state can be
/// in.
#[cgroup_skb(ingress)]
pub fn net_early(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    if maps::slot(packet::local_port(skb)).is_some() {
        early_ingress(skb);
    }
    PASS
}

/// Segments from servers.
#[cgroup_skb(egress)]
pub fn net_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    if let Some(slot) = maps::slot(packet::local_port(skb)) {
        egress(skb, slot);
    }
    PASS
}

/// Segments from servers in which a response may state its tokens: continuation of `net_egress`. A separate program, because the
/// verifier's limit is for each.
#[cgroup_skb(egress)]
pub fn net_tokens(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    if let Some(slot) = maps::slot(packet::local_port(skb)) {
        tokens(skb, slot);
    }
    PASS
}

/// Connections that open and close.
#[sock_ops]
pub fn net_sockops(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context is valid for the whole run. Volatile: context accesses are rewritten individually.
    let port = unsafe { (&raw const (*ctx.ops).local_port).read_volatile() };
    if let Some(slot) = maps::slot(port) {
        sockops(ctx.ops, slot);
    }
    1
}

#[inline(always)]
fn ingress(skb: *mut __sk_buff, slot: u32) {
    let Some(mut segment) = Segment::read(skb) else { return unread(skb) };
    let sock = packet::sock(skb);
    if sock.is_null() {
        return;
    }
    // SAFETY: not null; the verifier knows that it is a socket.
    if unsafe { (&raw const (*sock).state).read_volatile() } == BPF_TCP_LISTEN {
        maps::tail_call(skb, &INGRESS_PROGRAMS, EARLY_INGRESS);
        return;
    }
    if segment.is_bare() {
        return;
    }
    let Some(connection) = connection::<false>(skb, sock, slot, segment.len > 0) else { return };
    let Some(mut counters) = Counters::of(slot, sock) else { return };
    if maps::tracing() != 0 && segment.len > 0 {
        trace::net_trace(skb);
    }
    // A FIN comes last: with it, data that arrived out of order is settled.
    if segment.len > 0 || segment.is_fin() {
        if !connection.conn.is_next(segment.seq)
            && let Some(tcp) = tcp_sock(sock)
        {
            // Out of order: the data that the socket has in order by now shows what was missed.
            connection.conn.has_in_order(tcp.rcv_nxt);
        }
        receive(connection, skb, &mut segment, &mut counters);
    }
    if segment.ends() {
        // TCP accepts a FIN or RST only if it is the next in order; others may be anybody's. One that was early ends the
        // connection in the callback of `net_sockops`.
        let next = if segment.is_reset() { segment.seq } else { segment.seq.wrapping_add(segment.len) };
        if !connection.conn.is_next(next) && tcp_sock(sock).is_none_or(|tcp| tcp.rcv_nxt != next) {
            return;
        }
        connection.conn.client_ends();
        // No callback reports the close of a connection older than the programs: the packet has to.
        if segment.is_reset() && connection.joined != 0 {
            net_closed(skb, 0);
            connections::release(sock);
        }
    }
}

/// A segment that still belongs to the listener, because the child's socket does not exist yet: TCP Fast Open, deferred
/// accept, a lost ACK. There may never be a connection, and anybody can send such a segment: so the observations are
/// stored in `EARLY`, and count when `net_sockops` passes them to the child, in the same softirq.
#[inline(always)]
fn early_ingress(skb: *mut __sk_buff) {
    let Some(segment) = Segment::read(skb) else { return };
    let Some(Early { pending, .. }) = early(skb, &segment) else { return };
    receive_early(skb, &segment, pending);
}

/// Handles a packet that is not measured.
#[inline(always)]
fn unread(skb: *mut __sk_buff) {
    if packet::is_tcp(skb) {
        sink::lost(Lost::PacketHeader, 1);
        say::unreadable(skb);
    }
}

#[inline(always)]
fn egress(skb: *mut __sk_buff, slot: u32) {
    let Some(mut segment) = Segment::read(skb) else { return unread(skb) };
    if segment.is_bare() {
        return;
    }
    let sock = packet::sock(skb);
    if sock.is_null() {
        return;
    }
    let Some(connection) = connection::<true>(skb, sock, slot, segment.len > 0) else { return };
    let Some(mut counters) = Counters::of(slot, sock) else { return };
    if (segment.ends() || connection.conn.has_sent(segment.seq))
        && let Some(tcp) = tcp_sock(sock)
    {
        count_retransmits(connection, tcp.total_retrans, &mut counters);
    }
    if segment.len > 0 {
        transmit(connection, skb, &mut segment, &mut counters);
    }
    if segment.ends() {
        net_closed(skb, if segment.is_reset() { RESET } else { FIN });
        steps::record(connection, skb);
        if connection.joined != 0 {
            connections::release(sock);
            return;
        }
    }
    if connection.conn.may_state_tokens(segment.seq, segment.len) {
        maps::tail_call(skb, &EGRESS_PROGRAMS, TOKENS);
    }
}

/// Searches a segment for the tokens that a response states.
#[inline(always)]
fn tokens(skb: *mut __sk_buff, slot: u32) {
    let Some(mut segment) = Segment::read(skb) else { return };
    let sock = packet::sock(skb);
    if sock.is_null() {
        return;
    }
    let (Some(connection), Some(mut counters)) = (connections::find(sock), Counters::of(slot, sock)) else { return };
    let Some(window) = packet::claim() else { return sink::lost(Lost::StepLimit, 1) };
    let mut payload = segment.payload(skb, window, 0);
    connection.conn.search_tokens(&mut payload, segment.seq, segment.len, &mut counters);
    segment.recall(window);
    packet::release(window);
}

#[inline(always)]
fn sockops(ops: *mut bpf_sock_ops, slot: u32) {
    // Context accesses are rewritten individually, so each field is read separately.
    macro_rules! field {
        ($($place:tt)+) => {
            // SAFETY: the context is valid for the whole run.
            unsafe { (&raw const (*ops).$($place)+).read_volatile() }
        };
    }
    let op = field!(op);
    if !matches!(op, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB | BPF_SOCK_OPS_STATE_CB | BPF_SOCK_OPS_TCP_CONNECT_CB) {
        return;
    }
    let sock: *mut bpf_sock = field!(__bindgen_anon_2.sk);
    if sock.is_null() {
        return;
    }
    // The call replaces the flags, and another program may have set some.
    let call_back = |why: u32| {
        let flags = field!(bpf_sock_ops_cb_flags) | why;
        // SAFETY: a valid context.
        unsafe { bpf_sock_ops_cb_flags_set(ops, flags as i32) };
    };
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        if connections::note(sock, Note::new(note::IGNORED)) {
            call_back(BPF_SOCK_OPS_STATE_CB_FLAG);
        }
    } else if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        let mut tuple = Tuple {
            remote: [V4_MAPPED[0], V4_MAPPED[1], V4_MAPPED[2], field!(remote_ip4)],
            local: [V4_MAPPED[0], V4_MAPPED[1], V4_MAPPED[2], field!(local_ip4)],
            remote_port: u32::from_be(field!(remote_port)),
            local_port: field!(local_port),
        };
        if field!(family) == AF_INET6 {
            tuple.remote = [field!(remote_ip6[0]), field!(remote_ip6[1]), field!(remote_ip6[2]), field!(remote_ip6[3])];
            tuple.local = [field!(local_ip6[0]), field!(local_ip6[1]), field!(local_ip6[2]), field!(local_ip6[3])];
        }
        if maps::is_own(&mut tuple) {
            if connections::note(sock, Note::new(note::IGNORED)) {
                call_back(BPF_SOCK_OPS_STATE_CB_FLAG);
            }
            return;
        }
        call_back(BPF_SOCK_OPS_STATE_CB_FLAG);
        let Some(mut counters) = Counters::of(slot, sock) else { return };
        counters.add(counter::OPENED, 1);
        let rcv_nxt = field!(rcv_nxt);
        // SAFETY: a map value; nothing else runs in this CPU's softirq.
        let Some(early) = EARLY.get_ptr_mut(0).map(|early| unsafe { &mut *early }) else { return };
        // Early observations become the connection's initial state.
        if early.present != 0 && early.first_seq == rcv_nxt && early.tuple.is(&tuple) {
            early.present = 0;
            if let Some(connection) = connections::begin(sock, &raw mut early.connection) {
                connection.slot = slot;
                early.pending.tell(&mut counters);
                return;
            }
        }
        if !connections::note(sock, Note::new(note::OPEN)) {
            call_back(NOT_NOTED);
        }
    } else {
        let (old, new) = (field!(__bindgen_anon_1.args[0]), field!(__bindgen_anon_1.args[1]));
        let (noted, retransmits) = connections::flags_and_retransmits(sock);
        if noted & note::IGNORED != 0 {
            if new == BPF_TCP_CLOSE {
                connections::release(sock);
            }
            return;
        }
        let Some(mut counters) = Counters::of(slot, sock) else { return };
        if new == BPF_TCP_CLOSE {
            // The first data can arrive at this moment, on another CPU: `follow` creates the state, and then removes the note.
            connections::remove_note(sock);
        }
        let mut connection = connections::find(sock);
        let had_state = connection.is_some();
        // A connection older than the programs has callbacks only if another program requested them, and was not
        // counted as open.
        let mut counted = noted & note::OPEN != 0 || field!(bpf_sock_ops_cb_flags) & NOT_NOTED != 0;
        if let Some(connection) = &mut connection {
            if new == BPF_TCP_CLOSE_WAIT {
                // The client's FIN was accepted.
                connection.conn.client_ends();
            }
            if counted {
                connection.joined = 0;
            }
            counted = connection.joined == 0;
            if noted & note::OPAQUE != 0 {
                connection.retransmits = retransmits;
            }
        }
        // Open for as long as the server's application has it open. A connection enters the first of these states right
        // after it was counted, and with TCP Fast Open may be closed in it.
        let was_open = matches!(old, BPF_TCP_SYN_RECV | BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT);
        if counted && was_open && new != BPF_TCP_ESTABLISHED && new != BPF_TCP_CLOSE_WAIT {
            counters.add(counter::CLOSED, 1);
        }
        if new != BPF_TCP_CLOSE {
            return;
        }
        let total = field!(total_retrans);
        if let Some(connection) = connection {
            count_retransmits(connection, total, &mut counters);
            // An abortive close by the server's application gets here before its RST is sent (`tcp_disconnect`,
            // `tcp_close`). A retransmission timeout sends none: then segments are lost or being retransmitted, and it
            // is the client that has disappeared.
            let vanished = field!(retrans_out) | field!(lost_out) != 0;
            let side = if vanished { Side::Client } else { Side::Server };
            // SAFETY: no arguments.
            connection.conn.close(false, side, true, unsafe { bpf_ktime_get_ns() }, &mut counters);
        } else if counted {
            let new = total.wrapping_sub(retransmits);
            if new != 0 {
                counters.add(counter::RETRANSMITS, new as u64);
            }
            if noted & note::OPAQUE == 0 {
                // No data arrived, or none was parsed.
                counters.protocol(Protocol::Other as u32);
            }
        }
        connections::unfollow(sock);
        if had_state {
            // The other CPU may have made a note of it meanwhile (`opaque.rs`): it looks for the state after that.
            connections::remove_note(sock);
        }
    }
}

/// Identifies a connection for which there was no room for a note: the programs also request RTO callbacks, which
/// nobody else combines with the others, and ignore them.
const NOT_NOTED: u32 = BPF_SOCK_OPS_RTO_CB_FLAG;

/// `AF_INET6` from `<linux/socket.h>`.
const AF_INET6: u32 = 10;

/// The connection's state; `None` for one that is not measured, or not parsed. It is created when a segment has a payload.
#[inline(always)]
fn connection<const RESPONSE: bool>(
    skb: *mut __sk_buff,
    sock: *mut bpf_sock,
    slot: u32,
    carries: bool,
) -> Option<&'static mut Connection> {
    let found = match connections::find(sock) {
        None if carries => connections::follow(sock, slot),
        found => found,
    };
    match found {
        Some(connection) if connection.conn.is_opaque() && net_opaque(skb, u32::from(RESPONSE)) != 0 => None,
        None => {
            net_opaque(skb, u32::from(RESPONSE));
            None
        }
        followed => followed,
    }
}

/// The TCP state of the socket.
#[inline(always)]
pub(crate) fn tcp_sock(sock: *mut bpf_sock) -> Option<&'static bpf_tcp_sock> {
    // SAFETY: the socket is valid while its packet is processed, which is as long as the program runs.
    unsafe { helpers::bpf_tcp_sock(sock).as_ref() }
}

/// The entry of `EARLY` for a segment's payload.
#[inline(always)]
fn early(skb: *mut __sk_buff, segment: &Segment) -> Option<&'static mut Early> {
    let mut tuple = segment.tuple(skb);
    if maps::is_own(&mut tuple) {
        return None;
    }
    // SAFETY: a map value of this CPU only.
    let early = unsafe { &mut *EARLY.get_ptr_mut(0)? };
    if segment.len == 0 {
        // The handshake completes without the data of a SYN: it was not accepted, and will be sent again.
        if !segment.is_syn() {
            early.present = 0;
        }
        return None;
    }
    if early.present != 0 && early.first_seq == segment.seq && early.tuple.is(&tuple) {
        return Some(early);
    }
    let blank = BLANK.get_ptr(0)?;
    let mut zero = 0u32;
    // SAFETY: valid maps, key and value, which have the same length.
    unsafe {
        let map = (&raw const EARLY).cast_mut().cast();
        bpf_map_update_elem(map, (&raw mut zero).cast(), blank.cast_mut().cast(), 0);
    }
    // SAFETY: as above.
    let early = unsafe { &mut *EARLY.get_ptr_mut(0)? };
    (early.tuple, early.first_seq, early.present) = (tuple, segment.seq, 1);
    early.connection.known = 1;
    Some(early)
}

/// Counts the socket's retransmissions since the last call.
#[inline(always)]
fn count_retransmits(connection: &mut Connection, total: u32, counters: &mut Counters) {
    let new = total.wrapping_sub(connection.retransmits);
    if new != 0 {
        connection.retransmits = total;
        counters.add(counter::RETRANSMITS, new as u64);
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
