//! The open connections of a listener, and which one to close if there are too many or they take too much memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{self, Instant};

use super::activity::{Activity, ConnectionState, Phase};
use super::budget::Budget;
use super::dropped::Reason;
use super::guard::Gate;
use super::limits::Limits;
use super::router::Site;
use super::{client, connection};

/// A reason is logged again after no connection has been dropped for it for this long.
const QUIET: Duration = Duration::from_secs(60);

/// The open connections of a listener.
pub(super) struct Connections {
    site: Arc<Site>,
    limits: Limits,
    budget: Arc<Budget>,
    last_dropped: [Option<Instant>; Reason::ALL.len()],
    tasks: JoinSet<()>,
    open: HashMap<Id, Connection>,
    /// Set when the listener is closed: each connection then ends after its current response.
    closing: watch::Sender<bool>,
}

struct Connection {
    client: IpAddr,
    activity: Arc<Activity>,
    task: AbortHandle,
}

impl Connections {
    pub(super) fn new(site: Site, limits: Limits, budget: Arc<Budget>) -> Self {
        Self {
            site: Arc::new(site),
            limits,
            budget,
            last_dropped: [None; Reason::ALL.len()],
            tasks: JoinSet::new(),
            open: HashMap::new(),
            closing: watch::Sender::new(false),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn admit(&mut self, stream: TcpStream, client: IpAddr) {
        if self.open.len() >= self.limits.connections {
            self.make_room();
        }
        let activity = Arc::new(Activity::new());
        let site = Arc::clone(&self.site);
        let client = client::network(client);
        let serving = connection::serve(stream, client, Arc::clone(&activity), site, self.closing.subscribe());
        let task = self.tasks.spawn(serving);
        self.open.insert(task.id(), Connection { client, activity, task });
    }

    /// Closes the most dispensable connection.
    pub(super) fn make_room(&mut self) {
        let connections = self.open.iter().map(|(id, open)| (*id, open.client, open.activity.state()));
        if let Some(victim) = most_dispensable(&connections.collect::<Vec<_>>()) {
            self.drop(victim, Reason::ConnectionLimit);
        }
    }

    /// Closes slow readers until responses in progress are within the memory limit, starting with the one without
    /// progress for the longest time. The last one is kept, however long its response is.
    pub(super) async fn free_memory(&mut self) {
        self.site.forget_shared();
        while self.budget.is_exceeded() {
            let states = self.open.iter().map(|(id, open)| (*id, open.activity.state()));
            let mut readers: Vec<_> = states.filter(|(_, state)| state.phase == Phase::Sending).collect();
            readers.sort_by_key(|(_, state)| state.progress);
            let [(slowest, _), _, ..] = readers[..] else { return };
            self.drop(slowest, Reason::MemoryLimit);
            // Memory is released when the task has ended.
            while let Some(ended) = self.tasks.join_next_with_id().await {
                if self.forget(ended) == slowest {
                    break;
                }
            }
        }
    }

    /// Closes connections that exceeded their time limit.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let states = self.open.iter().map(|(id, open)| (*id, open.activity.state()));
        let late = states.filter(|(_, state)| now - state.since > self.limits.of(state.phase));
        for (id, state) in late.collect::<Vec<_>>() {
            match state.phase {
                // It was kept alive for another request, but none came.
                Phase::Idle => self.end(id),
                Phase::Reading => self.drop(id, Reason::RequestTimeout),
                Phase::Making | Phase::Sending => self.drop(id, Reason::ResponseTimeout),
            }
        }
    }

    /// Waits for a connection to end; forever if there are none.
    pub(super) async fn next_ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => _ = self.forget(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits for responses in progress, at most for the grace time.
    pub(super) async fn drain(mut self) {
        self.closing.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(self.limits.grace, all).await.is_err() {
            tracing::info!("closed connections that did not read their response within the grace period");
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) -> Id {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.open.remove(&id);
        id
    }

    /// Closes a connection early.
    fn drop(&mut self, id: Id, reason: Reason) {
        let Gate { content, dropped, .. } = self.site.gate();
        dropped.count(*content, reason);
        let now = Instant::now();
        let last = self.last_dropped[reason as usize].replace(now);
        if last.is_none_or(|last| now - last > QUIET)
            && let Some(connection) = self.open.get(&id)
        {
            tracing::warn!(
                listener = content.name(), reason = reason.name(), client = %connection.client,
                "closed a connection early; further ones are only counted until there have been none for a minute"
            );
        }
        self.end(id);
    }

    fn end(&mut self, id: Id) {
        if let Some(connection) = self.open.remove(&id) {
            connection.task.abort();
        }
    }
}

/// The connection to close.
///
/// Connections without a complete request are closed before those being answered. The best connection of each client is
/// kept while another client has more than one: being answered is better than not, and recent progress is better than
/// old. A client that sends its request immediately is therefore answered whatever clients with other addresses do, as
/// long as there are fewer of them than connections. During a flood from its own address (or from more addresses than
/// connections) it is answered if its request arrives before as many new connections as the limit.
fn most_dispensable<K: Copy>(connections: &[(K, IpAddr, ConnectionState)]) -> Option<K> {
    let rank = |state: &ConnectionState| (state.is_answering(), state.progress);
    let mut best = HashMap::new();
    for (_, client, state) in connections {
        let best = best.entry(client).or_insert(rank(state));
        *best = rank(state).max(*best);
    }
    let order = |(_, client, state): &&(K, IpAddr, ConnectionState)| {
        let (answering, progress) = rank(state);
        (answering, best[client] == (answering, progress), progress)
    };
    connections.iter().min_by_key(order).map(|(key, ..)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which one goes: connections as (client, phase, seconds without progress).
    fn first_to_go(connections: &[(u8, Phase, u64)]) -> usize {
        let now = Instant::now() + Duration::from_secs(1000);
        let connections: Vec<_> = (connections.iter().enumerate())
            .map(|(i, (client, phase, seconds))| {
                let progress = now - Duration::from_secs(*seconds);
                (i, IpAddr::from([127, 0, 0, *client]), ConnectionState { phase: *phase, since: now, progress })
            })
            .collect();
        most_dispensable(&connections).unwrap()
    }

    #[test]
    fn the_best_connection_of_a_client_stays_while_another_client_has_several() {
        use Phase::{Idle, Making, Reading, Sending};
        // The oldest, where all are of one client.
        assert_eq!(first_to_go(&[(1, Idle, 1), (1, Idle, 3), (1, Reading, 2)]), 1);
        // Parts of a request make no difference.
        assert_eq!(first_to_go(&[(1, Idle, 1), (1, Reading, 3), (1, Idle, 2)]), 1);
        // One connection of a client is older than all, but its only one.
        assert_eq!(first_to_go(&[(1, Idle, 9), (2, Idle, 3), (2, Idle, 2)]), 1);
        assert_eq!(first_to_go(&[(1, Idle, 9), (2, Making, 3), (2, Reading, 2)]), 2);
        // Each has one: the oldest of those that wait.
        assert_eq!(first_to_go(&[(1, Idle, 1), (2, Sending, 9), (3, Reading, 2)]), 2);
        // Nobody waits but with its only one: that can be opened again, and a response cannot be sent again.
        assert_eq!(first_to_go(&[(1, Idle, 1), (2, Making, 9), (2, Sending, 8)]), 0);
        // All are being answered: the slowest of those that have more than one.
        assert_eq!(first_to_go(&[(1, Sending, 9), (2, Making, 2), (2, Sending, 3)]), 2);
        assert_eq!(first_to_go(&[(1, Sending, 2), (2, Making, 9), (3, Sending, 3)]), 1);
    }
}
