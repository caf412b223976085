//! Waiting for threads to end that a hung disk may hold up.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread that writes files may take to end; one that a hung disk holds up longer goes on without us.
const GRACE: Duration = Duration::from_secs(3);

/// Waits until the thread has ended; false if it has not within three seconds.
pub(crate) async fn ends<T>(thread: &JoinHandle<T>) -> bool {
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < GRACE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    thread.is_finished()
}
