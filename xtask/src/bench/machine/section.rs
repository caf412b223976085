//! The results of `cargo xtask bench machine`: read from the machine's console, written into `docs/overhead.md`.

use std::fmt::Write as _;

use citadel_agent_common::http::events::LOOK;
use citadel_agent_common::http::usage::TAIL;

use super::{INSTRUCTIONS, Instructions, Load, RELEASE, ROUND, Round};
use crate::bench::report::Target;
use crate::bench::stats::Spread;

/// Indexes into [`super::PARTS`].
const NOTHING: usize = 0;
const EMPTY: usize = 1;
const NET: usize = 2;
const FENTRY: usize = 3;
const RAW_TP: usize = 4;

/// Indexes into [`super::LOADS`].
const MODEL: usize = 0;
const OTHER: usize = 1;
const BY_TURNS: usize = 2;

/// The results on the console.
#[derive(PartialEq, Debug)]
pub(super) struct Found {
    /// The kernel release.
    release: String,
    pub(super) rounds: Vec<Round>,
    pub(super) instructions: Instructions,
}

/// Parses the console; `None` when something is missing.
pub(super) fn parse(console: &str) -> Option<Found> {
    let lines = |begin: &'static str| console.lines().filter_map(move |line| line.trim_end().strip_prefix(begin));
    let numbers = |row: &str| row.split('\t').map(|number| number.parse().ok()).collect::<Option<Vec<f64>>>();
    let round = |row| {
        let numbers = numbers(row)?;
        let mut round = Round::default();
        let loads = round.as_flattened_mut();
        if numbers.len() != 2 * loads.len() {
            return None;
        }
        for (load, pair) in loads.iter_mut().zip(numbers.chunks(2)) {
            *load = Load { rate: pair[0], switches: pair[1] };
        }
        Some(round)
    };
    let rounds: Option<Vec<Round>> = lines(ROUND).map(round).collect();
    let instructions = numbers(lines(INSTRUCTIONS).next()?)?;
    let ([request, of_request, of_chunk, other, empty], chunks) = instructions.split_first_chunk()?;
    Some(Found {
        release: lines(RELEASE).next()?.to_owned(),
        rounds: rounds?,
        instructions: Instructions {
            request: *request,
            excess: [*of_request, *of_chunk],
            chunks: chunks.try_into().ok()?,
            other: *other,
            empty: *empty,
        },
    })
}

/// The section as Markdown.
pub(super) fn markdown(environment: &str, found: &Found, seconds: u64) -> String {
    let Found { release, rounds, instructions } = found;
    let mut text = format!("## In instructions\n\n{environment}.\n\n");
    text += &format!(
        "Written by `cargo xtask bench machine`: nginx and wrk as above, in a virtual machine with Linux {release} and one CPU, with \
         nothing, with the empty pair, with the agent and its `net` family alone, and with all families, system calls by \
         fentry or by raw_tp: in turn, {seconds} s each, {} rounds, each starting with a different one. Client, \
         server, agent and all packets share one CPU.\n\n\
         The machine is emulated (QEMU's TCG), and its clock counts each instruction as one nanosecond. Other load on \
         the host therefore has no effect, and the ratios are those of the instructions per request, including the \
         kernel's, the server's and the client's. On a real processor, instructions take different times, so its \
         ratios differ.\n\n\
         nginx and wrk run as `SCHED_BATCH`, so waking one does not preempt the other: wrk sends on all of its \
         connections and nginx answers them all before either sleeps, and nginx always has requests waiting, as when \
         it saturates its own CPU. With the default, `SCHED_OTHER`, they take turns every few requests, more often \
         the longer a request takes, and each switch costs about 3,000 instructions; the ratio then includes the \
         switches, and changes with every change of either. It is listed below without a target.\n\n\
         | throughput / with nothing | median | spread | target | |\n| --- | ---: | ---: | ---: | --- |\n",
        rounds.len()
    );
    let ratio = |load: usize, part: usize| {
        Spread::of(rounds.iter().map(|round| round[part][load].rate / round[NOTHING][load].rate))
    };
    for (what, spread, target) in [
        ("model port: `net`", ratio(MODEL, NET), Some(0.9)),
        ("all families, fentry", ratio(MODEL, FENTRY), Some(0.85)),
        ("all families, raw_tp", ratio(MODEL, RAW_TP), None),
        ("empty pair", ratio(MODEL, EMPTY), None),
        ("other port: `net`", ratio(OTHER, NET), Some(0.97)),
        ("all families, fentry", ratio(OTHER, FENTRY), None),
        ("all families, raw_tp", ratio(OTHER, RAW_TP), None),
        ("empty pair", ratio(OTHER, EMPTY), None),
        ("model port, by `SCHED_OTHER`: `net`", ratio(BY_TURNS, NET), None),
        ("all families, fentry", ratio(BY_TURNS, FENTRY), None),
        ("all families, raw_tp", ratio(BY_TURNS, RAW_TP), None),
    ] {
        let (median, min, max) = (spread.median(), spread.min(), spread.max());
        let target = target.map(Target::AtLeast);
        let verdict = target.map_or("", |target| target.verdict(median));
        let target = target.map(Target::shown).unwrap_or_default();
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "| {what} | {median:.3} | {min:.3} - {max:.3} | {target} | {verdict} |");
    }
    text += "\nContext switches of nginx per request:\n\n| | nothing | `net` | all, fentry | all, raw_tp |\n\
             | --- | ---: | ---: | ---: | ---: |\n";
    for (name, load) in [("`SCHED_BATCH`", MODEL), ("`SCHED_OTHER`", BY_TURNS)] {
        let [nothing, net, fentry, raw_tp] = [NOTHING, NET, FENTRY, RAW_TP]
            .map(|part| Spread::of(rounds.iter().map(|round| round[part][load].switches)).median());
        let _ = writeln!(text, "| {name} | {nothing:.3} | {net:.3} | {fentry:.3} | {raw_tp:.3} |");
    }
    text += &format!(
        "\n{}\nFor the cost of a single system call with each form, see [kernel-support.md](kernel-support.md).\n",
        instructions.markdown()
    );
    text
}

