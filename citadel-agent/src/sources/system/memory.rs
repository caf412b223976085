//! Memory of the host and of its NUMA nodes (`proc_meminfo(5)`, `Documentation/admin-guide/numastat.rst`).

use super::{numbered, outcome};
use crate::host::Roots;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::field;
use crate::metrics::catalogue::system::{MEMINFO, NUMA_MEMINFO, NUMA_STAT, VMSTAT};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_meminfo(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("meminfo", &roots.proc.join("meminfo")) else { return outcome(false) };
    add_meminfo(page, &text, skipped);
    outcome(true)
}

pub(in crate::sources) fn add_meminfo(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let Some((key, bytes)) = skipped.or_note(parse_line(line), "meminfo", line) else { continue };
        if let Some(desc) = field(MEMINFO, key) {
            page.add(desc, [], Value::Integer(bytes));
        }
    }
}

/// A line such as `MemTotal:  16 kB` or `HugePages_Total:  0`; kB are converted to bytes.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (key, rest) = line.split_once(':')?;
    let mut words = rest.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let factor = match words.next() {
        Some("kB") => 1024,
        None => 1,
        Some(_) => return None,
    };
    Some((key, number.checked_mul(factor)?))
}

pub(in crate::sources) fn read_numa(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(nodes) = numbered(&roots.sys.join("devices/system/node"), "node", skipped) else { return outcome(false) };
    for (number, path) in &nodes {
        let node = number.to_string();
        if let Some(text) = skipped.text("node/meminfo", &path.join("meminfo")) {
            add_numa_meminfo(page, &node, &text, skipped);
        }
        if let Some(text) = skipped.text("node/numastat", &path.join("numastat")) {
            add_numastat(page, &node, &text, skipped);
        }
    }
    outcome(!nodes.is_empty())
}

/// Lines such as `Node 0 MemTotal: ...`.
pub(in crate::sources) fn add_numa_meminfo(page: &mut Page, node: &str, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let parsed = line.trim_start().splitn(3, ' ').nth(2).and_then(parse_line);
        if let Some((key, bytes)) = skipped.or_note(parsed, "node/meminfo", line)
            && let Some(desc) = field(NUMA_MEMINFO, key)
        {
            page.add(desc, [node], Value::Integer(bytes));
        }
    }
}

pub(in crate::sources) fn add_numastat(page: &mut Page, node: &str, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        if let Some((key, count)) = skipped.or_note(parse_pair(line), "node/numastat", line)
            && let Some(desc) = field(NUMA_STAT, key)
        {
            page.add(desc, [node], Value::Integer(count));
        }
    }
}

pub(in crate::sources) fn read_vmstat(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("vmstat", &roots.proc.join("vmstat")) else { return outcome(false) };
    add_vmstat(page, &text, skipped);
    outcome(true)
}

pub(in crate::sources) fn add_vmstat(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        if let Some((key, count)) = skipped.or_note(parse_pair(line), "vmstat", line)
            && let Some(desc) = field(VMSTAT, key)
        {
            page.add(desc, [], Value::Integer(count));
        }
    }
}

fn parse_pair(line: &str) -> Option<(&str, u64)> {
    let (key, count) = line.split_once(' ')?;
    Some((key, count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_line() {
        assert_eq!(parse_line("MemTotal:       16 kB"), Some(("MemTotal", 16384)));
        assert_eq!(parse_line("HugePages_Total:      16"), Some(("HugePages_Total", 16)));
        for line in
            ["", "MemTotal", "MemTotal: kB", "MemTotal: 1 MB", "MemTotal: -1 kB", "MemTotal: 18446744073709551615 kB"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
