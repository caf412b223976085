//! Connections that are not parsed: nothing but their bytes is left to count, for which they need no state.

use super::Conn;
use crate::abi::Protocol;

impl Conn {
    /// Whether neither direction is parsed any more and nothing is outstanding: all that is left to do is to count bytes.
    #[inline(always)]
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        fresh!(self.rx_opaque) != 0
            && fresh!(self.tx_opaque) != 0
            && fresh!(self.protocol) != Protocol::Unknown as u32
            && fresh!(self.tail) == fresh!(self.head)
    }

    /// Sequence number of the first byte of a direction that has not been counted; `None` if there was none yet.
    #[inline(always)]
    #[must_use]
    pub fn next<const RESPONSE: bool>(&self) -> Option<u32> {
        let (synced, next) = if RESPONSE { (self.tx_synced, self.tx_next) } else { (self.rx_synced, self.rx_next) };
        (synced != 0).then_some(next)
    }
}
