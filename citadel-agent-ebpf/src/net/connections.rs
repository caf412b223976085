//! Per-socket state, and limits on it: its memory is charged to the agent's cgroup, and anybody can open connections.
//!
//! Until the first payload byte, a connection has a note of 24 bytes; after it the complete state, and no note. Once it is clear
//! that it is not to be parsed, it has a note again (`opaque.rs`). A connection beyond the limits in `ROOM` has neither: it is
//! still counted as open and closed, because callbacks report that, but it is not followed.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_SYN_RECV, bpf_sock,
};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use citadel_agent_common::abi::Lost;
use citadel_agent_common::connection::{Connection, Note, note as flag, room};
use citadel_agent_ebpf::count::add;

use crate::maps::{CONNECTIONS, NOTES, ROOM};
use crate::{say, sink, tcp_sock};

const CREATE: u64 = BPF_SK_STORAGE_GET_F_CREATE as u64;

fn connections() -> *mut c_void {
    (&raw const CONNECTIONS).cast_mut().cast()
}

fn notes() -> *mut c_void {
    (&raw const NOTES).cast_mut().cast()
}

/// The state of a socket's connection, if there is one.
#[inline(always)]
pub(crate) fn find(sock: *mut bpf_sock) -> Option<&'static mut Connection> {
    // SAFETY: a valid map and socket. The pointer is valid until the program returns, and the two directions of the
    // socket write different fields behind it.
    unsafe { bpf_sk_storage_get(connections(), sock.cast(), core::ptr::null_mut(), 0).cast::<Connection>().as_mut() }
}

/// The socket's note, if there is one.
#[inline(always)]
pub(crate) fn note_of(sock: *mut bpf_sock) -> Option<&'static mut Note> {
    // SAFETY: a valid map and socket. As in `find`.
    unsafe { bpf_sk_storage_get(notes(), sock.cast(), core::ptr::null_mut(), 0).cast::<Note>().as_mut() }
}

/// The flags in the socket's note.
#[inline(always)]
pub(crate) fn noted(sock: *mut bpf_sock) -> u32 {
    flags_and_retransmits(sock).0
}

/// The flags in the socket's note, and the retransmitted segments that have been counted in it. Volatile: else the compiler computes
/// the address of a field before it knows that there is a note, which 5.10 refuses.
#[inline(always)]
pub(crate) fn flags_and_retransmits(sock: *mut bpf_sock) -> (u32, u32) {
    if let Some(note) = note_of(sock) {
        // SAFETY: behind a reference.
        return unsafe { ((&raw const note.flags).read_volatile(), (&raw const note.retransmits).read_volatile()) };
    }
    (0, 0)
}

/// Creates the socket's note; returns false if there is no room.
#[inline(always)]
pub(crate) fn note(sock: *mut bpf_sock, mut note: Note) -> bool {
    if !take(room::NOTED, room::MAX_NOTED) {
        return false;
    }
    // SAFETY: a valid map, socket and value.
    let made =
        unsafe { bpf_sk_storage_get(notes(), sock.cast(), (&raw mut note).cast(), CREATE).cast::<Note>().as_ref() };
    let Some(made) = made else {
        give(room::NOTED);
        return false;
    };
    // SAFETY: behind a reference. Volatile for 5.10, as above.
    let flags = unsafe { (&raw const made.flags).read_volatile() };
    if (flags ^ note.flags) & flag::MAKERS != 0 {
        // The other direction has made it, on another CPU.
        give(room::NOTED);
    }
    true
}

/// Starts a connection for which data arrived before it existed.
#[inline(always)]
pub(crate) fn begin(sock: *mut bpf_sock, first: *mut Connection) -> Option<&'static mut Connection> {
    if !take(room::FOLLOWED, room::MAX_FOLLOWED) {
        sink::lost(Lost::ConnectionsFull, 1);
        return None;
    }
    // SAFETY: as in `find`; the initial value is a map value.
    let made =
        unsafe { bpf_sk_storage_get(connections(), sock.cast(), first.cast(), CREATE).cast::<Connection>().as_mut() };
    if made.is_none() {
        give(room::FOLLOWED);
        sink::lost(Lost::NoMemory, 1);
    }
    made
}

