//! The `recvq` family: how long a request stays in the kernel before the server starts to read it, and which process
//! reads it: discovery attributes that process to the model.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use citadel_agent_common::abi::{ReadAt, reader_key};
use citadel_agent_common::connection::Connection;
use citadel_agent_common::http::conn::{PIPELINE, Read};

use crate::maps::{self, CONNECTIONS, READERS, READERS_SHARES, RECEIVE_QUEUE};
use crate::trace;
use citadel_agent_ebpf::count::observe;
use citadel_agent_ebpf::task::member;

/// Offset of `copied_seq` in `struct tcp_sock`: the sequence number up to which the application has read. Set by
/// userspace from the running kernel's BTF.
#[unsafe(no_mangle)]
static COPIED_SEQ: u32 = 0;
/// Offset of `sk_lock.owned` in `struct sock`: not 0 while a process has the socket locked. Set in the same way.
#[unsafe(no_mangle)]
static LOCK_OWNED: u32 = 0;

/// `tcp_rcv_space_adjust(sk)` runs in `tcp_recvmsg_locked` after each piece copied to the application, and in
/// `tcp_read_sock` (splice), always after `copied_seq` was advanced (net/ipv4/tcp.c).
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn recvq_read(ctx: BtfTracePointContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    let map = (&raw const CONNECTIONS).cast_mut().cast();
    // SAFETY: a valid map and socket; without the create flag, other sockets get no storage. The pointer is valid until
    // the program returns.
    let connection =
        unsafe { bpf_sk_storage_get(map, sock.cast_mut(), core::ptr::null_mut(), 0).cast::<Connection>().as_mut() };
    if let Some(connection) = connection
        && connection.conn.has_unread()
    {
        read(connection, sock);
    }
    0
}

#[inline(always)]
fn read(connection: &mut Connection, sock: *const c_void) {
    note_reader(connection, sock);
    // SAFETY: a socket from the tracepoint, which is for TCP only.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sock.cast_mut()) };
    if tcp.is_null() {
        return;
    }
    // SAFETY: the offset is that of this field.
    let copied = unsafe { member(tcp.cast(), &COPIED_SEQ) };
    let Some(histogram) = RECEIVE_QUEUE.get_ptr_mut(connection.slot) else { return };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    for _ in 0..=PIPELINE {
        match connection.conn.next_read(copied, now) {
            Read::Nothing => break,
            Read::Waited(ns) => {
                // SAFETY: a map value; other CPUs only add atomically.
                observe(unsafe { &mut *histogram }, ns);
                if maps::tracing() != 0 {
                    trace::queued(sock, now.wrapping_sub(ns), ns);
                }
            }
        }
    }
}

/// Records the process that reads, once per connection while it stays the same. A request is unread, so this is the
/// server's end: the client's socket has none to read.
#[inline(always)]
fn note_reader(connection: &mut Connection, sock: *const c_void) {
    // SAFETY: no arguments.
    let process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // A parser in the kernel (`net/strparser`, used by sockmap) may read in a softirq, where the current process is
    // arbitrary; it only does so while no process has the socket locked. SAFETY: the offset is that of this field.
    if connection.reader == process || unsafe { member::<u32>(sock, &LOCK_OWNED) } == 0 {
        return;
    }
    // SAFETY: no arguments. The clock of process start times.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // If the model's share is full, the connection's next request tries again.
    if note(connection.slot, process, now) {
        connection.reader = process;
    }
}

#[inline(always)]
fn note(slot: u32, process: u32, now: u64) -> bool {
    let key = reader_key(slot, process);
    if let Some(noted) = READERS.get_ptr_mut(key) {
        // SAFETY: a map value.
        unsafe { (*noted).ns = now };
        return true;
    }
    let Some(owner) = READERS_SHARES.take(slot) else { return false };
    let noted = READERS.insert(key, ReadAt::new(now, owner), u64::from(BPF_NOEXIST)).is_ok();
    if !noted {
        // Another CPU did the same.
        READERS_SHARES.give(owner);
    }
    noted
}
