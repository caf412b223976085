//! The pages that the agent sends, and a scrape target that serves the same pages.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::collector::Collect;
use citadel_agent::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUEST_BYTES, TIME_TO_FIRST_TOKEN};
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::{self, format::Format};
use citadel_agent_common::hist::Histogram;

use crate::sink;

/// The size of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// 1,000 models with a counter and a gauge each: 2,000 series.
    Small,
    /// 500 models with a counter, a gauge and a latency histogram each: 21,000 series, most of them of histograms, as
    /// on a real agent's page.
    Large,
}

impl Shape {
    pub(crate) fn of(name: &str) -> Self {
        if name == "large" { Self::Large } else { Self::Small }
    }

    pub(crate) fn name(self) -> &'static str {
        if self == Self::Large { "large" } else { "small" }
    }

    /// The page at second `tick`: counters that grow and gauges that change.
    pub(crate) fn page(self, tick: u64) -> Page {
        let mut page = Page::default();
        for model in 0..if self == Self::Large { 500 } else { 1000 } {
            let labels = [format!("model-{model}"), (11_400 + model % 100).to_string()];
            let labels = [labels[0].as_str(), labels[1].as_str()];
            page.add(&REQUEST_BYTES, labels, Value::Integer(tick * 1000 + tick * model));
            page.add(&CONNECTIONS_OPEN, labels, Value::Integer((tick + model) % 17));
            if self == Self::Large {
                let mut histogram = Histogram::EMPTY;
                for i in 0..20 {
                    histogram.cells[100 + (i * 3 + model as usize) % 80] = tick + i as u64;
                }
                let labels = [labels[0], labels[1], "/v1/chat/completions"];
                page.add(&TIME_TO_FIRST_TOKEN, labels, Value::Histogram(Box::new(histogram)));
            }
        }
        page
    }

    fn text(self, tick: u64) -> Vec<u8> {
        metrics::encode(self.page(tick), Format::Text).expect("a page")
    }

    /// Number of series of a page, as a scrape counts them.
    pub(crate) fn series(self) -> u64 {
        self.text(1).split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count() as u64
    }
}

/// The page in the form in which the agent's collector reads it.
pub(crate) struct Source {
    shape: Shape,
    tick: AtomicU64,
}

impl Source {
    pub(crate) fn new(shape: Shape) -> Arc<Self> {
        Arc::new(Self { shape, tick: AtomicU64::new(0) })
    }
}

impl Collect for Source {
    fn refresh(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn collect(&self) -> Page {
        self.shape.page(self.tick.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The target that the others scrape: the same pages, one per second.
pub(crate) fn target(shape: Shape) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let begin = Instant::now();
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while sink::request(&mut stream).is_some() {
                    let body = shape.text(begin.elapsed().as_secs());
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
                        Format::Text.content_type(),
                        body.len()
                    );
                    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}
