//! Accepts connections and closes those that use too much.
//!
//! Everything that a client can occupy is limited by [`Limits`](super::Limits): the number of connections, the time of each phase, and
//! the memory of responses. A new connection is always accepted: if there are too many, the most dispensable one is
//! closed, see [`connections`](super::connections). So neither a thousand idle connections nor a thousand slow ones
//! lock out a scraper.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task;
use tokio::time::{self, MissedTickBehavior};

use super::budget::Budget;
use super::connections::Connections;

/// How often the time limits are checked.
const SWEEP: Duration = Duration::from_millis(250);

/// Pause after a failed accept, which would fail again immediately if file descriptors have run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts connections on `listener` until `shutdown` completes, then lets open requests finish within the grace time.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    mut connections: Connections,
    budget: &Budget,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut sweep = time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.admit(stream, client.ip());
                    // A request that has already arrived is read before the next new connection can replace this one.
                    task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    if is_exhaustion(&error) {
                        connections.make_room();
                    }
                    time::sleep(ACCEPT_BACKOFF).await;
                }
            },
            () = budget.exceeded() => connections.free_memory().await,
            () = connections.next_ended() => {}
            _ = sweep.tick(), if !connections.is_empty() => connections.sweep(),
        }
    }
    drop(listener);
    connections.drain().await;
    Ok(())
}

/// Whether closing a connection would help: out of file descriptors or memory. Otherwise the new connection itself
/// failed.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
