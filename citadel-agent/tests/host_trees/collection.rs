//! A slow source in the pages that alerts and remote write get.

use std::fs;
use std::io::Write as _;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use citadel_agent::collector::{Collect, Collector, Pages as _};
use citadel_agent::metrics::family::Page;
use citadel_agent::sources::background;

use super::support::text::parse;
use super::{Host, text};

/// Reads the host for collections at an interval.
struct Steady {
    host: Host,
    readers: background::Readers,
}

impl Collect for Steady {
    fn refresh(&self, within: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let refreshed = self.readers.refresh(None, &self.host.context, within);
        Box::pin(async move { _ = refreshed.await })
    }

    fn collect(&self) -> Page {
        self.host.collect(&self.readers.steady())
    }
}

#[test]
fn a_slow_source_is_in_every_collection_without_a_scraper() {
    // Slower than scrapers accept from an older reading (1 s); slower than a collection waits (2/3 s); slower than an interval. At
    // the same time, because each mostly waits.
    thread::scope(|scope| {
        for (takes, every, pages, from) in [(1200, 3000, 5, 0), (800, 1000, 7, 2), (1500, 1000, 7, 3)] {
            scope.spawn(move || is_in_every_collection(takes, every, pages, from));
        }
    });
}

/// A source that takes so many milliseconds is in the collections each `every` ms, from the number `from` on.
fn is_in_every_collection(takes: u64, every: u64, pages: usize, from: usize) {
    let host = Host::unpack("gpu-host");
    let mdstat = host.folder.path().join("root/proc/mdstat");
    let content = fs::read(&mdstat).unwrap();
    fs::remove_file(&mdstat).unwrap();
    assert!(Command::new("mkfifo").arg(&mdstat).status().unwrap().success());
    thread::spawn(move || {
        // Opening it waits for the reader. Ends when the folder is removed.
        while let Ok(mut fifo) = fs::File::options().write(true).open(&mdstat) {
            thread::sleep(Duration::from_millis(takes));
            _ = fifo.write_all(&content);
            drop(fifo);
            // The reader has to see the end of the file before the next one opens it.
            thread::sleep(Duration::from_millis(50));
        }
    });
    let steady = Arc::new(Steady { host, readers: background::Readers::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found: Vec<_> = runtime.block_on(async {
        let collector = Collector::start(Arc::clone(&steady) as _);
        let mut collected = collector.subscribe(Duration::from_millis(every));
        let mut found = Vec::new();
        for _ in 0..pages {
            let page = parse(&text(collected.next().await.unwrap().page.clone()));
            let disks = page.value("node_md_disks", &[("device", "md0"), ("state", "active")]);
            found.push((page.value("citadel_source_success", &[("source", "mdadm")]), disks));
        }
        found
    });
    assert_eq!(found[from..], vec![(Some(1.0), Some(3.0)); pages - from], "{takes} ms each {every} ms: {found:?}");
}
