//! The `in_flight` family: the connections with outstanding requests, for userspace that asks. It costs nothing while nobody does.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use citadel_agent_common::connection::Connection;

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

/// Writes each connection with outstanding requests, as it is in the map.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn in_flight_list(entry: *const Entry) -> i32 {
    // SAFETY: the kernel passes such a struct, and its members' types are known to the verifier.
    unsafe {
        let value = (&raw const (*entry).value).read_volatile();
        if !value.is_null() && (*value).conn.is_working() {
            let meta = (&raw const (*entry).meta).read_volatile();
            let seq = (&raw const (*meta).seq).read_volatile();
            // What does not fit into the kernel's buffer is written again at the next read.
            bpf_seq_write(seq, value.cast(), size_of::<Connection>() as u32);
        }
    }
    0
}
