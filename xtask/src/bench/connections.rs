//! `cargo xtask bench connections`: the kernel memory of very many connections, idle and streaming, and whether everything on them
//! is counted.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::agent::Agent;
use super::cgroup::{Limited, MEMORY_MAX};
use super::pairs::{self, Pairs, Step};
use super::{MODEL_PORT, Stage, document, go_on, report};
use crate::scrape::Page;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench connections`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Connections on which nothing is sent.
    #[arg(long, default_value_t = 100_000)]
    idle: usize,
    /// Connections with a streamed response.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    streaming: u32,
    /// Events of each response.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    events: u32,
    /// Print the figures only; docs/overhead.md stays as it is.
    #[arg(long)]
    quick: bool,
    /// Only hold this many connections, for the benchmark.
    #[arg(long, hide = true, requires = "address")]
    hold: Option<usize>,
    /// To this address.
    #[arg(long, hide = true)]
    address: Option<SocketAddr>,
}

impl Args {
    /// Runs one of the processes with connections, if that is what is asked for.
    pub(super) fn hold(&self) -> Option<Result<()>> {
        Some(pairs::hold(self.hold?, self.address?))
    }
}

/// How long the agent is left alone before its memory is read.
const SETTLED: Duration = Duration::from_millis(1500);

/// How long the agent may take to count what has happened.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);

/// Runs `cargo xtask bench connections`.
///
/// # Errors
/// Something was not counted, was counted as lost, or the kernel killed the agent.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let cgroup = Limited::new()?;
    let agent = Agent::start_in(stage, &cgroup)?;
    let figures = measure(stage, &agent, &cgroup, args)?;
    let section = section(&figures, args)?;
    println!("{section}");
    if args.quick {
        return Ok(());
    }
    document::write_section(workspace, &section)
}

/// What was measured.
struct Figures {
    /// Without connections.
    none: Memory,
    /// With the idle ones.
    idle: Memory,
    /// With those that stream too.
    all: Memory,
    /// After all have closed.
    closed: Memory,
    /// A scrape of all metrics with all connections.
    scrape: Duration,
}

fn measure(stage: &Stage, agent: &Agent, cgroup: &Limited, args: &Args) -> Result<Figures> {
    let (idle, streaming) = (args.idle as f64, f64::from(args.streaming));
    let none = Memory::settled(agent, cgroup)?;
    let silent = Pairs::open(stage, args.idle, 0)?;
    counted(agent, "idle connections", |counts| (counts.open, counts.noted) == (idle, idle))?;
    let with_idle = Memory::settled(agent, cgroup)?;

    let mut streams = Pairs::open(stage, args.streaming as usize, silent.processes())?;
    streams.take(Step::Ask)?;
    for _ in 0..args.events {
        streams.take(Step::Event)?;
    }
    counted(agent, "streams", |counts| (counts.in_flight, counts.followed) == (streaming, streaming))?;
    let all = Memory::settled(agent, cgroup)?;
    let begin = Instant::now();
    agent.everything()?;
    let scrape = begin.elapsed();
    streams.take(Step::End)?;
    let events = streaming * f64::from(args.events);
    counted(agent, "responses", |counts| {
        (counts.requests, counts.in_flight, counts.chunks, counts.events) == (streaming, 0.0, events, events)
    })?;
    drop((silent, streams));
    let counts = counted(agent, "closed connections", |counts| {
        (counts.open, counts.noted, counts.followed) == (0.0, 0.0, 0.0) && counts.connections == idle + streaming
    })?;
    ensure!(counts.lost == 0.0 && counts.aborted == 0.0, "something was lost or aborted: {counts:?}");
    ensure!(cgroup.kills()? == 0, "the kernel has killed the agent, or a child of it, because of its memory");
    Ok(Figures { none, idle: with_idle, all, closed: Memory::settled(agent, cgroup)?, scrape })
}

/// The agent's counts.
#[derive(Debug)]
struct Counts {
    open: f64,
    connections: f64,
    requests: f64,
    in_flight: f64,
    aborted: f64,
    chunks: f64,
    events: f64,
    /// Connections without data that have a note.
    noted: f64,
    /// Connections with state.
    followed: f64,
    lost: f64,
}

impl Counts {
    fn of(page: &Page) -> Self {
        let port = MODEL_PORT.to_string();
        let model = |name: &str| page.sum(name, &[("port", &port)]).unwrap_or(0.0);
        let map = |map: &str| page.sum("citadel_map_entries", &[("map", map)]).unwrap_or(f64::NAN);
        Self {
            open: model("citadel_model_connections_open"),
            connections: model("citadel_model_connections_total"),
            requests: model("citadel_model_requests_total"),
            in_flight: model("citadel_model_requests_in_flight"),
            aborted: model("citadel_model_requests_aborted_total"),
            chunks: model("citadel_model_stream_chunks_total"),
            events: model("citadel_model_stream_events_total"),
            noted: map("idle_connections"),
            followed: map("connections"),
            lost: page.sum("citadel_events_lost_total", &[]).unwrap_or(0.0),
        }
    }
}

/// Waits until the agent's counts are as expected.
fn counted(agent: &Agent, what: &str, expected: impl Fn(&Counts) -> bool) -> Result<Counts> {
    let begin = Instant::now();
    loop {
        go_on()?;
        let counts = Counts::of(&agent.everything()?);
        if expected(&counts) {
            return Ok(counts);
        }
        if begin.elapsed() > COUNTED_WITHIN {
            bail!("the agent does not count the {what}: {counts:?}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Memory in bytes.
#[derive(Clone, Copy)]
struct Memory {
    /// Charged to the cgroup, in the kernel or not.
    cgroup: u64,
    /// Resident memory of the agent's process.
    resident: f64,
}

impl Memory {
    fn settled(agent: &Agent, cgroup: &Limited) -> Result<Self> {
        thread::sleep(SETTLED);
        Ok(Self { cgroup: cgroup.usage()?, resident: agent.memory()?.0 })
    }

    /// A row of the table, compared with `before` and `count` connections less.
    fn row(self, what: &str, compared: Option<(Self, f64)>) -> String {
        let (cgroup, resident) = (self.cgroup as f64 * 1e-6, self.resident * 1e-6);
        let each = compared.map_or(String::new(), |(before, count)| {
            let more = self.cgroup.saturating_sub(before.cgroup) as f64 / count;
            let own = (self.resident - before.resident) / count;
            format!("{more:.0} | {own:.0}")
        });
        let each = if each.is_empty() { " |".to_owned() } else { each };
        format!("| {what} | {cgroup:.1} | {resident:.1} | {each} |\n")
    }
}

fn section(figures: &Figures, args: &Args) -> Result<String> {
    let Figures { none, idle, all, closed, scrape } = *figures;
    let mut text = format!(
        "## Many connections\n\nWritten by `cargo xtask bench connections`. {}.\n\n\
         The agent with its defaults, in a cgroup with the unit's `MemoryMax=` ({:.0} MB), to which the kernel charges the state of \
         connections. {} clients connect to a model and send nothing, then {} more send a request each and get {} events in turn, each in its \
         own packet. All connections, requests, chunks and events are counted exactly, none as lost. Memory is without caches that the \
         kernel frees when it needs room, mostly entries of `/proc/PID/fd`.\n\n\
         | connections | cgroup, MB | process, MB | bytes each | of them the process |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
        report::environment()?,
        MEMORY_MAX as f64 * 1e-6,
        args.idle,
        args.streaming,
        args.events,
    );
    text += &none.row("none", None);
    text += &idle.row(&format!("{} idle", args.idle), Some((none, args.idle as f64)));
    text += &all.row(&format!("and {} that stream", args.streaming), Some((idle, f64::from(args.streaming))));
    text += &closed.row("all closed", None);
    text += &format!(
        "\nA scrape of all metrics with all connections open takes {:.0} ms.\n\n```sh\ncargo xtask bench connections\n```\n",
        scrape.as_secs_f64() * 1e3,
    );
    Ok(text)
}
