//! `docs/overhead.md`: figures and targets, and how they were measured.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::agent::PROGRAMS;
use super::stats::{Runs, Spread};
use super::{nginx, wrk};
use crate::process;

/// Requests per second on one port in each part of one pair.
#[derive(Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) nothing: f64,
    pub(super) empty: f64,
    pub(super) agent: f64,
}

/// The rates of all pairs, on the model port and on the other one.
pub(super) struct Throughput {
    pub(super) model: Vec<Rates>,
    pub(super) other: Vec<Rates>,
}

/// Time spent in the programs while an event happened a number of times.
pub(super) struct Costs {
    /// How often the event happened, over all rounds.
    pub(super) units: f64,
    /// Runs of each of [`PROGRAMS`], over all rounds.
    pub(super) programs: [Runs; PROGRAMS.len()],
    /// Runs of the empty pair, over all rounds.
    pub(super) empty: [Runs; 2],
    /// Nanoseconds of the agent's programs per event, by round.
    pub(super) each: Spread,
    /// Nanoseconds per run of the agent's programs, by round.
    pub(super) run: Spread,
    /// Nanoseconds per run of the empty pair, by round.
    pub(super) empty_run: Spread,
}

impl Costs {
    /// Nanoseconds of the agent's programs per event beyond those of the empty pair.
    pub(super) fn excess(&self) -> f64 {
        self.each.median() - self.empty.iter().map(|runs| runs.ns).sum::<f64>() / self.units
    }
}

/// The agent's own resource usage under a steady load.
pub(super) struct Steady {
    /// Length of the measurement in seconds.
    pub(super) seconds: f64,
    /// Requests answered per second.
    pub(super) rate: f64,
    /// CPU seconds until it was ready.
    pub(super) started: f64,
    /// Peak resident bytes until then.
    pub(super) started_peak: f64,
    /// CPU seconds per second.
    pub(super) cpu: f64,
    /// Resident bytes at the end.
    pub(super) resident: f64,
}

/// Scrapes of all 101 models.
pub(super) struct Scrape {
    /// Models on the page.
    pub(super) models: usize,
    /// Size of the page in bytes.
    pub(super) bytes: usize,
    /// Seconds per scrape, connection included.
    pub(super) seconds: Spread,
    /// The agent's resident bytes afterwards.
    pub(super) resident: f64,
}

/// Everything that was measured.
pub(super) struct Report {
    pub(super) throughput: Throughput,
    pub(super) requests: Costs,
    pub(super) chunks: Costs,
    pub(super) others: Costs,
    pub(super) steady: Steady,
    pub(super) scrape: Scrape,
    /// Seconds of each half of a pair.
    pub(super) seconds: u64,
}

/// The target of a figure.
#[derive(Clone, Copy)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    /// It is measured against nothing.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::Below(limit) => value < limit,
            Self::None => true,
        }
    }

    /// Whether the target is met, in the words of the documents.
    pub(super) fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::None => "",
            _ if self.is_met(value) => "met",
            _ => "**not met**",
        }
    }

    pub(super) fn shown(self) -> String {
        match self {
            Self::AtLeast(limit) => format!("{limit} or more"),
            Self::AtMost(limit) => format!("{limit} or less"),
            Self::Below(limit) => format!("below {limit}"),
            Self::None => String::new(),
        }
    }
}

