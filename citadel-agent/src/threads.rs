//! Waits for threads that a hung disk can block.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for a thread that writes files to end; if a hung disk blocks it for longer, it is left behind.
const GRACE: Duration = Duration::from_secs(3);

/// Waits for the thread to end; returns false after [`GRACE`].
pub(crate) async fn ends<T>(thread: &JoinHandle<T>) -> bool {
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < GRACE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    thread.is_finished()
}
