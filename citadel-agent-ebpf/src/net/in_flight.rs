//! The `in_flight` family: the connections with outstanding requests, for userspace that asks. It costs nothing while nobody does.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use citadel_agent_common::connection::{Client, Connection, Listed};
use citadel_agent_ebpf::task::member;

use crate::AF_INET6;
use crate::maps::V4_MAPPED;

/// Offsets in `struct sock` of the client's address by family, its port and the family. Set by userspace from the running kernel's
/// BTF.
#[unsafe(no_mangle)]
static PEER_V4: u32 = 0;
/// See [`PEER_V4`].
#[unsafe(no_mangle)]
static PEER_V6: u32 = 0;
/// See [`PEER_V4`].
#[unsafe(no_mangle)]
static PEER_PORT: u32 = 0;
/// See [`PEER_V4`].
#[unsafe(no_mangle)]
static SOCK_FAMILY: u32 = 0;

const _: () = assert!(size_of::<Listed>() == size_of::<Client>() + size_of::<Connection>());

/// `struct bpf_iter__bpf_sk_storage_map` (net/core/bpf_sk_storage.c).
#[repr(C)]
struct Entry {
    meta: *const Meta,
    map: *const c_void,
    sock: *const c_void,
    /// Null once after the last entry.
    value: *const Connection,
}

/// The start of `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// Writes each connection with outstanding requests, as it is in the map, after its client: a [`Listed`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn in_flight_list(entry: *const Entry) -> i32 {
    // SAFETY: the kernel passes such a struct, and its members' types are known to the verifier.
    unsafe {
        let value = (&raw const (*entry).value).read_volatile();
        let sock = (&raw const (*entry).sock).read_volatile();
        if !value.is_null() && !sock.is_null() && (*value).conn.is_working() {
            let meta = (&raw const (*entry).meta).read_volatile();
            let seq = (&raw const (*meta).seq).read_volatile();
            let client = client(sock);
            // If one of them does not fit into the kernel's buffer, both are written again at the next read.
            bpf_seq_write(seq, (&raw const client).cast_mut().cast(), size_of::<Client>() as u32);
            bpf_seq_write(seq, value.cast_mut().cast(), size_of::<Connection>() as u32);
        }
    }
    0
}

/// The other end of a socket.
///
/// # Safety
/// The verifier must know that it is a `struct sock`.
#[inline(always)]
unsafe fn client(sock: *const c_void) -> Client {
    // SAFETY: guaranteed by the caller; the offsets are those of these fields.
    unsafe {
        let port = u32::from(u16::from_be(member::<u16>(sock, &PEER_PORT)));
        let address = if u32::from(member::<u16>(sock, &SOCK_FAMILY)) == AF_INET6 {
            let word = |at: usize| member::<u32>(sock.byte_add(at), &PEER_V6);
            [word(0), word(4), word(8), word(12)]
        } else {
            [V4_MAPPED[0], V4_MAPPED[1], V4_MAPPED[2], member(sock, &PEER_V4)]
        };
        Client::new(address, port)
    }
}
