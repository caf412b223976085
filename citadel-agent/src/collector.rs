//! Reads all sources once per interval for everything that consumes pages by itself.
//!
//! Alerts and remote write each [subscribe](Collector::subscribe) with their interval. All intervals have the same
//! origin, so subscribers with the same interval get the same page, and one whose interval is a multiple of another's
//! gets every n-th. A scrape does not use the collector: it triggers its own reading.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use crate::clock::wall_ms;
use crate::metrics::family::{Page, PageError};

/// A read of a source that takes longer than this is no longer waited for.
pub const HOPELESS: Duration = Duration::from_secs(10);

/// The source of pages.
pub trait Collect: Send + Sync + 'static {
    /// Reads the slow sources; completes when they are done, at the latest after `within`.
    fn refresh(&self, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Returns a page with all metrics. Must not block.
    fn collect(&self) -> Page;
}

/// A page and when it was collected.
#[derive(Debug)]
pub struct Collected {
    /// Wall-clock time in milliseconds since the epoch.
    pub at_ms: i64,
    /// All families, sorted.
    pub page: Page,
}

impl Collected {
    /// A page collected now.
    ///
    /// # Errors
    /// The page violates the catalogue, see [`Page::sort`].
    pub fn now(mut page: Page) -> Result<Self, PageError> {
        page.sort()?;
        Ok(Self { at_ms: wall_ms(), page })
    }
}

/// A sink's supply of pages.
pub trait Pages: Send + 'static {
    /// Waits for the next page. A missed page is skipped. `None`: there will be no more.
    fn next(&mut self) -> impl Future<Output = Option<Arc<Collected>>> + Send;
}

/// The collector. Dropping it ends all subscriptions.
#[derive(Debug)]
pub struct Collector {
    subscribers: Arc<Subscribers>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Subscribers {
    /// Origin of all intervals.
    begin: Instant,
    all: Mutex<Vec<Subscriber>>,
    changed: Notify,
}

#[derive(Debug)]
struct Subscriber {
    every: Duration,
    due: Instant,
    /// Whether it takes pages whose slow sources are as they were read last.
    live: bool,
    pages: watch::Sender<Option<Arc<Collected>>>,
}

/// A subscription; dropping it ends it.
#[derive(Debug)]
pub struct Subscription(watch::Receiver<Option<Arc<Collected>>>);

impl Pages for Subscription {
    async fn next(&mut self) -> Option<Arc<Collected>> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

impl Collector {
    /// Starts on the caller's runtime. Nothing is read while there are no subscribers.
    #[must_use]
    pub fn start(source: Arc<dyn Collect>) -> Self {
        let subscribers =
            Arc::new(Subscribers { begin: Instant::now(), all: Mutex::default(), changed: Notify::new() });
        let task = tokio::spawn(run(Arc::clone(&subscribers), source));
        Self { subscribers, task }
    }

    /// A deferred subscription, which can be made on another thread.
    pub fn pages(&self) -> impl FnOnce(Duration) -> Subscription + Send + use<> {
        let subscribers = Arc::clone(&self.subscribers);
        move |every| subscribers.subscribe(every, false)
    }

    /// Delivers a page now, then one at each full interval. An interval of 0 counts as a millisecond.
    #[must_use]
    pub fn subscribe(&self, every: Duration) -> Subscription {
        self.subscribers.subscribe(every, false)
    }