/// Creates the state on the first payload of a connection, or of one that is older than the programs.
#[inline(never)]
pub(crate) fn follow(sock: *mut bpf_sock, slot: u32) -> Option<&'static mut Connection> {
    let noted = noted(sock);
    if noted & (flag::IGNORED | flag::OPAQUE) != 0 {
        return None;
    }
    // After the server has closed it, nothing that counts follows.
    if !is_open(sock) {
        return None;
    }
    let (received, next, retransmits) = match tcp_sock(sock) {
        Some(tcp) => (tcp.bytes_received, tcp.rcv_nxt, tcp.total_retrans),
        None => return None,
    };
    if !take(room::FOLLOWED, room::MAX_FOLLOWED) {
        // Only once per connection, as far as that can be determined.
        if received == 0 {
            sink::lost(Lost::ConnectionsFull, 1);
        }
        return None;
    }
    // SAFETY: as in `find`.
    let made = unsafe {
        bpf_sk_storage_get(connections(), sock.cast(), core::ptr::null_mut(), CREATE).cast::<Connection>().as_mut()
    };
    let Some(connection) = made else {
        give(room::FOLLOWED);
        // It also fails while the socket's last entry is being deleted, because the connection ends: its note is gone then. An
        // older connection has none either, and is tried again with its next segment.
        if self::noted(sock) & flag::OPEN != 0 {
            sink::lost(Lost::NoMemory, 1);
        }
        return None;
    };
    if connection.known != 0 {
        // The other direction did the same on another CPU.
        give(room::FOLLOWED);
        return Some(connection);
    }
    connection.known = 1;
    connection.slot = slot;
    if noted & flag::OPEN == 0 {
        connection.joined = 1;
        connection.retransmits = retransmits;
        if !is_open(sock) {
            // It has ended meanwhile, on another CPU, and no callback will report that again.
            release(sock);
            return None;
        }
        say::joined(sock);
    } else if !remove_note(sock) {
        // The other direction has, or the callback that reports the connection's end; then this may be too late.
        return find(sock);
    }
    if received == 0 {
        connection.conn.expect_first(next);
    } else {
        connection.conn.join();
    }
    Some(connection)
}

/// Frees a socket's state and note.
#[inline(always)]
pub(crate) fn release(sock: *mut bpf_sock) {
    unfollow(sock);
    remove_note(sock);
}

/// Frees a socket's state.
#[inline(always)]
pub(crate) fn unfollow(sock: *mut bpf_sock) {
    // SAFETY: a valid map and socket.
    if unsafe { bpf_sk_storage_delete(connections(), sock.cast()) } == 0 {
        give(room::FOLLOWED);
    }
}

/// Removes the socket's note; returns whether there was one.
#[inline(always)]
pub(crate) fn remove_note(sock: *mut bpf_sock) -> bool {
    // SAFETY: a valid map and socket.
    let removed = unsafe { bpf_sk_storage_delete(notes(), sock.cast()) } == 0;
    if removed {
        give(room::NOTED);
    }
    removed
}

/// Whether the server's application has the connection open.
#[inline(always)]
fn is_open(sock: *mut bpf_sock) -> bool {
    // SAFETY: the verifier knows that it is a socket.
    let state = unsafe { (&raw const (*sock).state).read_volatile() };
    matches!(state, BPF_TCP_SYN_RECV | BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT)
}

/// Reserves room for one more, if there is some. Each CPU may exceed the limit by one.
#[inline(always)]
fn take(used: u32, most: u32) -> bool {
    let (Some(cell), Some(most)) = (ROOM.get_ptr_mut(used), ROOM.get(most)) else { return false };
    // SAFETY: a map value; other CPUs only add atomically.
    let cell = unsafe { &mut *cell };
    // As a signed number: it is briefly negative when two CPUs free the same entry.
    if *cell as i64 >= *most as i64 {
        return false;
    }
    add(cell, 1);
    true
}

#[inline(always)]
fn give(used: u32) {
    if let Some(cell) = ROOM.get_ptr_mut(used) {
        // SAFETY: a map value; other CPUs only add atomically.
        add(unsafe { &mut *cell }, 1_u64.wrapping_neg());
    }
}
