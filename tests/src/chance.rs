//! Numbers that only look random, and can be had again.

/// Numbers that only look random (xorshift64).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 11) as usize % bound
    }

    /// True once in so many times.
    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn of<'a>(&mut self, choices: &'a [Vec<u8>]) -> &'a [u8] {
        &choices[self.below(choices.len())]
    }
}
