//! Requests that have arrived in the kernel and that the server has not begun to read.
//!
//! A ring between two programs: the one that sees segments come in writes it, the one that sees the server read empties it.
//! They run at the same time and share no lock, so each field has one writer.

/// Unread requests that a connection can have at a time; a power of two. As many as are followed by the parser.
pub const UNREAD: usize = 16;

/// The ring.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrivals {
    /// When each one's first byte came, in nanoseconds of `CLOCK_MONOTONIC`.
    times: [u64; UNREAD],
    /// That byte's sequence number.
    seqs: [u32; UNREAD],
    /// Requests that have come so far.
    come: u32,
    /// Requests that the server has begun to read, or that were given up.
    read: u32,
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
    /// None: all zero, as new kernel memory is.
    pub const NONE: Self = Self { times: [0; UNREAD], seqs: [0; UNREAD], come: 0, read: 0 };

    /// A request's first byte, `seq`, has come.
    #[inline(always)]
    pub fn come(&mut self, seq: u32, now: u64) {
        let index = self.come as usize & (UNREAD - 1);
        // Volatile and in this order: the reader may look as soon as the ring has grown.
        // SAFETY: the places are behind `self`.
        unsafe {
            (&raw mut self.times[index]).write_volatile(now);
            (&raw mut self.seqs[index]).write_volatile(seq);
            (&raw mut self.come).write_volatile(self.come.wrapping_add(1));
        }
    }

    /// Whether a request is unread.
    #[inline(always)]
    #[must_use]
    pub fn any(&self) -> bool {
        // SAFETY: behind a reference. Volatile: the other program writes it.
        unsafe { (&raw const self.come).read_volatile() != self.read }
    }

    /// The next request of which the server has read the first byte, having read everything before `copied` at time `now`.
    /// To be called until there is nothing.
    #[inline(always)]
    pub fn next_read(&mut self, copied: u32, now: u64) -> Read {
        // SAFETY: behind a reference. Volatile: the other program writes it.
        let unread = unsafe { (&raw const self.come).read_volatile() }.wrapping_sub(self.read);
        if unread == 0 {
            return Read::Nothing;
        }
        if unread > UNREAD as u32 {
            let missed = unread - UNREAD as u32;
            self.read = self.read.wrapping_add(missed);
            return Read::Missed(missed);
        }
        let index = self.read as usize & (UNREAD - 1);
        // RFC 9293, section 3.4: sequence numbers are compared by their difference.
        if (copied.wrapping_sub(self.seqs[index]) as i32) <= 0 {
            return Read::Nothing;
        }
        self.read = self.read.wrapping_add(1);
        Read::Waited(now.saturating_sub(self.times[index]))
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
