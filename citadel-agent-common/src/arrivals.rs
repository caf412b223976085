//! Requests that have arrived in the kernel and that the server has not begun to read.
//!
//! A ring between two programs: the one that sees segments come in writes it, the one that sees the server read empties it.
//! They run at the same time and share no lock, so each field has one writer.

use crate::apart::Apart;
use crate::http::after;

/// Unread requests that a connection can have at a time; a power of two. As many as are followed by the parser.
pub const UNREAD: usize = 16;

/// A request that has come.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Arrival {
    /// When its first byte came, in nanoseconds of `CLOCK_MONOTONIC`.
    time: u64,
    /// That byte's sequence number.
    seq: u32,
    /// Which of the connection's requests it is, from 1 on: the entry alone tells the reader whether there is one.
    number: u32,
}

/// The ring: what the one program writes, the entries, what the other writes, apart from each other for the CPUs' caches.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrivals {
    /// Requests that have come so far.
    come: u32,
    _reserved: u32,
    _apart: Apart,
    /// So that no entry lies in two cache lines: `crate::connection` holds it to that.
    _to_a_line: u64,
    entries: [Arrival; UNREAD],
    _apart_from_entries: Apart,
    /// Requests that the server has begun to read, or that were given up.
    read: u32,
    _reserved_too: u32,
}

/// What [`Arrivals::next_read`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Nothing that the server has begun to read.
    Nothing,
    /// A request: how long it lay in the receive queue, in nanoseconds.
    Waited(u64),
    /// So many requests whose times were overwritten, because more were unread than the ring holds.
    Missed(u32),
}

impl Arrivals {
    /// Where the entries begin, and how long one is.
    pub(crate) const ENTRIES: (usize, usize) = (core::mem::offset_of!(Self, entries), size_of::<Arrival>());

    /// None: all zero, as new kernel memory is.
    pub const NONE: Self = Self {
        come: 0,
        _reserved: 0,
        _apart: Apart::NEW,
        _to_a_line: 0,
        entries: [Arrival { time: 0, seq: 0, number: 0 }; UNREAD],
        _apart_from_entries: Apart::NEW,
        read: 0,
        _reserved_too: 0,
    };

    /// A request's first byte, `seq`, has come.
    #[inline(always)]
    pub fn come(&mut self, seq: u32, now: u64) {
        let number = self.come.wrapping_add(1);
        let entry = &mut self.entries[self.come as usize & (UNREAD - 1)];
        // Volatile and in this order: the reader may look as soon as the entry has its number.
        // SAFETY: the places are behind `self`.
        unsafe {
            (&raw mut entry.time).write_volatile(now);
            (&raw mut entry.seq).write_volatile(seq);
            (&raw mut entry.number).write_volatile(number);
        }
        self.come = number;
    }

    /// The number in the entry of the next request to be read: below that request's where it has not come.
    #[inline(always)]
    fn next_number(&self) -> u32 {
        // SAFETY: behind a reference. Volatile: the other program writes it.
        unsafe { (&raw const self.entries[self.read as usize & (UNREAD - 1)].number).read_volatile() }
    }

    /// Whether a request is unread.
    #[inline(always)]
    #[must_use]
    pub fn any(&self) -> bool {
        after(self.next_number(), self.read)
    }

    /// The next request of which the server has read the first byte, having read everything before `copied` at time `now`.
    /// To be called until there is nothing.
    #[inline(always)]
    pub fn next_read(&mut self, copied: u32, now: u64) -> Read {
        let number = self.next_number();
        if !after(number, self.read) {
            return Read::Nothing;
        }
        if number != self.read.wrapping_add(1) {
            // SAFETY: behind a reference. Volatile: the other program writes it.
            let come = unsafe { (&raw const self.come).read_volatile() };
            let missed = come.wrapping_sub(self.read).saturating_sub(UNREAD as u32);
            self.read = self.read.wrapping_add(missed);
            return Read::Missed(missed);
        }
        let entry = &self.entries[self.read as usize & (UNREAD - 1)];
        if !after(copied, entry.seq) {
            return Read::Nothing;
        }
        let waited = now.saturating_sub(entry.time);
        self.read = self.read.wrapping_add(1);
        Read::Waited(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_until_its_first_byte_is_read() {
        let mut arrivals = Arrivals::NONE;
        assert!(!arrivals.any());
        arrivals.come(u32::MAX - 1, 1_000);
        arrivals.come(50, 2_000);
        assert!(arrivals.any());
        assert_eq!(arrivals.next_read(u32::MAX - 1, 3_000), Read::Nothing, "up to the first byte, without it");
        assert_eq!(arrivals.next_read(5, 3_000), Read::Waited(2_000), "across the end of the sequence space");
        assert_eq!(arrivals.next_read(5, 3_000), Read::Nothing, "the second is unread");
        assert_eq!(arrivals.next_read(51, 4_000), Read::Waited(2_000));
        assert!(!arrivals.any());
    }

    #[test]
    fn what_the_ring_cannot_hold_is_told() {
        let mut arrivals = Arrivals::NONE;
        for i in 0..UNREAD as u32 + 3 {
            arrivals.come(i * 10, u64::from(i));
        }
        assert_eq!(arrivals.next_read(1_000, 100), Read::Missed(3));
        let waited = (0..UNREAD).map(|_| arrivals.next_read(1_000, 100)).filter(|read| matches!(read, Read::Waited(_)));
        assert_eq!(waited.count(), UNREAD);
        assert_eq!(arrivals.next_read(1_000, 100), Read::Nothing);
    }
}
