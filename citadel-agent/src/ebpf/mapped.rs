//! Kernel array maps, mapped into memory: reading them costs no system call (`BPF_F_MMAPABLE`, Linux 5.5).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

use citadel_agent_common::abi::{EndpointStats, ModelStats};
use citadel_agent_common::hist::Histogram;

/// A value that consists of `u64` alone, so that it can be read word by word while the kernel adds to it.
///
/// # Safety
/// The type must be `repr(C)`, made of `u64` only, and valid for any of their values.
pub unsafe trait Words: Copy {}

// SAFETY: `repr(C)`, histograms and counters of u64.
unsafe impl Words for ModelStats {}
// SAFETY: likewise.
unsafe impl Words for EndpointStats {}
// SAFETY: likewise.
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
// SAFETY: likewise.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Words> Mapped<T> {
    /// Maps `entries` entries of `map`, from entry `first` on. Where the range does not begin on a page, so does the
    /// kernel refuse.
    ///
    /// # Errors
    /// When the kernel refuses the mapping.
    pub fn new(map: &impl AsFd, first: usize, entries: usize) -> io::Result<Self> {
        let bytes = entries * size_of::<T>();
        let offset = libc::off_t::try_from(first * size_of::<T>()).map_err(io::Error::other)?;
        let fd: BorrowedFd<'_> = map.as_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, entries, bytes, _entry: PhantomData })
    }

    /// A copy of entry `index`, counted from the first mapped one. Each word is whole; words may be of different moments.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Box<T>> {
        if index >= self.entries {
            return None;
        }
        let words = size_of::<T>() / size_of::<u64>();
        let mut copy = Box::<T>::new_uninit();
        // SAFETY: the entry lies inside the mapping, which lives as long as `self`; the copy is as long, and every word
        // of it is written. `Words` promises that any words make a valid value.
        unsafe {
            let from = self.start.as_ptr().add(index * words);
            let to = copy.as_mut_ptr().cast::<u64>();
            for word in 0..words {
                to.add(word).write(from.add(word).read_volatile());
            }
            Some(copy.assume_init())
        }
    }

    /// One word of entry `index`, without a copy of the rest.
    #[must_use]
    pub fn word(&self, index: usize, word: usize) -> Option<u64> {
        let words = size_of::<T>() / size_of::<u64>();
        if index >= self.entries || word >= words {
            return None;
        }
        // SAFETY: inside the mapping, which lives as long as `self`.
        Some(unsafe { self.start.as_ptr().add(index * words + word).read_volatile() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
