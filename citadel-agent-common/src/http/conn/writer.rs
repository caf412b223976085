//! Which side writes which bytes of a connection's state.

use core::mem::offset_of;
use core::ops::Range;

use super::Conn;

/// The writers of a [`Conn`]: each field has exactly one, because both directions run at the same time without a lock.
/// Used by tests that check the tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// [`Conn::receive`] and the other functions called by ingress.
    Ingress,
    /// [`Conn::transmit`], and [`Conn::close`], which is called after all of it.
    Egress,
    /// [`Conn::next_read`].
    Reading,
}

impl Writer {
    /// The bytes that it may write.
    #[must_use]
    pub const fn bytes(self) -> [Range<usize>; 2] {
        let of_ingress = offset_of!(Conn, rx_synced)..offset_of!(Conn, _to_a_line);
        match self {
            Self::Ingress => [offset_of!(Conn, rx_opaque)..offset_of!(Conn, tx_opaque), of_ingress],
            Self::Egress => {
                [offset_of!(Conn, tx_opaque)..of_ingress.start, offset_of!(Conn, due_ns)..offset_of!(Conn, read)]
            }
            Self::Reading => [offset_of!(Conn, read)..size_of::<Conn>(), 0..0],
        }
    }
}
