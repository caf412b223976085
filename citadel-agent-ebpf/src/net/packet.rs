//! Reads segments: addresses and TCP header from the packet's linear part, the payload through helper calls, because on
//! loopback and on transmission it is in page fragments.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use citadel_agent_common::connection::{self, Tuple, WINDOWS, Window};
use citadel_agent_common::http::events::Events;
use citadel_agent_common::http::usage::Usage;
use citadel_agent_common::http::{Payload, Text, launder};
use citadel_agent_ebpf::count::{add, bounded, escape};

use crate::maps::{SCRATCH, V4_MAPPED};

/// `ETH_P_IP` as in `__sk_buff::protocol`, in network byte order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
/// `ETH_P_IPV6`, in network byte order.
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const IPPROTO_TCP: u8 = 6;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Size of the payload buffer, by which offsets are bounded.
const WINDOW: u32 = connection::WINDOW as u32;

/// Payload bytes per helper call: most response heads as a whole. Copying is a large part of the cost of a packet.
const LOADED: u32 = 320;
const _: () = assert!(LOADED <= WINDOW);

/// Reads a field of the context. Volatile, because the verifier rewrites each access individually and refuses merged
/// ones.
macro_rules! context {
    ($skb:expr, $field:ident) => {
        // SAFETY: the context is valid for the whole run.
        unsafe { (&raw const (*$skb).$field).read_volatile() }
    };
}

/// The local port of the packet's socket, in host byte order.
#[inline(always)]
pub(crate) fn local_port(skb: *mut __sk_buff) -> u32 {
    context!(skb, local_port)
}

/// The packet's socket.
#[inline(always)]
pub(crate) fn sock(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: as in `context`; the field is a pointer in a union.
    unsafe { (&raw const (*skb).__bindgen_anon_2.sk).read_volatile() }
}

/// Length of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Maximum number of extension headers that are skipped: BIG TCP has one (hop-by-hop, with the length; later kernels
/// have none).
const EXTENSIONS: u32 = 4;

/// Whether a protocol number is an IPv6 extension header with its length in its second byte: hop-by-hop, routing,
/// destination options (RFC 8200, section 4).
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 60)
}

/// Offset of the TCP header after IPv6 extension headers; 0 if there is none, or the packet is IPv4. Not inlined: the
/// verifier should not remember the form of a packet with extensions throughout the parser.
#[inline(never)]
fn behind_extensions(skb: *mut __sk_buff) -> u32 {
    let (data, end) = (context!(skb, data) as usize, context!(skb, data_end) as usize);
    if context!(skb, protocol) != IPV6 || data + IPV6_HEADER > end {
        return 0;
    }
    // SAFETY: the IPv6 header is inside the packet.
    let mut protocol = unsafe { *(data as *const u8).add(6) };
    let mut at = IPV6_HEADER;
    for _ in 0..EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        let extension = data + at;
        if extension + 8 > end {
            return 0;
        }
        let extension = extension as *const u8;
        // SAFETY: eight bytes of it are inside the packet.
        let (next, length) = unsafe { (*extension, *extension.add(1)) };
        protocol = next;
        at += 8 + length as usize * 8;
    }
    if protocol == IPPROTO_TCP { at as u32 } else { 0 }
}

/// Whether a packet whose headers could not be read ([`Segment::read`]) is TCP. Other protocols never belong to a
/// model.
#[inline(never)]
pub(crate) fn is_tcp(skb: *mut __sk_buff) -> bool {
    let (data, end) = (context!(skb, data) as usize, context!(skb, data_end) as usize);
    // Length of an IPv4 header without options.
    if context!(skb, protocol) != IPV4 || data + 20 > end {
        return behind_extensions(skb) != 0;
    }
    // SAFETY: the header is inside the packet.
    unsafe { *(data as *const u8).add(9) == IPPROTO_TCP }
}

/// The headers of a TCP segment.
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Payload length.
    pub(crate) len: u32,
    source_port: u32,
    /// Offset of the payload from the IP header.
    at: u32,
    flags: u8,
}

