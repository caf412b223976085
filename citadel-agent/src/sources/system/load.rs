//! Load of the host: load averages, pressure, run queues, processes (`proc_loadavg(5)`,
//! `Documentation/accounting/psi.rst`, `Documentation/scheduler/sched-stats.rst`, `proc_stat(5)`).

use super::outcome;
use crate::host::Roots;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::system::{
    BOOT_TIME, CONTEXT_SWITCHES, FORKS, INTERRUPTS, LOAD1, LOAD5, LOAD15, PRESSURE_CPU_WAITING, PRESSURE_IO_STALLED,
    PRESSURE_IO_WAITING, PRESSURE_MEMORY_STALLED, PRESSURE_MEMORY_WAITING, PROCS_BLOCKED, PROCS_RUNNING, SCHED_RUNNING,
    SCHED_TIMESLICES, SCHED_WAITING,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_averages(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("loadavg", &roots.proc.join("loadavg")) else { return outcome(false) };
    add_averages(page, &text, skipped);
    outcome(true)
}

/// The three averages at the start of the line of five words.
pub(in crate::sources) fn add_averages(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [one, five, fifteen, _, _] = words[..] else {
            skipped.note("loadavg", line);
            continue;
        };
        for (desc, word) in [(&LOAD1, one), (&LOAD5, five), (&LOAD15, fifteen)] {
            let average = word.parse().ok().filter(|average: &f64| average.is_finite());
            if let Some(average) = skipped.or_note(average, "loadavg", line) {
                page.add(desc, [], Value::Float(average));
            }
        }
    }
}

/// A file of `/proc/pressure`, and the metrics of its lines `some` and `full`.
struct Pressure {
    name: &'static str,
    some: &'static Desc,
    full: Option<&'static Desc>,
}

/// The kernel also has a `full` line for CPU, which is defined only below the root cgroup.
const PRESSURES: [Pressure; 3] = [
    Pressure { name: "cpu", some: &PRESSURE_CPU_WAITING, full: None },
    Pressure { name: "io", some: &PRESSURE_IO_WAITING, full: Some(&PRESSURE_IO_STALLED) },
    Pressure { name: "memory", some: &PRESSURE_MEMORY_WAITING, full: Some(&PRESSURE_MEMORY_STALLED) },
];

pub(in crate::sources) fn read_pressure(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let mut found = false;
    for Pressure { name, some, full } in PRESSURES {
        let Some(text) = skipped.text("pressure", &roots.proc.join("pressure").join(name)) else { continue };
        found = true;
        add_pressure(page, some, full, &text, skipped);
    }
    outcome(found)
}

/// Lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`, in microseconds.
pub(in crate::sources) fn add_pressure(
    page: &mut Page,
    some: &'static Desc,
    full: Option<&'static Desc>,
    text: &str,
    skipped: &mut Skipped,
) {
    for line in text.lines() {
        let desc = match line.split(' ').next() {
            Some("some") => Some(some),
            Some("full") => full,
            _ => {
                skipped.note("pressure", line);
                continue;
            }
        };
        let total = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total=")?.parse::<u64>().ok());
        if let Some(microseconds) = skipped.or_note(total, "pressure", line)
            && let Some(desc) = desc
        {
            page.add(desc, [], Value::Float(microseconds as f64 / 1e6));
        }
    }
}

pub(in crate::sources) fn read_schedstat(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("schedstat", &roots.proc.join("schedstat")) else { return outcome(false) };
    add_schedstat(page, &text, skipped);
    outcome(true)
}

/// The last three columns of each CPU's line: nanoseconds that tasks ran, nanoseconds that they waited, timeslices.
/// Other lines are the version, the time, and the CPUs' domains.
pub(in crate::sources) fn add_schedstat(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let mut columns = line.split_ascii_whitespace();
        let name = columns.next().unwrap_or_default();
        let Some(cpu) = name.strip_prefix("cpu") else {
            if !["version", "timestamp", "domain"].iter().any(|other| name.starts_with(other)) {
                skipped.note("schedstat", line);
            }
            continue;
        };
        let numbers: Option<Vec<u64>> = columns.map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[_, _, _, _, _, _, running, waiting, timeslices]) if cpu.parse::<u32>().is_ok() => {
                page.add(&SCHED_RUNNING, [cpu], Value::Float(running as f64 / 1e9));
                page.add(&SCHED_WAITING, [cpu], Value::Float(waiting as f64 / 1e9));
                page.add(&SCHED_TIMESLICES, [cpu], Value::Integer(timeslices));
            }
            _ => skipped.note("schedstat", line),
        }
    }
}

/// Lines of `/proc/stat`, by their first word.
const STAT: [(&str, &Desc); 6] = [
    ("btime", &BOOT_TIME),
    ("ctxt", &CONTEXT_SWITCHES),
    ("processes", &FORKS),
    ("intr", &INTERRUPTS),
    ("procs_blocked", &PROCS_BLOCKED),
    ("procs_running", &PROCS_RUNNING),
];

pub(in crate::sources) fn read_stat(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("stat", &roots.proc.join("stat")) else { return outcome(false) };
    add_stat(page, &text, skipped);
    outcome(true)
}

/// The first number of each of these lines: the total of interrupts is followed by one number per interrupt.
pub(in crate::sources) fn add_stat(page: &mut Page, text: &str, skipped: &mut Skipped) {
    // CPU lines belong to another source.
    for line in text.lines().filter(|line| !line.starts_with("cpu")) {
        let mut words = line.split_ascii_whitespace();
        let (name, number) = (words.next().unwrap_or_default(), words.next().and_then(|number| number.parse().ok()));
        if let Some(number) = skipped.or_note(number, "stat", line)
            && let Some((_, desc)) = STAT.iter().find(|(own, _)| *own == name)
        {
            page.add(desc, [], Value::Integer(number));
        }
    }
}
