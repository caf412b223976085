//! `cargo xtask bench requests`: wrk, nginx and the agent must count the same number of requests.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::agent::Agent;
use super::nginx::{self, Nginx};
use super::{MODEL_PORT, Stage, go_on, wrk};
use crate::group::{self, Group};

/// Arguments of `cargo xtask bench requests`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Number of requests; a multiple of 16, the number of connections.
    #[arg(long, default_value_t = 200_000)]
    count: u64,
}

/// Connections, one per thread: a wrk thread that stops forgets the requests in flight on its other connections.
const CONNECTIONS: u64 = 16;

/// Time limit for all requests.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs `cargo xtask bench requests`.
///
/// # Errors
/// The three counts differ; the message contains all of them.
pub(super) fn main(stage: &Stage, args: &Args) -> Result<()> {
    if args.count == 0 || !args.count.is_multiple_of(CONNECTIONS) {
        bail!("--count must be a multiple of {CONNECTIONS}");
    }
    let nginx = Nginx::start(stage, [MODEL_PORT])?;
    let agent = Agent::start(stage, "none")?;
    let mut asked = 0;
    let mut handled = || -> Result<u64> {
        asked += 1;
        Ok(nginx.requests()? - asked)
    };
    handled()?;

    // Each connection stops by itself after its last response, so that no request is in flight that wrk would not
    // count.
    let script = stage.folder.join("exactly.lua");
    let each = args.count / CONNECTIONS;
    let text = format!(
        "local left = {each}\nfunction response()\n  left = left - 1\n  if left == 0 then wrk.thread:stop() end\nend\n"
    );
    fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    let mut command = wrk::command()?;
    command.arg(format!("-t{CONNECTIONS}")).arg(format!("-c{CONNECTIONS}")).arg(format!("-d{}s", LIMIT.as_secs() * 2));
    command.arg("-s").arg(&script).arg(nginx::url(MODEL_PORT));
    let mut load = Group::spawn("wrk", &mut command, group::log(&stage.folder, "wrk"), true)?;
    let begin = Instant::now();
    while handled()? < args.count {
        go_on()?;
        load.check()?;
        if begin.elapsed() > LIMIT {
            bail!("nginx has handled {} of {} requests after {} s", handled()?, args.count, LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
    // Responses may still be on their way; after that wrk only sleeps out its duration, and SIGINT makes it report.
    thread::sleep(Duration::from_millis(500));
    let report = load.interrupt_for_output()?;
    let by_wrk = wrk::parse(&report)?.requests;
    let by_nginx = handled()?;
    let page = agent.page()?;
    let port = MODEL_PORT.to_string();
    let of_port = [("port", port.as_str())];
    let sum = |name: &str| page.sum(name, &of_port).unwrap_or(0.0);
    let by_agent = sum("citadel_model_requests_total");
    let (aborted, in_flight) = (sum("citadel_model_requests_aborted_total"), sum("citadel_model_requests_in_flight"));

    println!("wrk: {by_wrk} requests answered");
    println!("nginx: {by_nginx} requests handled");
    println!("the agent: {by_agent} requests completed, {aborted} aborted, {in_flight} in flight");
    let exact = by_wrk == args.count
        && by_nginx == args.count
        && by_agent == args.count as f64
        && aborted == 0.0
        && in_flight == 0.0;
    if !exact {
        bail!("the counts differ: {} requests were sent", args.count);
    }
    println!("exact");
    Ok(())
}
