//! The `recvq` family: how long a request lies in the kernel before the server begins to read it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_sk_storage_get};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use citadel_agent_common::abi::Lost;
use citadel_agent_common::arrivals::{Read, UNREAD};
use citadel_agent_common::connection::Connection;

use crate::maps::{CONNECTIONS, RECEIVE_QUEUE};
use crate::sink;
use citadel_agent_ebpf::count::observe;

/// Offset of `copied_seq` in `struct tcp_sock`: the sequence number up to which the application has read. Userspace sets it
/// from the running kernel's BTF.
#[unsafe(no_mangle)]
static COPIED_SEQ: u32 = 0;

/// `tcp_rcv_space_adjust(sk)` runs in `tcp_recvmsg_locked` after each piece that was copied to the application, and in
/// `tcp_read_sock` (splice), always after `copied_seq` went on (net/ipv4/tcp.c).
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn recvq_read(ctx: BtfTracePointContext) -> i32 {
    let sock: *const c_void = ctx.arg(0);
    let map = (&raw const CONNECTIONS).cast_mut().cast();
    // SAFETY: a valid map and socket; without the create flag, other sockets get no storage. The pointer lives until the
    // program returns.
    let connection =
        unsafe { bpf_sk_storage_get(map, sock.cast_mut(), core::ptr::null_mut(), 0).cast::<Connection>().as_mut() };
    if let Some(connection) = connection
        && connection.arrivals.any()
    {
        read(connection, sock);
    }
    0
}

#[inline(always)]
fn read(connection: &mut Connection, sock: *const c_void) {
    // SAFETY: a constant for the verifier, which userspace writes before it loads the program.
    let offset = unsafe { (&raw const COPIED_SEQ).read_volatile() };
    let mut copied = 0u32;
    // SAFETY: the destination is as long as the length says; the helper checks the source.
    let failed =
        unsafe { bpf_probe_read_kernel((&raw mut copied).cast(), 4, sock.cast::<u8>().add(offset as usize).cast()) };
    if failed != 0 {
        return;
    }
    let Some(histogram) = RECEIVE_QUEUE.get_ptr_mut(connection.slot) else { return };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    for _ in 0..=UNREAD {
        match connection.arrivals.next_read(copied, now) {
            Read::Nothing => break,
            // SAFETY: a map value; other CPUs only add atomically.
            Read::Waited(ns) => observe(unsafe { &mut *histogram }, ns),
            Read::Missed(count) => sink::lost(Lost::Unread, count),
        }
    }
}