impl Instructions {
    /// As a table, with what bounds them.
    pub(super) fn markdown(&self) -> String {
        let Self { request, excess, chunks: [alike, unread, different, counts], other, empty } = self;
        let against = |what: &str, instructions: f64, limit: f64| {
            let target = Target::AtMost(limit);
            format!("| {what} ({}: {}) | {instructions:.0} |\n", target.shown(), target.verdict(instructions))
        };
        let request_beyond = against("a whole small request, beyond the empty pair", excess[0], 2400.0);
        let chunk_beyond = against("a streamed chunk, beyond the empty pair", excess[1], 650.0);
        let reads = against("what reading its event adds", alike - unread, 250.0);
        let other_beyond = against("a packet of another port, beyond an empty program", other - empty, 15.0);
        format!(
            "Instructions in the `net` programs, from the kernel's statistics, including the two clock reads around each run:\n\n\
             | what | instructions |\n| --- | ---: |\n\
             | a whole small request, all its packets | {request:.0} |\n\
             {request_beyond}\
             | a streamed chunk, all its packets | {alike:.0} |\n\
             {chunk_beyond}\
             | the same in a stream whose events are not read | {unread:.0} |\n\
             {reads}\
             | a chunk whose event begins differently from the one before (Ollama's lines have a time) | {different:.0} |\n\
             | a chunk with token counts beside output (SGLang's `/generate`), which are searched | {counts:.0} |\n\
             | a packet of another port | {other:.0} |\n\
             {other_beyond}\
             | a run of an empty program | {empty:.0} |\n\n\
             Of an event, at most {LOOK} bytes are read. One without output until then counts as such, or makes the stream unread if \
             no event before it was understood (`citadel_model_streams_unread_total`). At most the last {TAIL} bytes of a packet are \
             searched for counts.\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_has_the_ratios_of_the_rounds_on_the_console() {
        let round = |rates: [u32; 5]| {
            let loads = rates.map(|rate| format!("{rate}\t0.1\t{}\t0.2\t{}\t0.5", rate * 2, rate / 2));
            format!("{ROUND}{}\r\n", loads.join("\t"))
        };
        let console = format!(
            "noise\n{RELEASE}6.12\r\n{}{}{}{INSTRUCTIONS}3300.4\t3000\t600\t90.5\t60\t1500\t1300\t2500\t3500\r\n",
            round([100, 98, 95, 90, 50]),
            round([200, 196, 180, 160, 120]),
            round([100, 98, 89, 88, 60])
        );
        let found = parse(&console).unwrap();
        assert_eq!(found.rounds[1][FENTRY][BY_TURNS], Load { rate: 80.0, switches: 0.5 });
        assert_eq!(found.rounds[2][NET][OTHER], Load { rate: 178.0, switches: 0.2 });
        assert_eq!(found.rounds.len(), 3);
        let text = markdown("here", &found, 3);
        for line in [
            "| model port: `net` | 0.900 | 0.890 - 0.950 | 0.9 or more | met |",
            "| all families, fentry | 0.880 | 0.800 - 0.900 | 0.85 or more | met |",
            "| all families, raw_tp | 0.600 | 0.500 - 0.600 |  |  |",
            "| other port: `net` | 0.900 | 0.890 - 0.950 | 0.97 or more | **not met** |",
            "| empty pair | 0.980 | 0.980 - 0.980 |  |  |",
            "| `SCHED_OTHER` | 0.500 | 0.500 | 0.500 | 0.500 |",
            "| a whole small request, all its packets | 3300 |",
            "| a whole small request, beyond the empty pair (2400 or less: **not met**) | 3000 |",
            "| a streamed chunk, all its packets | 1500 |",
            "| a streamed chunk, beyond the empty pair (650 or less: met) | 600 |",
            "| a packet of another port, beyond an empty program (15 or less: **not met**) | 30 |",
            "| what reading its event adds (250 or less: met) | 200 |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert_eq!(parse("noise"), None);
        assert_eq!(parse(&format!("{RELEASE}6.12\n{ROUND}1\t2\n{INSTRUCTIONS}1\t2\t3\t4\t5\t6\n")), None);
        assert_eq!(parse(&console.replace(INSTRUCTIONS, "")), None);
    }
}
