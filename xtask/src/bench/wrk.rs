//! wrk, the load generator.

use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::{go_on, nginx};
use crate::process;

/// Connections of a saturating load.
pub(super) const CONNECTIONS: usize = 32;

/// What wrk reports.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Outcome {
    /// Requests answered while wrk counted.
    pub(super) requests: u64,
    /// Requests per second.
    pub(super) rate: f64,
}

/// Saturates `port` for some seconds, from the second CPU if there is one: nginx runs on the first.
pub(super) fn saturate(port: u16, seconds: u64) -> Result<Outcome> {
    load(port, seconds, None)
}

/// Like [`saturate`], with what a script of wrk says, if one is given.
pub(super) fn load(port: u16, seconds: u64, script: Option<&Path>) -> Result<Outcome> {
    go_on()?;
    let mut wrk = command()?;
    // The emulated machine has one CPU, and no taskset.
    if thread::available_parallelism()?.get() > 1 {
        let mut pinned = Command::new("taskset");
        pinned.args(["--cpu-list", "1"]).arg(wrk.get_program());
        wrk = pinned;
    }
    if let Some(script) = script {
        wrk.arg("-s").arg(script);
    }
    wrk.arg("-t1").arg(format!("-c{CONNECTIONS}")).arg(format!("-d{seconds}s")).arg(nginx::url(port));
    let text = process::output(&mut wrk)?;
    go_on()?;
    parse(&text)
}

/// A command that runs wrk.
pub(super) fn command() -> Result<Command> {
    Ok(Command::new(process::find("wrk").context("no wrk: `cargo xtask setup bench`")?))
}

/// Parses wrk's report.
///
/// # Errors
/// The report contains errors or non-2xx responses, so that its numbers mean nothing.
pub(super) fn parse(text: &str) -> Result<Outcome> {
    if let Some(line) = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        bail!("wrk reported errors: {}", line.trim());
    }
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    requests
        .zip(rate)
        .map(|(requests, rate)| Outcome { requests, rate })
        .with_context(|| format!("unexpected output of wrk: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_errors_are_refused() {
        let text = "Running 1s test\n  123 requests in 1.00s, 3MB read\nRequests/sec:    123.50\nTransfer/sec: 3MB\n";
        assert_eq!(parse(text).unwrap(), Outcome { requests: 123, rate: 123.5 });
        assert!(parse(&format!("{text}  Socket errors: connect 0, read 1, write 0, timeout 0\n")).is_err());
        assert!(parse("no").is_err());
    }
}
