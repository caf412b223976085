//! Requests that have arrived in the kernel and that the server has not started to read.
//!
//! A queue between two programs: ingress, which sees segments arrive, fills it, and the program that sees the server
//! read empties it.

use super::Conn;
use crate::http::after;
use crate::http::request::{Arrival, PIPELINE};

/// Result of [`Conn::next_read`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The server has not started to read another request.
    Nothing,
    /// A request: its time in the receive queue, in nanoseconds.
    Waited(u64),
    /// Number of requests whose times were overwritten, because more were unread than the queue holds.
    Missed(u32),
}

impl Conn {
    /// Called when a request's first byte, `seq`, has arrived.
    #[inline(always)]
    pub(super) fn arrive(&mut self, seq: u32, now: u64) {
        let come = fresh!(self.come);
        let number = come.wrapping_add(1);
        let entry = &raw mut self.places[come as usize & (PIPELINE - 1)].arrival;
        // Volatile and in this order: the reader may look as soon as the entry has its number. SAFETY: the place is
        // behind `self`.
        unsafe {
            (&raw mut (*entry).time).write_volatile(now);
            (&raw mut (*entry).seq).write_volatile(seq);
            (&raw mut (*entry).number).write_volatile(number);
        }
        self.come = number;
    }

    /// Entry of the next request to be read.
    #[inline(always)]
    fn unread(&self) -> &Arrival {
        &self.places[self.read as usize & (PIPELINE - 1)].arrival
    }

    /// Whether a request is unread.
    #[inline(always)]
    #[must_use]
    pub fn has_unread(&self) -> bool {
        // If it has not arrived, the entry's number is older.
        after(fresh!(self.unread().number), self.read)
    }

    /// The next request whose first byte the server has read, having read everything before `copied` at time `now`.
    /// Called repeatedly until it returns `Nothing`.
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
