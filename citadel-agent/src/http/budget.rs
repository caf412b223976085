//! Memory of responses in progress: a buffer counts from its creation until the last connection has finished sending
//! it, once however many share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use tokio::sync::Notify;

/// The limit of a listener, and the current use, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
    exceeded: Notify,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), exceeded: Notify::new() })
    }

    /// Returns a body that counts as long as a clone exists. Never refuses: slow clients are closed instead.
    pub(super) fn hold(self: &Arc<Self>, body: Vec<u8>) -> Bytes {
        // The length, not the capacity: memory that was never written is not resident.
        self.used.fetch_add(body.len(), Ordering::Relaxed);
        if self.is_exceeded() {
            self.exceeded.notify_one();
        }
        Bytes::from_owner(Held { body, budget: Arc::clone(self) })
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }

    /// Waits until the limit is exceeded.
    pub(super) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }
}

/// A body in memory.
struct Held {
    body: Vec<u8>,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_body_counts_once_and_until_its_last_copy_is_gone() {
        let budget = Budget::new(10);
        let first = budget.hold(vec![0; 6]);
        let copies = [first.clone(), first.slice(2..4)];
        assert!(!budget.is_exceeded());
        let second = budget.hold(vec![0; 5]);
        assert!(budget.is_exceeded());
        drop(first);
        assert!(budget.is_exceeded(), "copies still hold it");
        drop(copies);
        assert!(!budget.is_exceeded());
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
