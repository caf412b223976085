//! Memory-mapped eBPF array maps: reading them needs no system call (`BPF_F_MMAPABLE`, Linux 5.5).

use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use citadel_agent_common::abi::{EndpointStats, Latency, ModelStats, TokenStats};
use citadel_agent_common::hist::{CELLS, Histogram, SUM_CELL};

/// A value made of `u64` only, so that it can be read word by word while the kernel updates it.
///
/// # Safety
/// The type must be `repr(C)`, made of `u64` only, and valid for any of their values.
pub unsafe trait Words: Copy {}

// SAFETY: `repr(C)`, histograms and counters of `u64`.
unsafe impl Words for ModelStats {}
// SAFETY: as above.
unsafe impl Words for EndpointStats {}
// SAFETY: as above.
unsafe impl Words for TokenStats {}
// SAFETY: as above.
unsafe impl Words for Histogram {}
// SAFETY: it is the word itself.
unsafe impl Words for u64 {}

/// A range of an array map's entries, mapped read-only.
#[derive(Debug)]
pub struct Mapped<T> {
    start: NonNull<u64>,
    entries: usize,
    bytes: usize,
    _entry: PhantomData<T>,
}

// SAFETY: the mapping is read-only, belongs to the process and is read with volatile loads.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Words> Mapped<T> {
    /// Maps `entries` entries of `map`, starting with entry `first`, which must be at a page boundary.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(map: &impl AsFd, first: usize, entries: usize) -> io::Result<Self> {
        Self::with_protection(map, first, entries, libc::PROT_READ)
    }

    fn with_protection(map: &impl AsFd, first: usize, entries: usize, protection: i32) -> io::Result<Self> {
        let bytes = entries * size_of::<T>();
        let offset = libc::off_t::try_from(first * size_of::<T>()).map_err(io::Error::other)?;
        let fd: BorrowedFd<'_> = map.as_fd();
        // SAFETY: a new mapping at an address chosen by the kernel affects no memory of ours.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { start, entries, bytes, _entry: PhantomData })
    }

    /// Entry `index`, counted from the first mapped one.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<MapEntry<'_, T>> {
        let words = size_of::<T>() / size_of::<u64>();
        // SAFETY: inside the mapping.
        let start = || unsafe { self.start.add(index * words) };
        (index < self.entries).then(|| MapEntry { start: start(), _entry: PhantomData })
    }

    /// The first word of entry `index`; 0 if there is no such entry.
    #[must_use]
    pub fn first_word(&self, index: usize) -> u64 {
        self.entry(index).map_or(0, |entry| entry.word(0))
    }
}

/// The first words of an array map, updated by both the programs and userspace.
#[derive(Debug)]
pub struct Cells(Mapped<u64>);

impl Cells {
    /// Maps the first `words` words of `map`.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(map: &impl AsFd, words: usize) -> io::Result<Self> {
        Mapped::with_protection(map, 0, words, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    /// A word.
    ///
    /// # Panics
    /// If there is no such index.
    #[must_use]
    pub fn cell(&self, index: usize) -> &AtomicU64 {
        let Some(entry) = self.0.entry(index) else { panic!("no word of the map") };
        // SAFETY: an aligned word inside the mapping, which is writable and outlives the reference; everyone else
        // changes it atomically.
        unsafe { AtomicU64::from_ptr(entry.start.as_ptr()) }
    }
}

/// An entry in place, which the kernel keeps updating: each word is consistent, different words may be of different
/// times.
#[derive(Clone, Copy, Debug)]
pub struct MapEntry<'a, T> {
    start: NonNull<u64>,
    _entry: PhantomData<&'a Mapped<T>>,
}

impl<T: Words> MapEntry<'_, T> {
    /// Word `at` of it.
    ///
    /// # Panics
    /// If it has no such word.
    #[must_use]
    pub fn word(self, at: usize) -> u64 {
        assert!(at < size_of::<T>() / size_of::<u64>(), "no word of the entry");
        // SAFETY: inside the entry, whose mapping outlives `self`.
        unsafe { self.start.add(at).read_volatile() }
    }

    /// The histogram at word `at`; `None` while it has no observation.
    fn histogram_at(self, at: usize) -> Option<Box<Histogram>> {
        // Observations outside the zero bucket have a duration: for most empty histograms, nothing else is read.
        if self.word(at + SUM_CELL) == 0 && self.word(at) == 0 {
            return None;
        }
        assert!(at + CELLS <= size_of::<T>() / size_of::<u64>(), "no histogram of the entry");
        let mut copy = Box::<Histogram>::new_uninit();
        // SAFETY: the words are inside the entry, whose mapping outlives `self`; the copy has the same length, every
        // word of it is written, and any words are a valid histogram.
        let histogram = unsafe {
            let (from, to) = (self.start.add(at), copy.as_mut_ptr().cast::<u64>());
            for cell in 0..CELLS {
                to.add(cell).write(from.add(cell).read_volatile());
            }
            copy.assume_init()
        };
        (histogram.count() > 0).then_some(histogram)
    }
}

impl MapEntry<'_, Histogram> {
    /// The histogram; `None` while it has no observation.
    #[must_use]
    pub fn histogram(self) -> Option<Box<Histogram>> {
        self.histogram_at(0)
    }
}

impl MapEntry<'_, ModelStats> {
    /// One of [`ModelStats::counters`].
    #[must_use]
    pub fn counter(self, index: usize) -> u64 {
        self.word(offset_of!(ModelStats, counters) / size_of::<u64>() + index)
    }

    /// Round-trip times, if there are any.
    #[must_use]
    pub fn rtt(self) -> Option<Box<Histogram>> {
        self.histogram_at(offset_of!(ModelStats, rtt) / size_of::<u64>())
    }
}

impl MapEntry<'_, EndpointStats> {
    /// One of [`EndpointStats::counters`].
    #[must_use]
    pub fn counter(self, index: usize) -> u64 {
        self.word(offset_of!(EndpointStats, counters) / size_of::<u64>() + index)
    }

    /// Number of requests that have ended, completed or aborted: all their counters are next to each other.
    #[must_use]
    pub fn ended(self) -> u64 {
        let last = EndpointStats::requests(EndpointStats::CODES.end - 1);
        (EndpointStats::aborted(0, 0)..=last).map(|index| self.counter(index)).sum()
    }

    /// Latencies of one kind, if there are any.
    #[must_use]
    pub fn latency(self, which: Latency) -> Option<Box<Histogram>> {
        self.histogram_at(offset_of!(EndpointStats, latencies) / size_of::<u64>() + which as usize * CELLS)
    }
}

impl MapEntry<'_, TokenStats> {
    /// Prompt tokens by request, if any response stated them.
    #[must_use]
    pub fn prompt(self) -> Option<Box<Histogram>> {
        self.histogram_at(offset_of!(TokenStats, prompt) / size_of::<u64>())
    }

    /// Completion tokens by request, if any response stated them.
    #[must_use]
    pub fn completion(self) -> Option<Box<Histogram>> {
        self.histogram_at(offset_of!(TokenStats, completion) / size_of::<u64>())
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