impl Segment {
    /// Reads the headers; `None` if it is not TCP.
    #[inline(always)]
    pub(crate) fn read(skb: *mut __sk_buff) -> Option<Self> {
        let (data, end) = (context!(skb, data) as usize, context!(skb, data_end) as usize);
        let protocol = context!(skb, protocol);
        if data + IPV6_HEADER > end {
            return None;
        }
        let header = data as *const u8;
        // SAFETY: this many bytes from `data` on are inside the packet.
        let (ip_len, protocol) = unsafe {
            if protocol == IPV4 {
                ((*header as u32 & 0xf) * 4, *header.add(9))
            } else if protocol == IPV6 {
                (IPV6_HEADER as u32, *header.add(6))
            } else {
                return None;
            }
        };
        let ip_len = match protocol {
            IPPROTO_TCP => ip_len,
            extension if is_extension(extension) => bounded(behind_extensions(skb) as u64, 0xfff) as u32,
            _ => return None,
        };
        if ip_len == 0 {
            return None;
        }
        let tcp = data + ip_len as usize;
        if tcp + 20 > end {
            return None;
        }
        let tcp = tcp as *const u8;
        // SAFETY: 20 bytes from `tcp` on are inside the packet; packet data need not be aligned.
        let (source_port, seq, ack, offset, flags) = unsafe {
            (
                u16::from_be(tcp.cast::<u16>().read_unaligned()) as u32,
                u32::from_be(tcp.add(4).cast::<u32>().read_unaligned()),
                u32::from_be(tcp.add(8).cast::<u32>().read_unaligned()),
                (*tcp.add(12) >> 4) as u32 * 4,
                *tcp.add(13),
            )
        };
        let at = ip_len + offset;
        let total = context!(skb, len);
        let len = total.saturating_sub(at);
        // SYN uses the first sequence number.
        let seq = if flags & SYN != 0 { seq.wrapping_add(1) } else { seq };
        Some(Self { seq, ack, len, source_port, at, flags })
    }

    /// Whether it is only an acknowledgement.
    #[inline(always)]
    pub(crate) fn is_bare(&self) -> bool {
        self.len == 0 && !self.ends()
    }

    /// Whether it is a FIN or RST.
    #[inline(always)]
    pub(crate) fn ends(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }

    #[inline(always)]
    pub(crate) fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }

    #[inline(always)]
    pub(crate) fn is_fin(&self) -> bool {
        self.flags & FIN != 0
    }

    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// The addresses of an incoming segment.
    #[inline(always)]
    pub(crate) fn tuple(&self, skb: *mut __sk_buff) -> Tuple {
        let [a, b, c] = V4_MAPPED;
        let mut tuple = Tuple {
            remote: [a, b, c, 0],
            local: [a, b, c, 0],
            // The context's own remote port belongs to the listener, which has none.
            remote_port: self.source_port,
            local_port: local_port(skb),
        };
        let v4 = context!(skb, protocol) == IPV4;
        let skb = skb.cast();
        // SAFETY: the destinations have the given lengths; a failed call zeroes them.
        unsafe {
            if v4 {
                bpf_skb_load_bytes(skb, 12, (&raw mut tuple.remote[3]).cast(), 4);
                bpf_skb_load_bytes(skb, 16, (&raw mut tuple.local[3]).cast(), 4);
            } else {
                bpf_skb_load_bytes(skb, 8, (&raw mut tuple.remote).cast(), 16);
                bpf_skb_load_bytes(skb, 24, (&raw mut tuple.local).cast(), 16);
            }
        }
        tuple
    }

    /// The segment's flags, after [`Self::payload`]. Through memory, for the verifier, as in `citadel_agent_common`: in
    /// a register, each way in which a segment can end would be followed through the parser separately.
    #[inline(always)]
    pub(crate) fn recall(&mut self, window: &Window) {
        // SAFETY: behind a reference.
        unsafe {
            self.flags = (&raw const window.flags).read_volatile() as u8;
            self.seq = (&raw const window.seq).read_volatile();
            self.len = (&raw const window.payload_len).read_volatile();
        }
    }

    /// The payload, read through `window`. What a continuation needs to know of the segment is in the window too.
    #[inline(always)]
    pub(crate) fn payload<'a>(&self, skb: *mut __sk_buff, window: &'a mut Window, now: u64) -> Bytes<'a> {
        // A base for which no offset is inside the window: nothing has been loaded.
        window.base = u32::MAX - LOADED;
        window.last_text = LOADED - 1;
        window.payload_at = self.at;
        window.payload_len = self.len;
        window.flags = self.flags as u32;
        window.seq = self.seq;
        window.ack = self.ack;
        window.now = now;
        Bytes { skb, window }
    }
}

