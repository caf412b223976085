//! Connections that are not parsed (TLS, HTTP/2, upgraded, unintelligible): they give their state back, and their bytes are counted
//! in a note.
//!
//! The two directions run at the same time, and each counts its own bytes. So each moves its own count, with its next segment, and the
//! state is freed when both have.

use aya_ebpf::bindings::{__sk_buff, BPF_TCP_CLOSE_WAIT, BPF_TCP_CLOSING, BPF_TCP_LAST_ACK, bpf_sock};
use citadel_agent_common::abi::counter;
use citadel_agent_common::connection::{Connection, Counted, Note, note};
use citadel_agent_common::http::Sink;

use crate::packet::{self, Segment};
use crate::sink::Counters;
use crate::{connections, maps, tcp_sock};

/// Handles a segment of a connection that is not parsed; `response`: 1 from the server, else 0. Returns 0 if there is no room for
/// a note: then the connection keeps its state, which is as good.
///
/// A global function, because the verifier then follows it only once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn net_opaque(skb: *mut __sk_buff, response: u32) -> u32 {
    let Some(segment) = Segment::read(skb) else { return 0 };
    let sock = packet::sock(skb);
    if sock.is_null() {
        return 0;
    }
    let connection = connections::find(sock);
    let maker = if response == 0 { note::BY_INGRESS } else { note::BY_EGRESS };
    let Some(note) = opaque(sock, connection.as_deref(), maker) else { return 0 };
    let Some(mut counters) = maps::slot(packet::local_port(skb)).and_then(|slot| Counters::of(slot, sock)) else {
        return 0;
    };
    let Some(tcp) = tcp_sock(sock) else { return 0 };
    // SAFETY: behind a reference. Volatile, so that the compiler does not compute with the pointer, which the verifier refuses.
    let (rcv_nxt, total_retrans) =
        unsafe { ((&raw const tcp.rcv_nxt).read_volatile(), (&raw const tcp.total_retrans).read_volatile()) };
    if response == 0 {
        if note.received.here == 0 {
            let next = connection.as_deref().and_then(|connection| connection.conn.next::<false>());
            note.received = Counted { here: 1, next: next.unwrap_or(segment.seq) };
        }
        // SAFETY: the verifier knows that it is a socket.
        let state = unsafe { (&raw const (*sock).state).read_volatile() };
        // A FIN has a sequence number too.
        let ended = matches!(state, BPF_TCP_CLOSE_WAIT | BPF_TCP_CLOSING | BPF_TCP_LAST_ACK);
        let has = if ended { note.received.next } else { rcv_nxt };
        let new = note.received.count(segment.seq, segment.len, has);
        if new != 0 {
            counters.bytes(false, new);
        }
    } else {
        if note.sent.here == 0 {
            let next = connection.as_deref().and_then(|connection| connection.conn.next::<true>());
            note.sent = Counted { here: 1, next: next.unwrap_or(segment.seq) };
        }
        let new = note.sent.count(segment.seq, segment.len, segment.seq);
        if new != 0 {
            counters.bytes(true, new);
        }
        let retransmits = total_retrans.wrapping_sub(note.retransmits);
        if retransmits != 0 {
            note.retransmits = total_retrans;
            counters.add(counter::RETRANSMITS, retransmits as u64);
        }
    }
    let both = note.received.here != 0 && note.sent.here != 0;
    // No callback reports the end of a connection that is older than the programs.
    let over = note.flags & note::OPEN == 0 && segment.ends();
    if over && (response != 0 || segment.is_reset() && rcv_nxt == segment.seq) {
        connections::release(sock);
    } else if both && connection.is_some() {
        connections::unfollow(sock);
    }
    1
}

/// The note of a connection that is not parsed. It is created from the connection's state.
#[inline(always)]
fn opaque(sock: *mut bpf_sock, connection: Option<&Connection>, maker: u32) -> Option<&'static mut Note> {
    if connections::note_of(sock).is_none() {
        let connection = connection?;
        let open = if connection.joined == 0 { note::OPEN } else { 0 };
        let note = Note { retransmits: connection.retransmits, ..Note::new(note::OPAQUE | open | maker) };
        if !connections::note(sock, note) {
            return None;
        }
        if connections::find(sock).is_none() {
            // The callback that reports the connection's end frees the state, and then the note, if it was there.
            connections::remove_note(sock);
            return None;
        }
    }
    let note = connections::note_of(sock)?;
    // SAFETY: behind a reference. Volatile for 5.10, as in `connections.rs`.
    if unsafe { (&raw const note.flags).read_volatile() } & note::OPAQUE == 0 { None } else { Some(note) }
}
