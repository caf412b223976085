//! How busy the host is: load averages, pressure, run queues, processes
//! (`proc_loadavg(5)`, `Documentation/accounting/psi.rst`, `Documentation/scheduler/sched-stats.rst`, `proc_stat(5)`).

use super::outcome;
use crate::host::Roots;
use crate::host::files::{ReadError, read_text};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::system::{
    BOOT_TIME, CONTEXT_SWITCHES, FORKS, INTERRUPTS, LOAD1, LOAD5, LOAD15, PRESSURE_CPU_WAITING, PRESSURE_IO_STALLED,
    PRESSURE_IO_WAITING, PRESSURE_MEMORY_STALLED, PRESSURE_MEMORY_WAITING, PROCS_BLOCKED, PROCS_RUNNING, SCHED_RUNNING,
    SCHED_TIMESLICES, SCHED_WAITING,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_averages(roots: &Roots, page: &mut Page) -> Reading {
    let path = roots.proc.join("loadavg");
    let Some(text) = read_text(&path)? else { return outcome(false) };
    let averages =
        parse_averages(&text).ok_or_else(|| ReadError::malformed(&path, "it begins with other things than numbers"))?;
    for (desc, average) in [&LOAD1, &LOAD5, &LOAD15].into_iter().zip(averages) {
        page.add(desc, [], Value::Float(average));
    }
    outcome(true)
}

/// The three averages with which the file begins.
pub(super) fn parse_averages(loadavg: &str) -> Option<[f64; 3]> {
    let mut numbers =
        loadavg.split_ascii_whitespace().map(|number| number.parse().ok().filter(|n: &f64| n.is_finite()));
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Each file of `/proc/pressure` with what its lines `some` and `full` are called. The kernel has a `full` line for CPU as
/// well, which is defined only below the root cgroup.
const PRESSURES: [(&str, Option<&Desc>, Option<&Desc>); 3] = [
    ("cpu", Some(&PRESSURE_CPU_WAITING), None),
    ("io", Some(&PRESSURE_IO_WAITING), Some(&PRESSURE_IO_STALLED)),
    ("memory", Some(&PRESSURE_MEMORY_WAITING), Some(&PRESSURE_MEMORY_STALLED)),
];

pub(in crate::sources) fn read_pressure(roots: &Roots, page: &mut Page) -> Reading {
    let mut found = false;
    for (name, some, full) in PRESSURES {
        let path = roots.proc.join("pressure").join(name);
        let text = match read_text(&path) {
            // Compiled in, but switched off (psi=0).
            Err(ReadError::Io { cause, .. }) if cause.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
            text => text?,
        };
        let Some(text) = text else { continue };
        found = true;
        for (line, desc) in [("some", some), ("full", full)] {
            if let (Some(desc), Some(microseconds)) = (desc, parse_pressure(&text, line)) {
                page.add(desc, [], Value::Float(microseconds as f64 / 1e6));
            }
        }
    }
    outcome(found)
}

/// The total of a line, in microseconds.
pub(super) fn parse_pressure(text: &str, line: &str) -> Option<u64> {
    let rest = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '))?;
    rest.split_ascii_whitespace().find_map(|field| field.strip_prefix("total=")?.parse().ok())
}

pub(in crate::sources) fn read_schedstat(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("schedstat"))? else { return outcome(false) };
    add_schedstat(page, &text);
    outcome(true)
}

/// The last three columns of each CPU's line: nanoseconds that tasks ran, nanoseconds that they waited, timeslices.
pub(super) fn add_schedstat(page: &mut Page, text: &str) {
    for line in text.lines() {
        let mut columns = line.split_ascii_whitespace();
        let Some(cpu) = columns.next().and_then(|name| name.strip_prefix("cpu")) else { continue };
        let numbers: Vec<u64> = columns.map_while(|number| number.parse().ok()).collect();
        if let [_, _, _, _, _, _, running, waiting, timeslices] = numbers[..] {
            page.add(&SCHED_RUNNING, [cpu], Value::Float(running as f64 / 1e9));
            page.add(&SCHED_WAITING, [cpu], Value::Float(waiting as f64 / 1e9));
            page.add(&SCHED_TIMESLICES, [cpu], Value::Integer(timeslices));
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

pub(in crate::sources) fn read_stat(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("stat"))? else { return outcome(false) };
    add_stat(page, &text);
    outcome(true)
}

/// The first number of each of these lines: behind the interrupts' sum stands one number for each interrupt.
pub(super) fn add_stat(page: &mut Page, text: &str) {
    for (name, desc) in STAT {
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split_ascii_whitespace().next()?.parse().ok());
        if let Some(number) = number {
            page.add(desc, [], Value::Integer(number));
        }
    }
}
