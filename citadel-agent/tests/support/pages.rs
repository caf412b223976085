//! Pages from a closure, in place of the agent's collector.

use std::sync::Arc;
use std::time::Duration;

use citadel_agent::collector::{Collected, Pages};
use citadel_agent::metrics::family::Page;
use tokio::time::{Interval, MissedTickBehavior, interval};

pub(crate) struct Every<F> {
    collect: F,
    ticks: Interval,
}

/// Calls `collect` at each interval; `None` is no page this time.
pub(crate) fn every<F: FnMut() -> Option<Page> + Send + 'static>(
    collect: F,
) -> impl FnOnce(Duration) -> Every<F> + Send {
    |every| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Every { collect, ticks }
    }
}

impl<F: FnMut() -> Option<Page> + Send + 'static> Pages for Every<F> {
    async fn next(&mut self) -> Option<Arc<Collected>> {
        loop {
            self.ticks.tick().await;
            if let Some(page) = (self.collect)() {
                return Some(Arc::new(Collected::now(page).expect("a page by the rules")));
            }
        }
    }
}
