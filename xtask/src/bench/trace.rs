//! What `citadel-agent trace` costs: nginx under load with and without a reader, and whether every request is shown or counted as missed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::agent::Agent;
use super::nginx::{self, Nginx};
use super::stats::Spread;
use super::{MODEL_PORT, Stage, document, go_on, report, wrk};
use crate::group::{self, Group};
use crate::process;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench trace`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Pairs of runs with each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Seconds of a run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Print the figures only; docs/overhead.md stays as it is.
    #[arg(long)]
    quick: bool,
}

/// The section of docs/overhead.md that this benchmark writes.
const HEADING: &str = "## Tracing requests";

/// For so long the agent records all requests after the last reader has left.
const RECORDS_FOR: Duration = Duration::from_secs(11);

/// How long the reader may take for what is left. The last requests, which wrk cuts off, may be missing.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(5);

/// Pauses of 3 ms on each of 32 connections: some 10,000 requests a second at most.
const PACED: &str = "function delay() return 3 end\n";

/// Runs with one load.
struct Runs {
    rate: Spread,
    /// CPUs that the agent uses.
    agent: Spread,
    /// Requests, as nginx counts them; those that the reader showed, and those that it reported as not shown.
    handled: u64,
    shown: u64,
    missed: u64,
}

/// Runs `cargo xtask bench trace`.
///
/// # Errors
/// A request was neither shown nor counted as missed.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let script = stage.folder.join("paced.lua");
    fs::write(&script, PACED).with_context(|| format!("cannot write {}", script.display()))?;
    let nginx = Nginx::start(stage, [MODEL_PORT])?;
    let mut agent = Agent::start(stage, "none")?;
    agent.wait_until_known(nginx.pid())?;
    let mut rows = String::new();
    for (load, script) in [("saturated", None), ("paced", Some(script.as_path()))] {
        let mut all: [Vec<One>; 2] = Default::default();
        for _ in 0..args.rounds {
            for traced in [false, true] {
                all[usize::from(traced)].push(one(stage, &nginx, &agent, args.seconds, script, traced)?);
            }
            thread::sleep(RECORDS_FOR);
        }
        for (who, runs) in ["nobody", "`citadel-agent trace`"].into_iter().zip(all) {
            let runs = Runs::of(&runs);
            let count = |count: u64| if who == "nobody" { "-".to_owned() } else { count.to_string() };
            rows += &format!(
                "| {load} | {who} | {:.0} | {:.0} % | {} | {} | {} |\n",
                runs.rate.median(),
                runs.agent.median() * 100.0,
                count(runs.handled),
                count(runs.shown),
                count(runs.missed),
            );
        }
    }
    let section = format!(
        "{HEADING}\n\n`cargo xtask bench trace`, {}. nginx answers wrk with 600 bytes ({}), all probes run, seven models; medians of {} runs \
         of {} s each. Of each request, the reader shows a line or reports that it does not; the benchmark fails otherwise. wrk's last {} \
         requests may be cut off as it ends. The reader takes at most 2,000 requests five times a second. *Paced*: each of wrk's {} connections \
         pauses for 3 ms before a request.\n\n\
         | load | reader | requests/s | agent, of a CPU | requests | shown | reported as not shown |\n|---|---|---|---|---|---|---|\n{rows}",
        report::environment()?,
        nginx::PLACES,
        args.rounds,
        args.seconds,
        wrk::CONNECTIONS,
        wrk::CONNECTIONS,
    );
    println!("{section}");
    if !args.quick {
        document::write_section(workspace, &section)?;
    }
    Ok(())
}

/// A single run.
struct One {
    rate: f64,
    agent: f64,
    handled: u64,
    shown: u64,
    missed: u64,
}

impl Runs {
    fn of(runs: &[One]) -> Self {
        let sum = |of: fn(&One) -> u64| runs.iter().map(of).sum();
        Self {
            rate: Spread::of(runs.iter().map(|run| run.rate)),
            agent: Spread::of(runs.iter().map(|run| run.agent)),
            handled: sum(|run| run.handled),
            shown: sum(|run| run.shown),
            missed: sum(|run| run.missed),
        }
    }
}

fn one(stage: &Stage, nginx: &Nginx, agent: &Agent, seconds: u64, script: Option<&Path>, traced: bool) -> Result<One> {
    go_on()?;
    let reader = traced.then(|| Reader::start(stage)).transpose()?;
    let (before, cpu) = (nginx.requests()?, agent.cpu()?);
    let outcome = wrk::load(MODEL_PORT, seconds, script)?;
    let agent = (agent.cpu()? - cpu).as_secs_f64() / seconds as f64;
    // Less the query itself.
    let handled = nginx.requests()? - before - 1;
    let (shown, missed) = reader.map_or(Ok((0, 0)), |reader| reader.end(handled))?;
    ensure!(
        !traced || (shown + missed).abs_diff(handled) <= wrk::CONNECTIONS as u64,
        "{shown} requests shown and {missed} reported as not shown, of {handled}"
    );
    Ok(One { rate: outcome.rate, agent, handled, shown, missed })
}

/// A running `citadel-agent trace`.
struct Reader {
    group: Group,
    shown: Arc<AtomicU64>,
    log: PathBuf,
}

impl Reader {
    fn start(stage: &Stage) -> Result<Self> {
        let mut command: Command = process::as_root(&stage.agent, &[])?;
        command.args(["trace", "--format", "json", "--config"]).arg(stage.folder.join("agent.yaml"));
        let log = group::log(&stage.folder, "trace");
        let mut group = Group::spawn("citadel-agent trace", &mut command, log.clone(), true)?;
        let output = group.child.stdout.take().context("its output is not piped")?;
        let (shown, lines) = (Arc::<AtomicU64>::default(), BufReader::new(output).lines());
        let count = Arc::clone(&shown);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|_| _ = count.fetch_add(1, Ordering::Relaxed)));
        let recording = || fs::read_to_string(&log).is_ok_and(|text| text.contains("recording all requests"));
        group.wait_until(Duration::from_secs(10), recording)?;
        Ok(Self { group, shown, log })
    }

    /// Waits until it has caught up with so many requests, and stops it: lines shown, and requests that it reported as not shown.
    fn end(mut self, handled: u64) -> Result<(u64, u64)> {
        let read =
            || (self.shown.load(Ordering::Relaxed), fs::read_to_string(&self.log).map_or(0, |log| not_shown(&log)));
        let caught_up = || {
            let (shown, missed) = read();
            shown + missed >= handled
        };
        let begin = Instant::now();
        while !caught_up() && begin.elapsed() < CATCHES_UP_WITHIN {
            self.group.check()?;
            thread::sleep(Duration::from_millis(200));
        }
        Ok(read())
    }
}

/// Requests that are not shown, by the reader's messages.
fn not_shown(log: &str) -> u64 {
    let count = |line: &str| line.split_once(" requests are not shown")?.0.trim().parse::<u64>().ok();
    log.lines().filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reader_misses_is_added_up() {
        let log = "recording all requests; press Ctrl-C to stop\n12 requests are not shown: they ended faster\n3 requests are not shown: x\n";
        assert_eq!(not_shown(log), 15);
    }
}
