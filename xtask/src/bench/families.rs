//! `cargo xtask bench families`: what each probe family costs alone, and what all of them cost together.

use std::fmt::Write as _;

use anyhow::Result;

use super::agent::{Agent, NET_ALONE};
use super::nginx::{self, Nginx};
use super::stats::{self, Spread, StatsOn};
use super::{MODEL_PORT, OTHER_PORT, Stage, document, go_on, report, wrk};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench families`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds; each runs every set of families once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of load on each port in each run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// The sets, each with its line of configuration. The others are compared with the first.
const SETS: [(&str, &str); 6] = [
    ("none", "ebpf: { net: false, recvq: false, sched: false, syscalls: false }\n"),
    ("net", NET_ALONE),
    ("net, recvq", "ebpf: { sched: false, syscalls: false }\n"),
    ("sched", "ebpf: { net: false, recvq: false, syscalls: false }\n"),
    ("syscalls", "ebpf: { net: false, recvq: false, sched: false }\n"),
    ("all", ""),
];

/// The ports under load: a model port and one that belongs to no model.
const PORTS: [u16; 2] = [MODEL_PORT, OTHER_PORT];

/// The section's heading.
const HEADING: &str = "## Each family\n";

/// Runs `cargo xtask bench families`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    stats::must_be_off()?;
    let _nginx = Nginx::start(stage, [MODEL_PORT])?;
    let mut rates: [[Vec<f64>; 2]; SETS.len()] = Default::default();
    let mut form = String::new();
    for round in 0..args.rounds as usize {
        // Each round starts with another set, so that drift favours none.
        for place in 0..SETS.len() {
            let set = (round + place) % SETS.len();
            let agent = Agent::start_with(stage, "11400-11500", SETS[set].1)?;
            for (port, rates) in PORTS.into_iter().zip(&mut rates[set]) {
                rates.push(wrk::saturate(port, args.seconds)?.rate);
            }
            if SETS[set].0 == "syscalls" {
                form = agent.form()?;
            }
        }
        eprintln!("bench: round {} of {}", round + 1, args.rounds);
    }
    let costs = SETS.iter().map(|(_, ebpf)| costs(stage, ebpf, args.seconds)).collect::<Result<Vec<_>>>()?;
    let section = section(&rates, &costs, &form, args)?;
    println!("{section}");
    document::write_section(workspace, &section)
}

/// Nanoseconds spent in all of the agent's programs per request, on each of [`PORTS`].
fn costs(stage: &Stage, ebpf: &str, seconds: u64) -> Result<[f64; 2]> {
    let agent = Agent::start_with(stage, "11400-11500", ebpf)?;
    let _on = StatsOn::new()?;
    let mut all = [0.0; 2];
    for (port, ns) in PORTS.into_iter().zip(&mut all) {
        go_on()?;
        let before = total(&agent)?;
        let requests = wrk::saturate(port, seconds)?.requests as f64;
        *ns = (total(&agent)? - before) / requests;
    }
    Ok(all)
}

/// Nanoseconds spent in all programs so far.
fn total(agent: &Agent) -> Result<f64> {
    Ok(agent.page()?.sum("citadel_probe_seconds_total", &[]).unwrap_or(0.0) * 1e9)
}

fn section(rates: &[[Vec<f64>; 2]; SETS.len()], costs: &[[f64; 2]], form: &str, args: &Args) -> Result<String> {
    let mut text = format!("{HEADING}\nWritten by `cargo xtask bench families`. {}.\n\n", report::environment()?);
    writeln!(
        text,
        "nginx, a model by its port, and wrk as in \"Throughput at saturation\", {}; {} s each time, {} rounds, in \
         each of which the agent runs with every set of families in turn. Throughput is relative to the same round \
         with all families disabled: median, minimum and maximum. Time is that of all programs for one request, from \
         the kernel's statistics, in a separate run. The form of `syscalls` is {form}. The other port is served by \
         nginx too, so the system calls and threads of its processes, which belong to a model, are measured on \
         both ports.\n",
        nginx::PLACES,
        args.seconds,
        args.rounds
    )?;
    text +=
        "| families | throughput, model port | throughput, other port | ns per request, model port | other port |\n";
    text += "| --- | ---: | ---: | ---: | ---: |\n";
    for (((name, _), of_set), ns) in SETS.iter().zip(rates).zip(costs) {
        write!(text, "| {name} |")?;
        for (rates, off) in of_set.iter().zip(&rates[0]) {
            let ratio = Spread::of(rates.iter().zip(off).map(|(rate, off)| rate / off));
            write!(text, " {:.3} ({:.3} - {:.3}) |", ratio.median(), ratio.min(), ratio.max())?;
        }
        writeln!(text, " {:.0} | {:.0} |", ns[0], ns[1])?;
    }
    text += "\n```sh\ncargo xtask bench families\n```\n";
    Ok(text)
}
