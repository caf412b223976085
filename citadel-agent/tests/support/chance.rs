//! Repeatable chance.

use std::thread;
use std::time::Duration;

/// A generator of numbers that only look random (xorshift64): enough for test data.
pub struct Chance(u64);

impl Chance {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number, below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Likewise; 0 if `bound` is 0.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound.max(1) as u64)).unwrap()
    }

    /// Sleeps for less than so many milliseconds.
    pub fn pause(&mut self, longest_ms: u64) {
        thread::sleep(Duration::from_millis(self.below(longest_ms)));
    }
}
