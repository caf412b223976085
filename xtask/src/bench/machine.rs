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
    /// Seconds of each of the three.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// What of the throughput fentry must leave.
const TARGET: f64 = 0.85;

/// Begins the line of a round on the console: requests a second with nothing, fentry and raw_tp, separated by tabs.
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

/// Requests a second in each of [`PARTS`].
type Rates = [f64; PARTS.len()];

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
        let mut rates = Rates::default();
        for place in 0..PARTS.len() {
            // Each is first, second and last as often as the others, so that what drifts slowly favours none.
            let part = (round + place) % PARTS.len();
            rates[part] = rate(&stage, &nginx, PARTS[part], seconds)?;
        }
        println!("{ROUND}{}", rates.map(|rate| rate.to_string()).join("\t"));
    }
    Ok(format!("{rounds} rounds"))
}

/// Requests a second with this attached.
fn rate(stage: &Stage, nginx: &Nginx, form: Option<Form>, seconds: u64) -> Result<f64> {
    let Some(Form { configured, name }) = form else { return Ok(wrk::saturate(MODEL_PORT, seconds)?.rate) };
    let mut agent = Agent::start_with(stage, "none", &format!("ebpf: {{ syscall_form: {configured} }}\n"))?;
    let page = agent.page()?;
    let all = page.sum("citadel_probe_status", &[]);
    ensure!(all > Some(0.0) && all == page.sum("citadel_probe_status", &[("status", "ok")]), "not all programs run");
    let form = agent.form()?;
    ensure!(form == name, "system calls are seen by {form}, not by {name}");
    agent.wait_until_known(nginx.pid())?;
    let outcome = wrk::saturate(MODEL_PORT, seconds)?;
    let page = agent.page()?;
    for count in [
        "citadel_model_requests_total",
        "citadel_model_syscall_duration_seconds_count",
        "citadel_model_receive_queue_seconds_count",
        "citadel_model_runqueue_latency_seconds_count",
    ] {
        let counted = page.sum(count, &[("port", &MODEL_PORT.to_string())]).unwrap_or(0.0);
        ensure!(counted > 0.0, "{count} is {counted} after {} requests", outcome.requests);
    }
    Ok(outcome.rate)
}

/// The kernel's release and the rounds.
fn parse(console: &str) -> Option<(String, Vec<Rates>)> {
    let lines = |begin: &'static str| console.lines().filter_map(move |line| line.trim_end().strip_prefix(begin));
    let rounds: Option<Vec<Rates>> = lines(ROUND)
        .map(|row| {
            let rates: Vec<f64> = row.split('\t').map(str::parse).collect::<Result<_, _>>().ok()?;
            rates.try_into().ok()
        })
        .collect();
    Some((lines(RELEASE).next()?.to_owned(), rounds.filter(|rounds| !rounds.is_empty())?))
}

fn section(environment: &str, release: &str, rounds: &[Rates], seconds: u64) -> String {
    let mut text = format!("## Both forms of system calls at saturation\n\n{environment}.\n\n");
    text += &format!(
        "Written by `cargo xtask bench machine`: nginx and wrk as above, in a machine with Linux {release} and one CPU, with \
         nothing and with the agent, all families on, system calls by fentry or by raw_tp, in turn, {seconds} s each, {} \
         rounds, each of the three first as often as last. Client, server, agent and all packets share the one CPU.\n\n\
         The machine is emulated (QEMU's TCG), and its clock counts instructions, each as one nanosecond: so what else this \
         host does changes nothing, and the ratios are those of the instructions that a request takes, all of the kernel's, \
         the server's and the client's included. A processor takes longer for some instructions than for others, so its \
         ratios are others.\n\n\
         | what | median | spread | target | |\n| --- | ---: | ---: | ---: | --- |\n",
        rounds.len()
    );
    let ratio = |part: usize, of: usize| Spread::of(rounds.iter().map(|rates| rates[part] / rates[of]));
    let verdict = if ratio(1, 0).median() >= TARGET { "met" } else { "**not met**" };
    for (what, spread, target, verdict) in [
        ("all families, fentry / nothing", ratio(1, 0), format!("{TARGET} or more"), verdict),
        ("all families, raw_tp / nothing", ratio(2, 0), String::new(), ""),
        ("raw_tp / fentry", ratio(2, 1), String::new(), ""),
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
        let console =
            format!("noise\n{RELEASE}6.12\r\n{ROUND}100\t90\t50\r\n{ROUND}200\t160\t120\r\n{ROUND}100\t88\t60\r\n");
        let (release, rounds) = parse(&console).unwrap();
        assert_eq!(rounds, [[100.0, 90.0, 50.0], [200.0, 160.0, 120.0], [100.0, 88.0, 60.0]]);
        let text = section("here", &release, &rounds, 3);
        for line in [
            "| all families, fentry / nothing | 0.880 | 0.800 - 0.900 | 0.85 or more | met |",
            "| all families, raw_tp / nothing | 0.600 | 0.500 - 0.600 |  |  |",
            "| raw_tp / fentry | 0.682 | 0.556 - 0.750 |  |  |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert_eq!(parse("noise"), None);
        assert_eq!(parse(&format!("{RELEASE}6.12\n{ROUND}1\t2\n")), None);
    }
}
