//! `cargo xtask bench overhead`: what the agent costs.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::agent::{Agent, MODELS, NET_ALONE};
use super::empty::EmptyPair;
use super::nginx::Nginx;
use super::report::{self, Costs, Rates, Report, Scrape, Steady, Throughput};
use super::stats::{self, Runs, Spread, StatsOn};
use super::{MODEL_PORT, OTHER_PORT, Stage, document, go_on, load, wrk};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench overhead`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Throughput pairs per port.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Seconds of each half of a pair.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Two short pairs of everything, printed but not written: a smoke test of the benchmark.
    #[arg(long)]
    quick: bool,
}

/// The last model port, and the last one of the range with 101 models.
const LAST_PORT: u16 = 11500;
const RANGE: &str = "11400-11500";

/// How long the agent is left alone once ready, so that one-time work is not measured.
const SETTLED: Duration = Duration::from_secs(1);

/// Requests per second of the steady load.
const STEADY_RATE: f64 = 1000.0;

/// Runs `cargo xtask bench overhead`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let (pairs, seconds) = if args.quick { (2, 1) } else { (args.pairs, args.seconds) };
    let (rounds, chunks, steady) = if args.quick { (2, 5_000, 5) } else { (5, 20_000, 30) };
    stats::must_be_off()?;
    let (throughput, requests, others) = {
        let _nginx = Nginx::start(stage, [MODEL_PORT])?;
        let throughput = throughput(stage, pairs, seconds)?;
        let agent = Agent::start_with(stage, RANGE, NET_ALONE)?;
        let saturated = |port| {
            costs(&agent, rounds, || {
                let outcome = wrk::saturate(port, 1.max(seconds / 2))?;
                Ok(outcome.requests as f64)
            })
        };
        (throughput, saturated(MODEL_PORT)?, saturated(OTHER_PORT)?)
    };
    let streams = {
        let agent = Agent::start_with(stage, RANGE, NET_ALONE)?;
        chunk_costs(&agent, MODEL_PORT, load::Stream::Alike, rounds, chunks)?
    };
    let steady = {
        let _nginx = Nginx::start(stage, MODELS.map(|(_, port)| port))?;
        steady_load(stage, Duration::from_secs(steady))?
    };
    let _nginx = Nginx::start(stage, MODEL_PORT..=LAST_PORT)?;
    let report = Report { throughput, requests, chunks: streams, others, steady, scrape: scrape(stage)?, seconds };
    let text = report::markdown(&report)?;
    println!("{text}");
    if !args.quick {
        document::write_anew(workspace, &text)?;
    }
    Ok(())
}

/// What is attached during a part of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    Nothing,
    Empty,
    Agent,
}

/// Saturates both ports with nothing, the empty pair and the agent attached in turn; the order alternates, so that slow
/// drift favours none.
fn throughput(stage: &Stage, pairs: u32, seconds: u64) -> Result<Throughput> {
    let mut all = Throughput { model: Vec::new(), other: Vec::new() };
    for pair in 0..pairs {
        let mut order = [Attached::Nothing, Attached::Empty, Attached::Agent];
        if pair % 2 == 1 {
            order.reverse();
        }
        let (mut model, mut other) = (Rates::default(), Rates::default());
        for attached in order {
            let _agent =
                (attached == Attached::Agent).then(|| Agent::start_with(stage, RANGE, NET_ALONE)).transpose()?;
            if attached == Attached::Agent {
                thread::sleep(SETTLED);
            }
            let _empty = (attached == Attached::Empty).then(EmptyPair::attach).transpose()?;
            for (port, rates) in [(MODEL_PORT, &mut model), (OTHER_PORT, &mut other)] {
                let rate = wrk::saturate(port, seconds)?.rate;
                match attached {
                    Attached::Nothing => rates.nothing = rate,
                    Attached::Empty => rates.empty = rate,
                    Attached::Agent => rates.agent = rate,
                }
            }
        }
        for (name, rates) in [("model", model), ("other", other)] {
            eprintln!(
                "bench: pair {:>2}, {name} port: {:.0} requests/s with nothing, {:.0} with an empty pair, {:.0} with the \
                 agent",
                pair + 1,
                rates.nothing,
                rates.empty,
                rates.agent
            );
        }
        all.model.push(model);
        all.other.push(other);
    }
    Ok(all)
}

/// Measures the agent's programs and an empty pair next to them while `work` runs, `rounds` times; `work` returns how
/// often the measured event happened.
pub(super) fn costs(agent: &Agent, rounds: u32, mut work: impl FnMut() -> Result<f64>) -> Result<Costs> {
    let empty = EmptyPair::attach()?;
    let _on = StatsOn::new()?;
    let (mut units, mut programs, mut pair) = (0.0, [Runs::default(); 3], [Runs::default(); 2]);
    let (mut each, mut run, mut empty_run) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        go_on()?;
        let before = (agent.runs()?, empty.runs()?);
        let count = work()?;
        let after = (agent.runs()?, empty.runs()?);
        let (mut own, mut least) = (Runs::default(), Runs::default());
        for (program, (after, before)) in programs.iter_mut().zip(after.0.into_iter().zip(before.0)) {
            *program += after - before;
            own += after - before;
        }
        for (program, (after, before)) in pair.iter_mut().zip(after.1.into_iter().zip(before.1)) {
            *program += after - before;
            least += after - before;
        }
        units += count;
        each.push(own.ns / count);
        run.push(own.each());
        empty_run.push(least.each());
    }
    let (each, run, empty_run) = (Spread::of(each), Spread::of(run), Spread::of(empty_run));
    Ok(Costs { units, programs, empty: pair, each, run, empty_run })
}

/// The same while `chunks` chunks are streamed on `port`, which must be free.
pub(super) fn chunk_costs(agent: &Agent, port: u16, kind: load::Stream, rounds: u32, chunks: u64) -> Result<Costs> {
    costs(agent, rounds, || {
        let seen = chunks_seen(agent)?;
        load::stream(port, kind, chunks)?;
        let seen = chunks_seen(agent)? - seen;
        ensure!(seen == chunks as f64, "the agent counted {seen} of {chunks} chunks");
        Ok(seen)
    })
}

fn chunks_seen(agent: &Agent) -> Result<f64> {
    Ok(agent.page()?.sum("citadel_model_stream_chunks_total", &[]).unwrap_or(0.0))
}

/// Seven models, a steady load and one scrape per second.
fn steady_load(stage: &Stage, time: Duration) -> Result<Steady> {
    let agent = Agent::start(stage, RANGE)?;
    let (started, (_, started_peak)) = (agent.cpu()?.as_secs_f64(), agent.memory()?);
    let ports = MODELS.map(|(_, port)| port);
    let scrape_each_second = |count: u64| -> Result<()> {
        let begin = Instant::now();
        for number in 1..=count {
            go_on()?;
            agent.text()?;
            thread::sleep(Duration::from_secs(number).saturating_sub(begin.elapsed()));
        }
        Ok(())
    };
    thread::scope(|scope| {
        // Starts before and ends after the measurement.
        let load = scope.spawn(|| load::steady(&ports, STEADY_RATE, time + Duration::from_secs(2)));
        thread::sleep(Duration::from_secs(1));
        let (begin, before) = (Instant::now(), agent.cpu()?);
        scrape_each_second(time.as_secs())?;
        let (seconds, used) = (begin.elapsed().as_secs_f64(), agent.cpu()? - before);
        let (resident, _) = agent.memory()?;
        let answered = load.join().map_err(|_| anyhow::anyhow!("the steady load panicked"))??;
        let rate = answered as f64 / (time.as_secs_f64() + 2.0);
        Ok(Steady { seconds, rate, started, started_peak, cpu: used.as_secs_f64() / seconds, resident })
    })
}

/// Number of scrapes.
const SCRAPES: u32 = 50;

fn scrape(stage: &Stage) -> Result<Scrape> {
    let agent = Agent::start(stage, RANGE)?;
    for port in MODEL_PORT..=LAST_PORT {
        load::ask_once(port)?;
    }
    let mut seconds = Vec::new();
    let mut text = String::new();
    for _ in 0..SCRAPES {
        go_on()?;
        let begin = Instant::now();
        text = agent.text()?;
        seconds.push(begin.elapsed().as_secs_f64());
        thread::sleep(Duration::from_millis(20));
    }
    let models = text.lines().filter(|line| line.starts_with("citadel_model_requests_in_flight{")).count();
    let expected = usize::from(LAST_PORT - MODEL_PORT) + 1;
    ensure!(models == expected, "the page has {models} models, not {expected}");
    Ok(Scrape { models, bytes: text.len(), seconds: Spread::of(seconds), resident: agent.memory()?.0 })
}