/// Claims a window of this CPU that no other run uses, to be returned with [`release`]. Code that interrupts a run
/// finishes before the run continues or, on a preemptible kernel, tries to claim too and finds that it is not alone:
/// whoever has incremented the claims and reads 1 owns the window. (Not with one instruction that does both, which eBPF
/// has only since 5.12.)
#[inline(always)]
pub(crate) fn claim() -> Option<&'static mut Window> {
    for index in 0..WINDOWS {
        // SAFETY: a map value of this CPU only.
        let window = unsafe { &mut *SCRATCH.get_ptr_mut(index)? };
        add(&mut window.claims, 1);
        // SAFETY: behind a reference. Volatile: the current sum.
        if unsafe { (&raw const window.claims).read_volatile() } == 1 {
            window.index = index;
            return Some(window);
        }
        release(window);
    }
    None
}

/// The window that the caller of a global function has claimed.
#[inline(always)]
pub(crate) fn claimed(index: u32) -> Option<&'static mut Window> {
    // SAFETY: a map value of this CPU only, which no other run uses.
    SCRATCH.get_ptr_mut(index).map(|window| unsafe { &mut *window })
}

/// Returns a window.
#[inline(always)]
pub(crate) fn release(window: &mut Window) {
    add(&mut window.claims, 1_u64.wrapping_neg());
}

/// The payload of one segment.
pub(crate) struct Bytes<'a> {
    skb: *mut __sk_buff,
    window: &'a mut Window,
}

impl Payload for Bytes<'_> {
    #[inline(always)]
    fn text(&mut self, offset: u32) -> Option<&Text> {
        // SAFETY: behind a reference. Volatile for the verifier, as in `citadel_agent_common`.
        let (base, last) = unsafe {
            ((&raw const self.window.base).read_volatile(), (&raw const self.window.last_text).read_volatile())
        };
        let mut within = offset.wrapping_sub(base);
        if within > last {
            self.load(offset)?;
            within = 0;
        }
        // Forgotten, otherwise everything that it was computed from would have to agree.
        let within = launder(&mut self.window.scratch, within);
        let within = bounded(within as u64, WINDOW as u64 - 1) as usize;
        // SAFETY: at most 511 bytes into the window, which has room for a text after that. Bytes need no alignment.
        Some(unsafe { &*self.window.bytes.as_ptr().add(within).cast::<Text>() })
    }

    #[inline(always)]
    fn look(&mut self, events: &mut Events) {
        // The function finds both by itself.
        escape(events);
        escape(self.window);
        crate::steps::net_events(self.skb, self.window.index);
        escape(events);
        escape(self.window);
    }

    #[inline(always)]
    fn search(&mut self, usage: &mut Usage, from: u32, left: u32) -> u32 {
        // As above.
        escape(usage);
        escape(self.window);
        let taken = crate::steps::net_search(self.skb, self.window.index, from, left);
        escape(usage);
        escape(self.window);
        taken
    }
}

impl<'a> Bytes<'a> {
    /// The payload that `window` is of already.
    #[inline(always)]
    pub(crate) fn go_on(skb: *mut __sk_buff, window: &'a mut Window) -> Self {
        Self { skb, window }
    }

    /// Loads the window from `offset` on: up to [`LOADED`] bytes, as far as available.
    #[inline(always)]
    fn load(&mut self, offset: u32) -> Option<()> {
        // SAFETY: behind a reference. Volatile, as in `text`.
        let (start, len) = unsafe {
            ((&raw const self.window.payload_at).read_volatile(), (&raw const self.window.payload_len).read_volatile())
        };
        let left = len.wrapping_sub(offset).wrapping_sub(1);
        let last = launder(&mut self.window.scratch, if left < LOADED { left } else { LOADED - 1 });
        // SAFETY: the window is longer than the length that is passed.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                start.wrapping_add(offset),
                self.window.bytes.as_mut_ptr().cast(),
                bounded(last as u64, WINDOW as u64 - 1) as u32 + 1,
            )
        };
        self.window.base = offset;
        // Bytes beyond the payload's end are unspecified, so a text may start at its last byte.
        self.window.last_text = if left < LOADED { LOADED - 1 } else { LOADED - Text::LEN as u32 };
        if failed == 0 { Some(()) } else { None }
    }
}
