//! A slot into which a slow reader publishes its newest complete sample for scrapes.
//!
//! A source that can hang (a driver, a disk that spins up, a peer) runs on its own thread or task and publishes here. A
//! scrape takes the current value without waiting; its age shows whether the reader is alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A value that is replaced as a whole. Clones share it.
#[derive(Debug)]
pub struct Slot<T> {
    newest: Arc<Mutex<Option<Published<T>>>>,
}

/// A published value.
#[derive(Debug)]
pub struct Published<T> {
    /// The value; shared, because a scrape may still read it when the next one is published.
    pub value: Arc<T>,
    /// When it was published.
    pub at: Instant,
}

impl<T> Published<T> {
    /// How long ago it was published.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), at: self.at }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { newest: Arc::clone(&self.newest) }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { newest: Arc::default() }
    }
}

impl<T> Slot<T> {
    /// Replaces the value.
    pub fn publish(&self, value: T) {
        let published = Published { value: Arc::new(value), at: Instant::now() };
        // Both sides hold the lock only for a move. The old value is dropped after unlocking.
        let old = self.newest.lock().unwrap_or_else(PoisonError::into_inner).replace(published);
        drop(old);
    }

    /// The newest value, `None` before the first.
    #[must_use]
    pub fn newest(&self) -> Option<Published<T>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_newest_value_and_keep_an_older_one() {
        let slot = Slot::default();
        assert!(slot.newest().is_none());
        let writer = slot.clone();
        writer.publish(1);
        let old = slot.newest().unwrap();
        writer.publish(2);
        assert_eq!((*old.value, *slot.newest().unwrap().value), (1, 2));
        assert!(slot.newest().unwrap().at >= old.at);
    }
}
