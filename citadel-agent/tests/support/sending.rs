//! Remote write at work, without an agent around it.

use std::time::Duration;

use citadel_agent::config::{self, Config};
use citadel_agent::metrics::catalogue::models::CONNECTIONS_OPEN;
use citadel_agent::metrics::family::{self, Page};
use citadel_agent::remote_write::Numbers;
use citadel_agent::remote_write::{self, Handle, ledger};
use citadel_agent::slot::Slot;
use tempfile::TempDir;

use super::pages::every;
use super::receiver::{Receiver, Reply};

/// A running remote write with one destination, `prometheus`.
pub struct Sending {
    pub dir: TempDir,
    pub config: Config,
    pub numbers: Slot<Vec<Numbers>>,
    handle: Option<Handle>,
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Sending {
    /// `more` are lines of the destination's section.
    pub fn to(url: &str, more: &str, collect: impl FnMut() -> Option<Page> + Send + 'static) -> Self {
        Self::with(url, more, "", collect)
    }

    /// `section` are lines of `remote_write`.
    pub fn with(url: &str, more: &str, section: &str, collect: impl FnMut() -> Option<Page> + Send + 'static) -> Self {
        let mut sending = Self::idle(url, more, section);
        sending.start(collect);
        sending
    }

    /// One that is not started yet.
    pub fn idle(url: &str, more: &str, section: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let text = format!(
            "remote_write:\n  interval: 100ms\n  directory: {}\n  instance: gpu1\n  min_free_bytes: 0\n{section}\n  \
             destinations:\n    prometheus:\n      url: '{url}'\n{more}\n",
            dir.path().display()
        );
        let config = config::parse("test", &text).unwrap_or_else(|errors| panic!("{errors}"));
        Self { dir, config, numbers: Slot::default(), handle: None }
    }

    pub fn start(&mut self, collect: impl FnMut() -> Option<Page> + Send + 'static) {
        let prepared = remote_write::prepare(&self.config).unwrap().expect("a destination");
        self.numbers = Slot::default();
        self.handle = Some(remote_write::start(prepared, self.numbers.clone(), every(collect)).unwrap());
    }

    pub fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            runtime().block_on(handle.stop());
        }
    }

    /// What a reload of the configuration does.
    pub fn reload(&mut self, change: impl FnOnce(&mut Config), collect: impl FnMut() -> Option<Page> + Send + 'static) {
        let told = runtime().block_on(self.handle.take().expect("it runs").stop());
        change(&mut self.config);
        let prepared = remote_write::prepare(&self.config).unwrap().expect("a destination").following(told);
        self.handle = Some(remote_write::start(prepared, self.numbers.clone(), every(collect)).unwrap());
    }

    pub fn numbers(&self) -> Numbers {
        let begin = std::time::Instant::now();
        let numbers = loop {
            match self.numbers.newest() {
                Some(newest) => break newest.value[0].clone(),
                None => assert!(begin.elapsed() < Duration::from_secs(60), "no figures in time"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let dropped: u64 = numbers.dropped.iter().map(|(_, count)| count).sum();
        assert_eq!(
            numbers.collected,
            numbers.acknowledged + numbers.rejected + dropped + numbers.pending,
            "{numbers:?}"
        );
        numbers
    }

    pub fn wait(&self, what: &str, condition: impl Fn(&Numbers) -> bool) -> Numbers {
        for _ in 0..4000 {
            let numbers = self.numbers();
            if condition(&numbers) {
                return numbers;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {what} in time: {:?}", self.numbers());
    }

    pub fn ledger(&self) -> ledger::Ledger {
        ledger::read(&self.dir.path().join("prometheus.ledger")).unwrap().expect("a ledger")
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The same page each time.
pub fn always(page: Page) -> impl FnMut() -> Option<Page> + Send {
    move || Some(page.clone())
}

/// Pages with one gauge, whose value is the number of the page.
pub fn counting() -> impl FnMut() -> Option<Page> + Send {
    let mut count = 0;
    move || {
        count += 1;
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], family::Value::Integer(count));
        Some(page)
    }
}

/// The destination speaks 1.0 alone.
pub const V1: &str = "      protocol: 1.0";

/// Runs a case in both protocols; it is told what to configure, and whether that is 2.0.
pub fn both(test: impl Fn(&str, bool)) {
    test("", true);
    test(V1, false);
}

/// A receiver that takes everything.
pub fn taken() -> Receiver {
    Receiver::start(|_| Reply::Taken)
}
