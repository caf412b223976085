//! Logs rare events, with the feature `log`; without it, these functions are empty.
//!
//! They are separate functions because the messages are built on the stack, of which the programs have no more left.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use citadel_agent_common::abi::Lost;
use citadel_agent_ebpf::debug;

use crate::packet;

/// The connection was open before the programs were attached.
#[cfg_attr(feature = "log", inline(never))]
#[cfg_attr(not(feature = "log"), inline(always))]
pub(crate) fn joined(sock: *mut bpf_sock) {
    debug!("port {}, client port {}: joined late", local_port(sock), client_port(sock));
}

/// A packet is not measured, because its headers cannot be read.
#[cfg_attr(feature = "log", inline(never))]
#[cfg_attr(not(feature = "log"), inline(always))]
pub(crate) fn unreadable(skb: *mut __sk_buff) {
    debug!("port {}: lost: packet_header", packet::local_port(skb));
}

/// Something on a connection is not measured; the reasons are those of the metric `citadel_events_lost_total`.
#[cfg_attr(feature = "log", inline(never))]
#[cfg_attr(not(feature = "log"), inline(always))]
pub(crate) fn lost(sock: *mut bpf_sock, why: Lost) {
    // Each reason as a separate message: the verifier refuses a copy of unknown length.
    macro_rules! say {
        ($reason:tt) => {
            debug!("port {}, client port {}: lost: {}", local_port(sock), client_port(sock), $reason)
        };
    }
    match why {
        Lost::RequestFraming => say!("request_framing"),
        Lost::ResponseFraming => say!("response_framing"),
        Lost::PipelineFull => say!("pipeline_full"),
        _ => {}
    }
}

/// The server's port.
#[inline(always)]
fn local_port(sock: *mut bpf_sock) -> u32 {
    // SAFETY: the socket is valid while its packet is processed. Volatile, as for the context.
    unsafe { (&raw const (*sock).src_port).read_volatile() }
}

/// The client's port; 0 if the socket is the listener.
#[inline(always)]
fn client_port(sock: *mut bpf_sock) -> u32 {
    // SAFETY: as in `local_port`. Four bytes are read, because kernels before 5.18 allow no less.
    let word = unsafe { (&raw const (*sock).dst_port).cast::<u32>().read_volatile() };
    u16::from_be(word as u16) as u32
}
