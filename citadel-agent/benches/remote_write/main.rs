//! The cost of remote write. Run by `cargo xtask bench remote-write`, which writes the output into `docs/overhead.md`.
//!
//! - `--outage SECONDS`: during and after an outage of the receiver, compared with Prometheus in agent mode.
//! - `--cost SECONDS`: CPU and memory with a receiver that accepts everything, compared with Prometheus 3 in agent mode
//!   and vmagent.
//!
//! This process is the receivers and the target that the others scrape; its own cost is not measured. The agent's
//! remote write is this program in a second process. CPU and memory are read from `/proc`.

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
            // Passed by cargo.
            "--bench" => {}
            other => panic!("{other} is no option; there are --outage SECONDS and --cost SECONDS"),
        }
    }
}
