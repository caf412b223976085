//! `cargo xtask bench syscalls`: what the `syscalls` family adds to a system call, alone and in each form.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::agent::Agent;
use super::report;
use super::stats::{self, Spread};
use super::{MODEL_PORT, Stage, document, go_on};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench syscalls`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds of each form.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Calls of each kind per round, split into slices whose median counts: other load on the machine affects only some of
/// them.
const CALLS: u32 = 200_000;
const SLICES: u32 = 20;

/// The forms, as configured.
const FORMS: [&str; 2] = ["auto", RAW_TP];
const RAW_TP: &str = "raw_tp";

/// The section's heading.
const HEADING: &str = "## System calls\n";

/// Runs `cargo xtask bench syscalls`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    stats::must_be_off()?;
    let section = section(stage, args.rounds)?;
    println!("{section}");
    document::write_section(workspace, &section)
}

/// Measures and returns the section.
pub(super) fn section(stage: &Stage, rounds: u32) -> Result<String> {
    let mut text = format!("{HEADING}\n{}.\n\n", report::environment()?);
    writeln!(
        text,
        "One thread makes {CALLS} calls of each kind in a row, in {rounds} rounds: without the agent, then with the agent and only \
         its family `syscalls`, first as a process that belongs to no model and then, once it listens on a model's port, as the \
         model. `read` (of zero bytes, from /dev/null) is measured, `getppid` is not: with fentry it costs the same as without \
         the agent. The first column shows which forms this host supports. `cargo xtask kernels` compares both forms in emulated \
         machines, as a ratio to the same calls without the agent ([kernel-support.md](kernel-support.md)).\n"
    )?;
    text += "| form | call | without agent, ns | no model, ns | added, ns | model, ns | added, ns |\n";
    text += "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
    for configured in FORMS {
        let (form, rounds) = measure(stage, configured, rounds)?;
        for (index, call) in ["read", "getppid"].into_iter().enumerate() {
            let median = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value)).median();
            let without = median(&|round| round.without[index]);
            let other = median(&|round| round.other[index]);
            let more_other = median(&|round| round.other[index] - round.without[index]);
            let model = median(&|round| round.model[index]);
            let more_model = median(&|round| round.model[index] - round.without[index]);
            writeln!(
                text,
                "| {form} | {call} | {without:.0} | {other:.0} | {more_other:.0} | {model:.0} | {more_model:.0} |"
            )?;
        }
        if form == RAW_TP {
            // Where fentry is refused, `auto` falls back to the other form.
            break;
        }
    }
    text.push('\n');
    Ok(text)
}

/// Nanoseconds of a `read` and of a `getppid`.
struct Round {
    without: [f64; 2],
    other: [f64; 2],
    model: [f64; 2],
}

/// Measures a form: its name, and the result of each round.
fn measure(stage: &Stage, configured: &str, rounds: u32) -> Result<(String, Vec<Round>)> {
    let mut form = String::new();
    let mut all = Vec::new();
    let ebpf = format!("ebpf: {{ net: false, recvq: false, sched: false, syscall_form: {configured} }}\n");
    for _ in 0..rounds {
        go_on()?;
        let without = each()?;
        let mut agent = Agent::start_with(stage, "none", &ebpf)?;
        form = agent.form()?;
        let other = each()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, MODEL_PORT)).context("the model's port is taken")?;
        agent.wait_until_known(std::process::id())?;
        let before = agent.page()?.sum(COUNT, READS).unwrap_or(0.0);
        let model = each()?;
        let counted = agent.page()?.sum(COUNT, READS).unwrap_or(0.0) - before;
        // This process also reads the agent's pages.
        ensure!(counted >= f64::from(CALLS), "the agent counted {counted} reads instead of at least {CALLS}");
        drop(listener);
        all.push(Round { without, other, model });
    }
    Ok((form, all))
}

/// The series that counts the reads.
const COUNT: &str = "citadel_model_syscall_duration_seconds_count";
const READS: &[(&str, &str)] = &[("syscall", "read")];

/// Nanoseconds of one `read` and of one `getppid`.
fn each() -> Result<[f64; 2]> {
    let null = File::open("/dev/null").context("/dev/null")?;
    let descriptor = null.as_raw_fd();
    let median = |call: &dyn Fn()| {
        let slice = || {
            let begun = Instant::now();
            (0..CALLS / SLICES).for_each(|_| call());
            begun.elapsed().as_nanos() as f64 / f64::from(CALLS / SLICES)
        };
        Spread::of((0..SLICES).map(|_| slice())).median()
    };
    // SAFETY: a read of zero bytes, and a call without arguments.
    unsafe {
        Ok([
            median(&|| _ = libc::syscall(libc::SYS_read, descriptor, std::ptr::null_mut::<u8>(), 0)),
            median(&|| _ = libc::syscall(libc::SYS_getppid)),
        ])
    }
}
