//! `cargo xtask bench machine`: nginx's throughput with and without the agent, and the instructions that its programs
//! take per request, in an emulated machine whose clock counts instructions, so that the result is the same each time
//! whatever else the host does. Also with all families and either form of `syscalls`.

mod section;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::agent::{Agent, NET_ALONE};
use super::empty::EmptyPair;
use super::load::Stream;
use super::nginx::Nginx;
use super::{MODEL_PORT, OTHER_PORT, Stage, document, overhead, report, wrk};
use crate::kernels::saturate;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench machine`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds; each attaches everything in turn. 0: only count the instructions, and print them.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Prefix of a round's line on the console: for each of [`PARTS`] the numbers of each of [`LOADS`], separated by tabs.
const ROUND: &str = "GUEST ROUND\t";
/// Prefix of the line with the kernel release.
const RELEASE: &str = "GUEST RELEASE\t";
/// Prefix of the line with the [`Instructions`].
const INSTRUCTIONS: &str = "GUEST INSTRUCTIONS\t";

/// What is attached while nginx is under load.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    EmptyPair,
    /// The agent with the `net` family only.
    Net,
    /// The agent with all families and this form of `syscalls`: as configured, and as its status names it.
    All {
        configured: &'static str,
        form: &'static str,
    },
}

/// The parts of a round.
const PARTS: [Part; 5] = [
    Part::Nothing,
    Part::EmptyPair,
    Part::Net,
    Part::All { configured: "auto", form: "fentry" },
    Part::All { configured: "raw_tp", form: "raw_tp" },
];

/// The loads of a part: the port, and the scheduling policy by which nginx and wrk share the one CPU, see `sched(7)`.
/// With `SCHED_BATCH`, a woken task does not preempt the running one: wrk sends on all connections, then nginx answers
/// them all, so that it always has work, as on a saturated CPU of its own. With `SCHED_OTHER` they alternate every few
/// requests.
const LOADS: [(u16, i32); 3] =
    [(MODEL_PORT, libc::SCHED_BATCH), (OTHER_PORT, libc::SCHED_BATCH), (MODEL_PORT, libc::SCHED_OTHER)];

/// The result of a load.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Load {
    /// Requests per second.
    rate: f64,
    /// Context switches of nginx per request.
    switches: f64,
}

/// The results of a round: for each of [`PARTS`], each of [`LOADS`].
type Round = [[Load; LOADS.len()]; PARTS.len()];

/// Instructions in the programs of the `net` family, including those between the kernel's two clock reads around each
/// run.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Instructions {
    /// Per small request as a whole.
    request: f64,
    /// Per small request and per chunk, beyond the empty pair.
    excess: [f64; 2],
    /// Per streamed chunk, for each of [`Stream::ALL`].
    chunks: [f64; Stream::ALL.len()],
    /// Per packet of another port.
    other: f64,
    /// Per run of a program that only returns.
    empty: f64,
}

/// Chunks of the stream whose instructions are counted.
const CHUNKS: u64 = 2000;

/// Runs `cargo xtask bench machine`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let loads = (PARTS.len() * LOADS.len()) as u32;
    let console = saturate::boot(workspace, &stage.agent, args.rounds, args.seconds, loads)?;
    let found = section::parse(&console).context("the machine did not report all measurements")?;
    ensure!(found.rounds.len() == args.rounds as usize, "the machine reported {} rounds", found.rounds.len());
    if found.rounds.is_empty() {
        println!("{}", found.instructions.markdown());
        return Ok(());
    }
    let section = section::markdown(&report::environment()?, &found, args.seconds);
    println!("{section}");
    document::write_section(workspace, &section)
}

/// Inside the machine: measures and prints the results.
///
/// # Errors
/// A server cannot be started, or the agent runs with another form, or measures nothing.
pub(crate) fn measure(agent: &Path, rounds: u32, seconds: u64) -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    println!("{RELEASE}{}", release.trim());
    let stage = Stage { agent: agent.to_owned(), folder: "/tmp".into() };
    let nginx = Nginx::start(&stage, [MODEL_PORT])?;
    // Warms the caches, so that all rounds start from the same state.
    wrk::saturate(MODEL_PORT, seconds)?;
    for round in 0..rounds as usize {
        let mut loads = Round::default();
        for place in 0..PARTS.len() {
            // Each round starts with another part, so that slow drift favours none.
            let part = (round + place) % PARTS.len();
            loads[part] = with(&stage, &nginx, PARTS[part], seconds)?;
        }
        let numbers = loads.as_flattened().iter().map(|load| format!("{}\t{}", load.rate, load.switches));
        println!("{ROUND}{}", numbers.collect::<Vec<_>>().join("\t"));
    }
    let Instructions { request, excess, chunks, other, empty } = instructions(&stage, seconds)?;
    let chunks = chunks.map(|chunk| chunk.to_string()).join("\t");
    println!("{INSTRUCTIONS}{request}\t{}\t{}\t{other}\t{empty}\t{chunks}", excess[0], excess[1]);
    Ok(format!("{rounds} rounds"))
}

/// Runs the loads with `part` attached.
fn with(stage: &Stage, nginx: &Nginx, part: Part, seconds: u64) -> Result<[Load; LOADS.len()]> {
    let (config, form) = match part {
        Part::Nothing => return loads(nginx, seconds),
        Part::EmptyPair => {
            let _pair = EmptyPair::attach()?;
            return loads(nginx, seconds);
        }
        Part::Net => (NET_ALONE.to_owned(), None),
        Part::All { configured, form } => (format!("ebpf: {{ syscall_form: {configured} }}\n"), Some(form)),
    };
    let mut agent = Agent::start_with(stage, "none", &config)?;
    if let Some(wanted) = form {
        let page = agent.page()?;
        let all = page.sum("citadel_probe_status", &[]);
        ensure!(
            all > Some(0.0) && all == page.sum("citadel_probe_status", &[("status", "ok")]),
            "not all programs run"
        );
        let form = agent.form()?;
        ensure!(form == wanted, "the `syscalls` family uses {form} instead of {wanted}");
    }
    agent.wait_until_known(nginx.pid())?;
    let loads = loads(nginx, seconds)?;
    let page = agent.page()?;
    let counts = [
        "citadel_model_requests_total",
        "citadel_model_syscall_duration_seconds_count",
        "citadel_model_receive_queue_seconds_count",
        "citadel_model_runqueue_latency_seconds_count",
    ];
    for count in &counts[..if form.is_some() { counts.len() } else { 1 }] {
        let counted = page.sum(count, &[("port", &MODEL_PORT.to_string())]).unwrap_or(0.0);
        ensure!(counted > 0.0, "{count} is {counted} after the load");
    }
    Ok(loads)
}

/// Runs all of [`LOADS`].
fn loads(nginx: &Nginx, seconds: u64) -> Result<[Load; LOADS.len()]> {
    let mut loads = [Load::default(); LOADS.len()];
    for (load, (port, policy)) in loads.iter_mut().zip(LOADS) {
        let workers = nginx.workers()?;
        for &process in &workers {
            schedule(process, policy)?;
        }
        // wrk inherits its parent's policy.
        schedule(0, policy)?;
        let before = switches(&workers)?;
        let outcome = wrk::saturate(port, seconds);
        schedule(0, libc::SCHED_OTHER)?;
        let (outcome, after) = (outcome?, switches(&workers)?);
        *load = Load { rate: outcome.rate, switches: (after - before) as f64 / outcome.requests as f64 };
    }
    Ok(loads)
}

/// The kernel's statistics of the programs: in nanoseconds, each of which is one instruction.
fn instructions(stage: &Stage, seconds: u64) -> Result<Instructions> {
    let agent = Agent::start_with(stage, "none", NET_ALONE)?;
    let [request, other] = [MODEL_PORT, OTHER_PORT]
        .map(|port| overhead::costs(&agent, 1, || Ok(wrk::saturate(port, seconds)?.requests as f64)));
    let (request, other) = (request?, other?);
    // nginx listens on the first port.
    let chunks = Stream::ALL.map(|kind| overhead::chunk_costs(&agent, MODEL_PORT + 1, kind, 1, CHUNKS));
    let chunks: Vec<_> = chunks.into_iter().collect::<Result<_>>()?;
    let mut all = [0.0; Stream::ALL.len()];
    all.iter_mut().zip(&chunks).for_each(|(all, costs)| *all = costs.each.median());
    Ok(Instructions {
        request: request.each.median(),
        excess: [request.excess(), chunks[0].excess()],
        chunks: all,
        other: other.run.median(),
        empty: other.empty_run.median(),
    })
}

/// Sets the scheduling policy of a process; 0 is the caller.
fn schedule(process: u32, policy: i32) -> Result<()> {
    // SAFETY: a valid pointer; the kernel checks the other arguments.
    let set =
        unsafe { libc::sched_setscheduler(process.cast_signed(), policy, &libc::sched_param { sched_priority: 0 }) };
    ensure!(set == 0, "sched_setscheduler of process {process}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Involuntary context switches of these single-threaded processes.
fn switches(processes: &[u32]) -> Result<u64> {
    let mut count = 0;
    for process in processes {
        let path = format!("/proc/{process}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        for line in status.lines() {
            if let Some((_, number)) = line.split_once("voluntary_ctxt_switches:") {
                count += number.trim().parse::<u64>().with_context(|| format!("{path}: {line}"))?;
            }
        }
    }
    Ok(count)
}
