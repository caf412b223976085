//! Requests that have arrived in the kernel and that the server has not begun to read.
//!
//! A queue between two programs: ingress, which sees segments come in, fills it, and whoever sees the server read empties
//! it.

use super::Conn;
use crate::http::after;
use crate::http::request::{Arrival, PIPELINE};

/// What [`Conn::next_read`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Nothing that the server has begun to read.
    Nothing,
    /// A request: how long it lay in the receive queue, in nanoseconds.
    Waited(u64),
    /// So many requests whose times were overwritten, because more were unread than the queue holds.
    Missed(u32),
}

impl Conn {
    /// A request's first byte, `seq`, has come.
    #[inline(always)]
    pub(super) fn arrive(&mut self, seq: u32, now: u64) {
        let come = fresh!(self.come);
        let number = come.wrapping_add(1);
        let entry = &raw mut self.places[come as usize & (PIPELINE - 1)].arrival;
        // Volatile and in this order: the reader may look as soon as the entry has its number.
        // SAFETY: the place is behind `self`.
        unsafe {
            (&raw mut (*entry).time).write_volatile(now);
            (&raw mut (*entry).seq).write_volatile(seq);
            (&raw mut (*entry).number).write_volatile(number);
        }
        self.come = number;
    }

    /// Where the next request to be read is or will be.
    #[inline(always)]
    fn unread(&self) -> &Arrival {
        &self.places[self.read as usize & (PIPELINE - 1)].arrival
    }

    /// Whether a request is unread.
    #[inline(always)]
    #[must_use]
    pub fn has_unread(&self) -> bool {
        // The number is below that request's where it has not come.
        after(fresh!(self.unread().number), self.read)
    }

    /// The next request of which the server has read the first byte, having read everything before `copied` at time `now`.
    /// To be called until there is nothing.
    #[inline(always)]
    pub fn next_read(&mut self, copied: u32, now: u64) -> Read {
        let number = fresh!(self.unread().number);
        if !after(number, self.read) {
            return Read::Nothing;
        }
        if number != self.read.wrapping_add(1) {
            let missed = fresh!(self.come).wrapping_sub(self.read).saturating_sub(PIPELINE as u32);
            self.read = self.read.wrapping_add(missed);
            return Read::Missed(missed);
        }
        let Arrival { time, seq, .. } = *self.unread();
        if !after(copied, seq) {
            return Read::Nothing;
        }
        self.read = self.read.wrapping_add(1);
        Read::Waited(now.saturating_sub(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_until_its_first_byte_is_read() {
        let mut conn = Conn::NEW;
        assert!(!conn.has_unread());
        conn.arrive(u32::MAX - 1, 1_000);
        conn.arrive(50, 2_000);
        assert!(conn.has_unread());
        assert_eq!(conn.next_read(u32::MAX - 1, 3_000), Read::Nothing, "up to the first byte, without it");
        assert_eq!(conn.next_read(5, 3_000), Read::Waited(2_000), "across the end of the sequence space");
        assert_eq!(conn.next_read(5, 3_000), Read::Nothing, "the second is unread");
        assert_eq!(conn.next_read(51, 4_000), Read::Waited(2_000));
        assert!(!conn.has_unread());
    }

    #[test]
    fn reading_writes_what_is_its_own() {
        let mut conn = Conn::NEW;
        conn.arrive(1, 1_000);
        let before = conn;
        assert_eq!(conn.next_read(2, 3_000), Read::Waited(2_000));
        assert_eq!(conn, Conn { read: 1, ..before });
    }

    #[test]
    fn what_the_queue_cannot_hold_is_told() {
        let mut conn = Conn::NEW;
        for i in 0..PIPELINE as u32 + 3 {
            conn.arrive(i * 10, u64::from(i));
        }
        assert_eq!(conn.next_read(1_000, 100), Read::Missed(3));
        let waited = (0..PIPELINE).map(|_| conn.next_read(1_000, 100)).filter(|read| matches!(read, Read::Waited(_)));
        assert_eq!(waited.count(), PIPELINE);
        assert_eq!(conn.next_read(1_000, 100), Read::Nothing);
    }
}