    /// The same, for a frequent subscriber that does not need slow sources: they are not read for it.
    #[must_use]
    pub fn subscribe_live(&self, every: Duration) -> Subscription {
        self.subscribers.subscribe(every, true)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
        self.subscribers.all().clear();
    }
}

impl Subscribers {
    fn subscribe(&self, every: Duration, live: bool) -> Subscription {
        let every = every.max(Duration::from_millis(1));
        let (pages, receiver) = watch::channel(None);
        self.all().push(Subscriber { every, due: Instant::now(), live, pages });
        self.changed.notify_one();
        Subscription(receiver)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next page is due; drops closed subscriptions.
    fn next(&self) -> Option<Instant> {
        let mut all = self.all();
        all.retain(|subscriber| !subscriber.pages.is_closed());
        all.iter().map(|subscriber| subscriber.due).min()
    }

    /// How long to wait for slow sources now; `None` if no subscriber that is due needs them.
    fn patience(&self) -> Option<Duration> {
        let (all, now) = (self.all(), Instant::now());
        let wants = || all.iter().filter(|subscriber| !subscriber.live);
        wants().find(|subscriber| subscriber.due <= now)?;
        wants().map(|subscriber| subscriber.every).min().map(patience)
    }

    /// Delivers a page to all subscribers that are due; without one, they wait for the next.
    fn publish(&self, collected: Option<&Arc<Collected>>) {
        let now = Instant::now();
        for subscriber in self.all().iter_mut().filter(|subscriber| subscriber.due <= now) {
            // After a pause (a suspended machine), one page is due, not all that were missed.
            subscriber.due = next(self.begin, subscriber.every, now);
            if let Some(collected) = collected {
                subscriber.pages.send_replace(Some(Arc::clone(collected)));
            }
        }
    }
}

/// The first full interval after `now`.
fn next(begin: Instant, every: Duration, now: Instant) -> Instant {
    let (passed, every) = (now.duration_since(begin).as_nanos(), every.as_nanos());
    // 2^64 nanoseconds are 584 years.
    begin + Duration::from_nanos(u64::try_from((passed / every + 1) * every).unwrap_or(u64::MAX))
}

/// How long a collection waits for slow sources: it must end before the next one is due.
fn patience(shortest: Duration) -> Duration {
    (shortest * 2 / 3).min(HOPELESS)
}

async fn run(subscribers: Arc<Subscribers>, source: Arc<dyn Collect>) {
    let mut failing = false;
    loop {
        let changed = subscribers.changed.notified();
        let Some(due) = subscribers.next() else {
            changed.await;
            continue;
        };
        tokio::select! {
            () = sleep_until(due) => {}
            () = changed => continue,
        }
        if let Some(patience) = subscribers.patience() {
            source.refresh(patience).await;
        }
        let collected = Collected::now(source.collect());
        if let Err(error) = &collected
            && !failing
        {
            error!(%error, "a collected page is invalid and is neither evaluated nor sent; please report this bug");
        }
        failing = collected.is_err();
        subscribers.publish(collected.ok().map(Arc::new).as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::metrics::catalogue::models::CONNECTIONS_OPEN;
    use crate::metrics::family::Value;

    /// Gives pages that are numbered from 1; a refresh takes `slow`, or as long as it may.
    struct Numbered {
        slow: Duration,
        pages: AtomicU64,
    }

    impl Collect for Numbered {
        fn refresh(&self, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(tokio::time::sleep(self.slow.min(within)))
        }

        fn collect(&self) -> Page {
            let mut page = Page::default();
            let number = self.pages.fetch_add(1, Ordering::Relaxed) + 1;
            page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], Value::Integer(number));
            page
        }
    }

    fn numbered(slow_ms: u64) -> Arc<Numbered> {
        Arc::new(Numbered { slow: Duration::from_millis(slow_ms), pages: AtomicU64::new(0) })
    }

    fn number(collected: &Collected) -> u64 {
        match collected.page.families[0].samples[0].value {
            Value::Integer(number) => number,
            ref other => panic!("{other:?}"),
        }
    }

    async fn numbers(subscription: &mut Subscription, count: usize) -> Vec<(u64, Duration)> {
        let begin = Instant::now();
        let mut numbers = Vec::new();
        for _ in 0..count {
            let collected = subscription.next().await.unwrap();
            numbers.push((number(&collected), begin.elapsed()));
        }
        numbers
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// tokio's test clock counts whole milliseconds and rounds up.
    fn seconds(numbers: &[(u64, Duration)]) -> Vec<(u64, u64)> {
        numbers.iter().map(|(number, at)| (*number, at.as_millis() as u64 / 1000)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn subscribers_of_one_interval_share_each_page() {
        let source = numbered(0);
        let collector = Collector::start(Arc::clone(&source) as _);
        let (mut a, mut b) = (collector.subscribe(15 * SECOND), collector.subscribe(15 * SECOND));
        for expected in 1..=10 {
            let (first, second) = (a.next().await.unwrap(), b.next().await.unwrap());
            assert!(Arc::ptr_eq(&first, &second));
            assert_eq!(number(&first), expected);
        }
        assert_eq!(source.pages.load(Ordering::Relaxed), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_later_falls_into_step() {
        let source = numbered(0);
        let collector = Collector::start(Arc::clone(&source) as _);
        let mut often = collector.subscribe(5 * SECOND);
        assert_eq!(number(&often.next().await.unwrap()), 1);
        tokio::time::sleep(7 * SECOND).await;
        // At 7 s: a page at once, and from the next multiple of 15 s on those that the other gets as well (10, 15, ...).
        let mut seldom = collector.subscribe(15 * SECOND);
        assert_eq!(seconds(&numbers(&mut seldom, 3).await), [(3, 0), (5, 8), (8, 23)]);
        drop(seldom);
        // Only the newest page waits for a subscriber that was busy.
        assert_eq!(number(&often.next().await.unwrap()), 8);
        assert_eq!(source.pages.load(Ordering::Relaxed), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collection_waits_for_slow_sources_but_not_into_the_next_one() {
        for (slow_ms, every, expected) in [
            (4000, 15, [(1, 4), (2, 19), (3, 34)]),
            (60_000, 15, [(1, 10), (2, 25), (3, 40)]),
            (60_000, 3, [(1, 2), (2, 5), (3, 8)]),
        ] {
            let collector = Collector::start(numbered(slow_ms));
            let mut pages = collector.subscribe(every * SECOND);
            assert_eq!(seconds(&numbers(&mut pages, 3).await), expected, "{slow_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_while_nobody_subscribes_and_the_end_is_told() {
        let source = numbered(0);
        let collector = Collector::start(Arc::clone(&source) as _);
        tokio::time::sleep(100 * SECOND).await;
        drop(collector.subscribe(SECOND));
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(source.pages.load(Ordering::Relaxed), 0);
        let mut pages = collector.subscribe(SECOND);
        assert!(pages.next().await.is_some());
        drop(collector);
        assert!(pages.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_needs_no_slow_sources_does_not_wait_for_them() {
        let collector = Collector::start(numbered(4000));
        let mut live = collector.subscribe_live(5 * SECOND);
        assert_eq!(seconds(&numbers(&mut live, 3).await), [(1, 0), (2, 5), (3, 10)]);
        // Where both are due, they share the page, and the wait.
        let mut all = collector.subscribe(15 * SECOND);
        assert_eq!(seconds(&numbers(&mut all, 2).await), [(4, 4), (5, 9)]);
        assert_eq!(number(&live.next().await.unwrap()), 5);
    }

    #[test]
    fn a_page_that_breaks_the_catalogue_is_refused() {
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], Value::Integer(1));
        page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], Value::Integer(2));
        assert!(Collected::now(page).is_err());
    }
}