/// The whole document.
pub(super) fn markdown(report: &Report) -> Result<String> {
    let mut text = String::new();
    let Report { throughput, requests, chunks, others, steady, scrape, seconds } = report;
    let pairs = throughput.model.len();
    text += "# Overhead\n\nWritten by `cargo xtask bench overhead`, which repeats all measurements. Do not edit.\n\n";
    writeln!(text, "{}; release build.\n\n## Figures\n", environment()?)?;
    text += "| what | measured | spread | target | |\n| --- | ---: | ---: | ---: | --- |\n";
    for (port, rates, target) in [("a model port", &throughput.model, 0.9), ("another port", &throughput.other, 0.97)] {
        let ratio = Spread::of(rates.iter().map(|rates| rates.agent / rates.nothing));
        let what = format!("throughput on {port}, with / without");
        row_within(&mut text, &what, ratio.median(), ratio.median_within(), 3, Target::AtLeast(target))?;
    }
    // Of these, two empty programs are most: their targets are in instructions, beyond the empty pair (`bench machine`).
    let none = Target::None;
    row(&mut text, "a whole small request, all its packets, ns", &requests.each, 1.0, 0, none)?;
    row(&mut text, "a streamed chunk, all its packets, ns", &chunks.each, 1.0, 0, none)?;
    row(&mut text, "a packet of another port, ns", &others.run, 1.0, 1, none)?;
    let one = |value| Spread::of([value]);
    row(&mut text, "agent's resident memory, MB", &one(steady.resident), 1e-6, 1, Target::Below(20.0))?;
    row(&mut text, "agent's peak memory at start, MB", &one(steady.started_peak), 1e-6, 1, Target::AtMost(25.0))?;
    row(&mut text, "agent's CPU until it is ready, s", &one(steady.started), 1.0, 2, Target::AtMost(0.4))?;
    row(&mut text, "agent's CPU, % of a core", &one(steady.cpu), 100.0, 2, Target::Below(0.5))?;
    row(&mut text, "a scrape of 101 models, ms", &scrape.seconds, 1e3, 2, Target::Below(5.0))?;

    text += "\nValues are medians, the spread is minimum to maximum. For throughput, whose single pairs are noisy on \
             a shared host, the spread is the 95 % confidence interval of the median.\n\n## Throughput at saturation\n\n";
    writeln!(
        text,
        "nginx (a 600-byte file) and wrk ({} connections), {}, {seconds} s each time, {pairs} pairs. In each pair, \
         nothing, the empty programs and the agent are attached in turn, with the order reversed every other time; \
         BPF statistics are off. The agent runs only the `net` family; see \"Each family\" for the others. Both CPUs are busy and both ends of a \
         connection run the programs, so this is the worst case: each nanosecond in a program is taken from the \
         server or the client. See \"In instructions\" for the same measurement without the noise of the host. \
         Values are medians of the pairs, with the 95 % confidence interval of the median in brackets.\n",
        wrk::CONNECTIONS,
        nginx::PLACES
    )?;
    throughput_table(&mut text, throughput)?;

    text += "## Time in the programs\n\nFrom the kernel's statistics (`kernel.bpf_stats_enabled`), which read the \
             clock twice per run; this is included in each figure. An empty pair (two cgroup_skb programs that only \
             return) is attached next to the agent's programs and runs for the same packets: it shows the minimum that \
             any program can reach here. \
             Nothing is subtracted.\n\n";
    text += "Both ends of a loopback connection run the programs, so the total of a request includes the client's \
             end. With remote clients this part does not exist.\n\n";
    for (name, unit, costs) in [
        ("A small request on a model port", "request", requests),
        ("A chunk of a streamed response", "chunk", chunks),
        ("A request on another port", "request", others),
    ] {
        costs_table(&mut text, name, unit, costs)?;
    }

    text += "## The agent itself\n\n";
    writeln!(
        text,
        "Seven models with {:.0} requests per second in total, one scrape per second, over {:.0} s: {:.2} % of a core, {:.1} MB \
         resident. It was ready after {:.2} s of CPU, most of it the kernel's, which verifies the programs, with {:.1} MB at \
         most. CPU is the process's own, from `/proc/PID/stat`, with a resolution of 10 ms; time in the kernel programs \
         is charged to the sending or receiving process, and is measured above.\n",
        steady.rate,
        steady.seconds,
        steady.cpu * 100.0,
        steady.resident * 1e-6,
        steady.started,
        steady.started_peak * 1e-6
    )?;
    writeln!(
        text,
        "A scrape of {} models with one request each is {:.0} kB of text and takes {:.2} ms for a client on loopback, including \
         the connection; after it, the agent has {:.1} MB resident.",
        scrape.models,
        scrape.bytes as f64 * 1e-3,
        scrape.seconds.median() * 1e3,
        scrape.resident * 1e-6
    )?;
    text += "\n## Repeating the measurements\n\n```sh\ncargo xtask bench overhead            # all measurements; \
             takes some minutes, on an idle machine\n\
             cargo xtask bench overhead --quick    # a short run that only prints\ncargo xtask bench families            \
             # only this section\ncargo xtask bench syscalls            # only this section\n```\n";
    Ok(text)
}

