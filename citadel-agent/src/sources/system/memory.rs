//! Memory of the host and of its NUMA nodes (`proc_meminfo(5)`, `Documentation/admin-guide/numastat.rst`).

use super::{numbered, outcome};
use crate::host::Roots;
use crate::host::files::{ReadError, read_text};
use crate::metrics::catalogue::field;
use crate::metrics::catalogue::system::{MEMINFO, NUMA_MEMINFO, NUMA_STAT, VMSTAT};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_meminfo(roots: &Roots, page: &mut Page) -> Reading {
    let path = roots.proc.join("meminfo");
    let Some(text) = read_text(&path)? else { return outcome(false) };
    for line in text.lines() {
        let (key, bytes) = parse_line(line).ok_or_else(|| ReadError::malformed(&path, "a line has no number"))?;
        if let Some(desc) = field(MEMINFO, key) {
            page.add(desc, [], Value::Integer(bytes));
        }
    }
    outcome(true)
}

/// A line as `MemTotal:  16 kB` or `HugePages_Total:  0`; kB become bytes.
pub(super) fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (key, rest) = line.split_once(':')?;
    let mut words = rest.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let factor = if words.next() == Some("kB") { 1024 } else { 1 };
    Some((key, number.checked_mul(factor)?))
}

pub(in crate::sources) fn read_numa(roots: &Roots, page: &mut Page) -> Reading {
    let Some(nodes) = numbered(&roots.sys.join("devices/system/node"), "node")? else { return outcome(false) };
    for (number, path) in &nodes {
        let node = number.to_string();
        let meminfo = read_text(&path.join("meminfo"))?.unwrap_or_default();
        for line in meminfo.lines() {
            // `Node 0 MemTotal: ...`
            let line = line.trim_start().splitn(3, ' ').nth(2).unwrap_or_default();
            if let Some((key, bytes)) = parse_line(line)
                && let Some(desc) = field(NUMA_MEMINFO, key)
            {
                page.add(desc, [&node], Value::Integer(bytes));
            }
        }
        let numastat = read_text(&path.join("numastat"))?.unwrap_or_default();
        for (key, count) in numastat.lines().filter_map(parse_pair) {
            if let Some(desc) = field(NUMA_STAT, key) {
                page.add(desc, [&node], Value::Integer(count));
            }
        }
    }
    outcome(!nodes.is_empty())
}

pub(in crate::sources) fn read_vmstat(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("vmstat"))? else { return outcome(false) };
    for (key, count) in text.lines().filter_map(parse_pair) {
        if let Some(desc) = field(VMSTAT, key) {
            page.add(desc, [], Value::Integer(count));
        }
    }
    outcome(true)
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
        for line in ["", "MemTotal", "MemTotal: kB", "MemTotal: -1 kB", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
