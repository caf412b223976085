//! `cargo xtask bench machine`: what all families together leave of nginx's throughput, with fentry and with raw_tp, in one
//! machine where both can be had. The machine is emulated and its clock counts instructions, so what it gives are ratios.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::agent::Agent;
use super::nginx::Nginx;
use super::stats::Spread;
use super::{MODEL_PORT, Stage, document, report, wrk};
use crate::kernels::saturate;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench machine`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds: nothing, fentry and raw_tp in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each load, of which each of the three has two.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// What of the throughput fentry must leave.
const TARGET: f64 = 0.85;

/// Begins the line of a round on the console: for each of [`PARTS`] the numbers of each of [`POLICIES`], separated by tabs.
const ROUND: &str = "GUEST ROUND\t";
/// Begins the line with the kernel's release.
const RELEASE: &str = "GUEST RELEASE\t";

/// What is attached: the agent with all families, and with system calls in this form, as configured and as its status has it.
#[derive(Clone, Copy)]
struct Form {
    configured: &'static str,
    name: &'static str,
}

/// The parts of a round.
const PARTS: [Option<Form>; 3] =
    [None, Some(Form { configured: "auto", name: "fentry" }), Some(Form { configured: "raw_tp", name: "raw_tp" })];

/// How nginx and wrk share the one CPU, see `sched(7)`. By `SCHED_BATCH` who is woken does not take the CPU from who has it:
/// wrk sends on all connections, then nginx answers them all, so that it always has something to do, as it would on a CPU of its
/// own that is saturated. By `SCHED_OTHER` they take turns every few requests.
const POLICIES: [i32; 2] = [libc::SCHED_BATCH, libc::SCHED_OTHER];

/// What a load has shown.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Load {
    /// Requests a second.
    rate: f64,
    /// How often nginx lost the CPU, a request.
    switches: f64,
}

/// The loads of a round: of each of [`PARTS`], by each of [`POLICIES`].
type Round = [[Load; POLICIES.len()]; PARTS.len()];

/// Runs `cargo xtask bench machine`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let console = saturate::boot(workspace, &stage.agent, args.rounds, args.seconds)?;
    let (release, rounds) = parse(&console).context("the machine has told of no round")?;
    ensure!(rounds.len() == args.rounds as usize, "the machine has told of {} rounds", rounds.len());
    let section = section(&report::environment()?, &release, &rounds, args.seconds);
    println!("{section}");
    document::write_section(workspace, &section)
}

/// Inside the machine: measures, and prints each round.
///
/// # Errors
/// A server cannot be started, or the agent measures in another form or nothing.
pub(crate) fn measure(agent: &Path, rounds: u32, seconds: u64) -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    println!("{RELEASE}{}", release.trim());
    let stage = Stage { agent: agent.to_owned(), folder: "/tmp".into() };
    let nginx = Nginx::start(&stage, MODEL_PORT)?;
    // What is in memory after it is so in all rounds.
    wrk::saturate(MODEL_PORT, seconds)?;
    for round in 0..rounds as usize {
        let mut loads = Round::default();
        for place in 0..PARTS.len() {
            // Each is first, second and last as often as the others, so that what drifts slowly favours none.
            let part = (round + place) % PARTS.len();
            loads[part] = with(&stage, &nginx, PARTS[part], seconds)?;
        }
        let numbers = loads.as_flattened().iter().map(|load| format!("{}\t{}", load.rate, load.switches));
        println!("{ROUND}{}", numbers.collect::<Vec<_>>().join("\t"));
    }
    Ok(format!("{rounds} rounds"))
}

/// The loads with this attached.
fn with(stage: &Stage, nginx: &Nginx, form: Option<Form>, seconds: u64) -> Result<[Load; POLICIES.len()]> {
    let Some(Form { configured, name }) = form else { return loads(nginx, seconds) };
    let mut agent = Agent::start_with(stage, "none", &format!("ebpf: {{ syscall_form: {configured} }}\n"))?;
    let page = agent.page()?;
    let all = page.sum("citadel_probe_status", &[]);
    ensure!(all > Some(0.0) && all == page.sum("citadel_probe_status", &[("status", "ok")]), "not all programs run");
    let form = agent.form()?;
    ensure!(form == name, "system calls are seen by {form}, not by {name}");
    agent.wait_until_known(nginx.pid())?;
    let loads = loads(nginx, seconds)?;
    let page = agent.page()?;
    for count in [
        "citadel_model_requests_total",
        "citadel_model_syscall_duration_seconds_count",
        "citadel_model_receive_queue_seconds_count",
        "citadel_model_runqueue_latency_seconds_count",
    ] {
        let counted = page.sum(count, &[("port", &MODEL_PORT.to_string())]).unwrap_or(0.0);
        ensure!(counted > 0.0, "{count} is {counted} after the load");
    }
    Ok(loads)
}

/// A load by each policy.
fn loads(nginx: &Nginx, seconds: u64) -> Result<[Load; POLICIES.len()]> {
    let mut loads = [Load::default(); POLICIES.len()];
    for (load, policy) in loads.iter_mut().zip(POLICIES) {
        let workers = nginx.workers()?;
        for &process in &workers {
            schedule(process, policy)?;
        }
        // wrk takes over its parent's.
        schedule(0, policy)?;
        let before = switches(&workers)?;
        let outcome = wrk::saturate(MODEL_PORT, seconds);
        schedule(0, libc::SCHED_OTHER)?;
        let (outcome, after) = (outcome?, switches(&workers)?);
        *load = Load { rate: outcome.rate, switches: (after - before) as f64 / outcome.requests as f64 };
    }
    Ok(loads)
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

/// The kernel's release and the rounds.
fn parse(console: &str) -> Option<(String, Vec<Round>)> {
    let lines = |begin: &'static str| console.lines().filter_map(move |line| line.trim_end().strip_prefix(begin));
    let rounds: Option<Vec<Round>> = lines(ROUND)
        .map(|row| {
            let numbers: Vec<f64> = row.split('\t').map(str::parse).collect::<Result<_, _>>().ok()?;
            let mut round = Round::default();
            let loads = round.as_flattened_mut();
            if numbers.len() != 2 * loads.len() {
                return None;
            }
            for (load, pair) in loads.iter_mut().zip(numbers.chunks(2)) {
                *load = Load { rate: pair[0], switches: pair[1] };
            }
            Some(round)
        })
        .collect();
    Some((lines(RELEASE).next()?.to_owned(), rounds.filter(|rounds| !rounds.is_empty())?))
}

fn section(environment: &str, release: &str, rounds: &[Round], seconds: u64) -> String {
    let mut text = format!("## Both forms of system calls at saturation\n\n{environment}.\n\n");
    text += &format!(
        "Written by `cargo xtask bench machine`: nginx and wrk as above, in a machine with Linux {release} and one CPU, with \
         nothing and with the agent, all families on, system calls by fentry or by raw_tp, in turn, {seconds} s each, {} \
         rounds, each of the three first as often as last. Client, server, agent and all packets share the one CPU.\n\n\
         nginx and wrk are `SCHED_BATCH`: who is woken does not take the CPU from who has it. So wrk sends on all of its \
         connections and nginx answers them all before either sleeps, and nginx always has requests waiting, as when it \
         saturates a CPU of its own. By the default, `SCHED_OTHER`, they take turns every few requests, more often the \
         longer a request takes, and each turn costs some 3,000 instructions: the ratio is then that of their switches as \
         well, and moves with any change of either. It is told below, and nobody's target.\n\n\
         The machine is emulated (QEMU's TCG), and its clock counts instructions, each as one nanosecond: so what else this \
         host does changes nothing, and the ratios are those of the instructions that a request takes, all of the kernel's, \
         the server's and the client's included. A processor takes longer for some instructions than for others, so its \
         ratios are others.\n\n\
         | what | median | spread | target | |\n| --- | ---: | ---: | ---: | --- |\n",
        rounds.len()
    );
    let ratio = |policy: usize, part: usize, of: usize| {
        Spread::of(rounds.iter().map(|round| round[part][policy].rate / round[of][policy].rate))
    };
    let switches = |policy: usize, part: usize| Spread::of(rounds.iter().map(|round| round[part][policy].switches));
    let verdict = if ratio(0, 1, 0).median() >= TARGET { "met" } else { "**not met**" };
    for (what, spread, target, verdict) in [
        ("all families, fentry / nothing", ratio(0, 1, 0), format!("{TARGET} or more"), verdict),
        ("all families, raw_tp / nothing", ratio(0, 2, 0), String::new(), ""),
        ("raw_tp / fentry", ratio(0, 2, 1), String::new(), ""),
        ("by `SCHED_OTHER`: fentry / nothing", ratio(1, 1, 0), String::new(), ""),
        ("by `SCHED_OTHER`: raw_tp / nothing", ratio(1, 2, 0), String::new(), ""),
        ("nginx loses the CPU, times a request: nothing", switches(0, 0), String::new(), ""),
        ("fentry", switches(0, 1), String::new(), ""),
        ("raw_tp", switches(0, 2), String::new(), ""),
        ("likewise by `SCHED_OTHER`: nothing", switches(1, 0), String::new(), ""),
        ("fentry", switches(1, 1), String::new(), ""),
        ("raw_tp", switches(1, 2), String::new(), ""),
    ] {
        let (median, min, max) = (spread.median(), spread.min(), spread.max());
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {what} | {median:.3} | {min:.3} - {max:.3} | {target} | {verdict} |");
    }
    text += "\nWhat either form costs a single call, of a model and of another process: [kernel-support.md](kernel-support.md).\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_has_the_ratios_of_the_rounds_on_the_console() {
        let round = |rates: [u32; 3]| {
            let numbers = rates.map(|rate| format!("{rate}\t0.1\t{}\t0.5", rate / 2));
            format!("{ROUND}{}\r\n", numbers.join("\t"))
        };
        let console = format!(
            "noise\n{RELEASE}6.12\r\n{}{}{}",
            round([100, 90, 50]),
            round([200, 160, 120]),
            round([100, 88, 60])
        );
        let (release, rounds) = parse(&console).unwrap();
        let load = |rate| [Load { rate, switches: 0.1 }, Load { rate: rate / 2.0, switches: 0.5 }];
        assert_eq!(
            rounds,
            [[100.0, 90.0, 50.0], [200.0, 160.0, 120.0], [100.0, 88.0, 60.0]].map(|round| round.map(load))
        );
        let text = section("here", &release, &rounds, 3);
        for line in [
            "| all families, fentry / nothing | 0.880 | 0.800 - 0.900 | 0.85 or more | met |",
            "| all families, raw_tp / nothing | 0.600 | 0.500 - 0.600 |  |  |",
            "| raw_tp / fentry | 0.682 | 0.556 - 0.750 |  |  |",
            "| by `SCHED_OTHER`: raw_tp / nothing | 0.600 | 0.500 - 0.600 |  |  |",
            "| likewise by `SCHED_OTHER`: nothing | 0.500 | 0.500 - 0.500 |  |  |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert_eq!(parse("noise"), None);
        assert_eq!(parse(&format!("{RELEASE}6.12\n{ROUND}1\t2\n")), None);
    }
}