/// A row of the table of figures; values are multiplied by `scale`, and the target applies to the result.
fn row(text: &mut String, what: &str, values: &Spread, scale: f64, digits: usize, target: Target) -> Result<()> {
    let (value, within) = (values.median() * scale, (values.min() * scale, values.max() * scale));
    row_within(text, what, value, within, digits, target)
}

fn row_within(
    text: &mut String,
    what: &str,
    value: f64,
    (from, to): (f64, f64),
    digits: usize,
    target: Target,
) -> Result<()> {
    let spread = if from < to { format!("{from:.digits$} - {to:.digits$}") } else { String::new() };
    writeln!(text, "| {what} | {value:.digits$} | {spread} | {} | {} |", target.shown(), target.verdict(value))?;
    Ok(())
}

/// The throughput on each port: medians, and confidence intervals of the ratios.
fn throughput_table(text: &mut String, throughput: &Throughput) -> Result<()> {
    *text +=
        "| port | nothing, requests/s | empty pair | agent | empty / nothing | agent / nothing | agent / empty |\n";
    *text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for (port, rates) in [("model", &throughput.model), ("other", &throughput.other)] {
        let spread = |value: fn(&Rates) -> f64| Spread::of(rates.iter().map(value));
        let [nothing, empty, agent]: [fn(&Rates) -> f64; 3] =
            [|rates| rates.nothing, |rates| rates.empty, |rates| rates.agent];
        let [nothing, empty, agent] = [nothing, empty, agent].map(|rate| spread(rate).median());
        write!(text, "| {port} | {nothing:.0} | {empty:.0} | {agent:.0} |")?;
        let ratios: [fn(&Rates) -> f64; 3] = [
            |rates| rates.empty / rates.nothing,
            |rates| rates.agent / rates.nothing,
            |rates| rates.agent / rates.empty,
        ];
        for ratio in ratios.map(spread) {
            let (from, to) = ratio.median_within();
            write!(text, " {:.3} ({from:.3} - {to:.3}) |", ratio.median())?;
        }
        *text += "\n";
    }
    *text += "\n";
    Ok(())
}

fn costs_table(text: &mut String, name: &str, unit: &str, costs: &Costs) -> Result<()> {
    writeln!(text, "{name} ({:.0} of them):\n", costs.units)?;
    writeln!(text, "| program | runs per {unit} | ns per run | ns per {unit} |\n| --- | ---: | ---: | ---: |")?;
    let empty = ["empty ingress", "empty egress"];
    for (program, runs) in PROGRAMS.iter().zip(&costs.programs).chain(empty.iter().zip(&costs.empty)) {
        writeln!(
            text,
            "| {program} | {:.2} | {:.1} | {:.0} |",
            runs.count / costs.units,
            runs.each(),
            runs.ns / costs.units
        )?;
    }
    writeln!(
        text,
        "\nAll of the agent's programs: {:.0} ns per {unit}, {:.1} ns per run; the empty pair: {:.1} ns per run (medians of the \
         rounds).\n",
        costs.each.median(),
        costs.run.median(),
        costs.empty_run.median()
    )?;
    Ok(())
}

/// The machine and the date.
pub(super) fn environment() -> Result<String> {
    let output = |program: &str, args: &[&str]| process::output(Command::new(program).args(args));
    let (date, kernel) = (output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?, output("uname", &["-srm"])?);
    let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    Ok(format!("{date}; {kernel}; {model}, {cores} cores; load average at the end {load}"))
}
