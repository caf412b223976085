//! Requests that have arrived in the kernel and that the server has not started to read.
//!
//! They are the newest ones in the queue, and the one that arrives. Ingress notes when and where in the stream a request began, as
//! soon as its first byte is there; the program that sees the server read counts which of them it has seen read.

use super::Conn;
use crate::http::after;
use crate::http::request::{PIPELINE, Stamp};

/// Result of [`Conn::next_read`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The server has not started to read another request.
    Nothing,
    /// A request: its time in the receive queue, in nanoseconds.
    Waited(u64),
}

impl Conn {
    /// Called by ingress when a request's first byte, `seq`, has arrived. Without room, the request is noted once there is.
    #[inline(always)]
    pub(super) fn arrive(&mut self, seq: u32, now: u64) {
        self.rx_first_seq = seq;
        self.rx_first_ns = now;
        if !self.is_full() {
            self.note_arrival();
        }
    }

    /// Ingress: writes when and where the next request began to its place.
    #[inline(always)]
    pub(super) fn note_arrival(&mut self) {
        let tail = fresh!(self.tail);
        let (index, first) =
            (tail as usize & (PIPELINE - 1), Stamp::new(self.rx_first_ns, tail.wrapping_add(1) & 0xff));
        let (seq, place) = (&raw mut self.seqs[index], &raw mut self.places[index].first);
        // Volatile and in this order: the reader may look as soon as the place has the request's number. SAFETY: both places are
        // behind `self`.
        unsafe {
            seq.write_volatile(self.rx_first_seq);
            place.write_volatile(first);
        }
        self.noted = tail.wrapping_add(1);
    }

    /// When the next unread request arrived, and its number's lowest byte if it did.
    #[inline(always)]
    fn unread(&self) -> Stamp {
        fresh!(self.places[self.read as usize & (PIPELINE - 1)].first)
    }

    /// Whether a request is unread.
    #[inline(always)]
    #[must_use]
    pub fn has_unread(&mut self) -> bool {
        // What has a response was read, whether this program saw it or not.
        let head = fresh!(self.head);
        if after(head, self.read) {
            self.read = head;
        }
        self.unread().mark() == self.read.wrapping_add(1) & 0xff
    }

    /// The next request whose first byte the server has read, having read everything before `copied` at time `now`.
    /// Called repeatedly until it returns `Nothing`.
    #[inline(always)]
    pub fn next_read(&mut self, copied: u32, now: u64) -> Read {
        if !self.has_unread() {
            return Read::Nothing;
        }
        let (first, seq) = (self.unread(), fresh!(self.seqs[self.read as usize & (PIPELINE - 1)]));
        if !after(copied, seq) {
            return Read::Nothing;
        }
        self.read = self.read.wrapping_add(1);
        Read::Waited(first.until(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request arrives, and is in the queue.
    fn ask(conn: &mut Conn, seq: u32, now: u64) {
        conn.arrive(seq, now);
        conn.tail = conn.tail.wrapping_add(1);
    }

    #[test]
    fn a_request_waits_until_its_first_byte_is_read() {
        let mut conn = Conn::NEW;
        assert!(!conn.has_unread());
        ask(&mut conn, u32::MAX - 1, 1_000);
        conn.arrive(50, 2_000);
        assert!(conn.has_unread());
        assert_eq!(conn.next_read(u32::MAX - 1, 3_000), Read::Nothing, "up to the first byte, without it");
        assert_eq!(conn.next_read(5, 3_000), Read::Waited(2_000), "across the end of the sequence space");
        assert_eq!(conn.next_read(5, 3_000), Read::Nothing, "the second is unread");
        assert_eq!(conn.next_read(51, 4_000), Read::Waited(2_000), "its request line need not be complete");
        assert!(!conn.has_unread());
    }

    #[test]
    fn reading_writes_what_is_its_own() {
        let mut conn = Conn::NEW;
        ask(&mut conn, 1, 1_000);
        let before = conn;
        assert_eq!(conn.next_read(2, 3_000), Read::Waited(2_000));
        assert_eq!(conn, Conn { read: 1, ..before });
    }

    #[test]
    fn each_request_that_the_queue_holds_is_told_from_those_before_it() {
        let mut conn = Conn::NEW;
        for number in 0..1_000_u32 {
            ask(&mut conn, number * 10, u64::from(number));
            assert_eq!(conn.next_read(number * 10, 2_000), Read::Nothing, "{number}");
            assert_eq!(conn.next_read(number * 10 + 1, 2_000), Read::Waited(2_000 - u64::from(number)));
            assert!(!conn.has_unread(), "{number}");
            conn.head = conn.tail;
        }
    }

    #[test]
    fn what_has_a_response_was_read_before_anyone_looked() {
        let mut conn = Conn::NEW;
        for number in 0..300 {
            ask(&mut conn, number * 10, 1);
            conn.head = conn.tail;
        }
        assert!(!conn.has_unread());
        ask(&mut conn, 3_000, 5);
        assert_eq!(conn.next_read(3_001, 9), Read::Waited(4));
    }

    #[test]
    fn without_room_a_request_is_noted_when_there_is_some() {
        let mut conn = Conn::NEW;
        for number in 0..PIPELINE as u32 {
            ask(&mut conn, number * 10, 1);
        }
        let before = conn.places;
        conn.arrive(500, 7);
        assert_eq!(conn.places, before);
        (conn.head, conn.read) = (1, PIPELINE as u32);
        assert!(!conn.is_full() && !conn.has_unread());
        conn.note_arrival();
        assert_eq!(conn.next_read(501, 9), Read::Waited(2));
    }
}
