//! `cargo xtask bench machine`: what the agent leaves of nginx's throughput, and what its programs take for a request, in a
//! machine whose clock counts instructions: the same each time, whatever else the host does. And with all families, in either
//! form of system calls.

mod section;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::agent::Agent;
use super::empty::EmptyPair;
use super::families::NET_ALONE;
use super::nginx::Nginx;
use super::{MODEL_PORT, OTHER_PORT, Stage, document, overhead, report, wrk};
use crate::kernels::saturate;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench machine`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds, in each of which everything is attached in turn.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Begins the line of a round on the console: for each of [`PARTS`] the numbers of each of [`LOADS`], separated by tabs.
const ROUND: &str = "GUEST ROUND\t";
/// Begins the line with the kernel's release.
const RELEASE: &str = "GUEST RELEASE\t";
/// Begins the line with the [`Instructions`].
const INSTRUCTIONS: &str = "GUEST INSTRUCTIONS\t";

/// What is attached while nginx is under load.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    EmptyPair,
    /// The agent, with the `net` family alone.
    Net,
    /// The agent with all families and with system calls in this form: as configured, and as its status has it.
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

/// The loads of a part: on which port, and how nginx and wrk share the one CPU, see `sched(7)`. By `SCHED_BATCH` who is woken
/// does not take the CPU from who has it: wrk sends on all connections, then nginx answers them all, so that it always has
/// something to do, as it would on a CPU of its own that is saturated. By `SCHED_OTHER` they take turns every few requests.
const LOADS: [(u16, i32); 3] =
    [(MODEL_PORT, libc::SCHED_BATCH), (OTHER_PORT, libc::SCHED_BATCH), (MODEL_PORT, libc::SCHED_OTHER)];

/// What a load has shown.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Load {
    /// Requests a second.
    rate: f64,
    /// How often nginx lost the CPU, a request.
    switches: f64,
}

/// The loads of a round: of each of [`PARTS`], each of [`LOADS`].
type Round = [[Load; LOADS.len()]; PARTS.len()];

/// Instructions in the programs of the `net` family, those between the kernel's two looks at the clock around each run included.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Instructions {
    /// For a whole small request.
    request: f64,
    /// For a streamed chunk.
    chunk: f64,
    /// For a packet of another port.
    other: f64,
    /// In a run of a program that only returns.
    empty: f64,
}

/// Chunks of the stream whose instructions are counted.
const CHUNKS: u64 = 2000;

/// Runs `cargo xtask bench machine`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let loads = (PARTS.len() * LOADS.len()) as u32;
    let console = saturate::boot(workspace, &stage.agent, args.rounds, args.seconds, loads)?;
    let found = section::parse(&console).context("the machine has not told of all that it measured")?;
    ensure!(found.rounds.len() == args.rounds as usize, "the machine has told of {} rounds", found.rounds.len());
    let section = section::markdown(&report::environment()?, &found, args.seconds);
    println!("{section}");
    document::write_section(workspace, &section)
}

/// Inside the machine: measures, and prints what it finds.
///
/// # Errors
/// A server cannot be started, or the agent measures in another form or nothing.
pub(crate) fn measure(agent: &Path, rounds: u32, seconds: u64) -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    println!("{RELEASE}{}", release.trim());
    let stage = Stage { agent: agent.to_owned(), folder: "/tmp".into() };
    let nginx = Nginx::start(&stage, [MODEL_PORT])?;
    // What is in memory after it is so in all rounds.
    wrk::saturate(MODEL_PORT, seconds)?;
    for round in 0..rounds as usize {
        let mut loads = Round::default();
        for place in 0..PARTS.len() {
            // Each round begins with another part, so that what drifts slowly favours none.
            let part = (round + place) % PARTS.len();
            loads[part] = with(&stage, &nginx, PARTS[part], seconds)?;
        }
        let numbers = loads.as_flattened().iter().map(|load| format!("{}\t{}", load.rate, load.switches));
        println!("{ROUND}{}", numbers.collect::<Vec<_>>().join("\t"));
    }
    let Instructions { request, chunk, other, empty } = instructions(&stage, seconds)?;
    println!("{INSTRUCTIONS}{request}\t{chunk}\t{other}\t{empty}");
    Ok(format!("{rounds} rounds"))
}

/// The loads with this attached.
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
        ensure!(form == wanted, "system calls are seen by {form}, not by {wanted}");
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

/// All of [`LOADS`].
fn loads(nginx: &Nginx, seconds: u64) -> Result<[Load; LOADS.len()]> {
    let mut loads = [Load::default(); LOADS.len()];
    for (load, (port, policy)) in loads.iter_mut().zip(LOADS) {
        let workers = nginx.workers()?;
        for &process in &workers {
            schedule(process, policy)?;
        }
        // wrk takes over its parent's.
        schedule(0, policy)?;
        let before = switches(&workers)?;
        let outcome = wrk::saturate(port, seconds);
        schedule(0, libc::SCHED_OTHER)?;
        let (outcome, after) = (outcome?, switches(&workers)?);
        *load = Load { rate: outcome.rate, switches: (after - before) as f64 / outcome.requests as f64 };
    }
    Ok(loads)
}

/// What the kernel's statistics say of the programs: they are in nanoseconds, of which each is an instruction.
fn instructions(stage: &Stage, seconds: u64) -> Result<Instructions> {
    let agent = Agent::start_with(stage, "none", NET_ALONE)?;
    let [request, other] = [MODEL_PORT, OTHER_PORT]
        .map(|port| overhead::costs(&agent, 1, || Ok(wrk::saturate(port, seconds)?.requests as f64)));
    let (request, other) = (request?, other?);
    // nginx has the first port.
    let chunk = overhead::chunk_costs(&agent, MODEL_PORT + 1, 1, CHUNKS)?;
    Ok(Instructions {
        request: request.each.median(),
        chunk: chunk.each.median(),
        other: other.run.median(),
        empty: other.empty_run.median(),
    })
}

/// Gives a process a scheduling policy; 0 is the caller.
fn schedule(process: u32, policy: i32) -> Result<()> {
    // SAFETY: a valid pointer; the kernel says what is wrong with the rest.
    let set =
        unsafe { libc::sched_setscheduler(process.cast_signed(), policy, &libc::sched_param { sched_priority: 0 }) };
    ensure!(set == 0, "sched_setscheduler of process {process}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// How often these processes, of one thread each, have lost the CPU.
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
