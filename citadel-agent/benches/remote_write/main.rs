//! What remote write costs. Run by `cargo xtask bench remote-write`, which writes what this prints into
//! `docs/overhead.md`.
//!
//! - `--outage SECONDS`: while the receiver is away and when it comes back, beside Prometheus in agent mode.
//! - `--cost SECONDS`: CPU and memory with a receiver that takes everything, beside Prometheus 3 in agent mode and vmagent.
//!
//! The receivers and the target that the others scrape are this process (its costs are nobody's); the agent's remote write
//! is this program again. CPU and memory are read from `/proc`.

mod cost;
mod outage;
mod pages;
mod process;
mod sink;

use std::env;
use std::time::Duration;

fn main() {
    if let Ok(configuration) = env::var(process::ROLE) {
        return process::sender(&configuration);
    }
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut seconds = || {
            let number = words.next().and_then(|number| number.parse().ok());
            Duration::from_secs(number.expect("a number of seconds"))
        };
        match word.as_str() {
            "--outage" => outage::compare(seconds()),
            "--cost" => cost::compare(seconds()),
            // cargo's own.
            "--bench" => {}
            other => panic!("{other} is no option; there are --outage SECONDS and --cost SECONDS"),
        }
    }
}
