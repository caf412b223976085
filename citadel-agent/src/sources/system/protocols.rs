//! Network protocols and their queues: `/proc/net/{snmp,netstat,snmp6,sockstat,sockstat6,softnet_stat,udp,arp}` and
//! connection tracking (`Documentation/networking/snmp_counter.rst`).

use std::collections::BTreeMap;

use super::{outcome, parse_signed};
use crate::host::Roots;
use crate::host::process::page_size;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::system::{
    ARP_ENTRIES, CONNTRACK, CONNTRACK_ENTRIES, CONNTRACK_LIMIT, NETSTAT, SOCKSTAT, SOCKSTAT_BYTES, SOFTNET_DROPPED,
    SOFTNET_PROCESSED, SOFTNET_SQUEEZED, UDP_QUEUES,
};
use crate::metrics::catalogue::{Desc, Field};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_netstat(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let mut found = false;
    for name in ["net/snmp", "net/netstat"] {
        let Some(text) = skipped.text(name, &roots.proc.join(name)) else { continue };
        found = true;
        add_netstat(page, &text, skipped);
    }
    // Absent if IPv6 is disabled.
    if let Some(text) = skipped.text("net/snmp6", &roots.proc.join("net/snmp6")) {
        found = true;
        add_snmp6(page, &text, skipped);
    }
    outcome(found)
}

/// Finds `PROTOCOL_NAME`; only a few of the kernel's hundreds are exported.
fn part_of(table: &'static [Field], protocol: &str, name: &str) -> Option<&'static Desc> {
    let is_it = |field: &&Field| field.key.strip_prefix(protocol).and_then(|rest| rest.strip_prefix('_')) == Some(name);
    table.iter().find(is_it).map(|field| &field.desc)
}

/// Pairs of lines: field names of a protocol, then their values.
pub(in crate::sources) fn add_netstat(page: &mut Page, text: &str, skipped: &mut Skipped) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let pair = line.split_once(": ").and_then(|(protocol, names)| {
            let values = lines.peek()?.strip_prefix(protocol)?.strip_prefix(": ")?;
            let split = |text: &'_ str| text.split_ascii_whitespace().count();
            // If a value were missing, all following ones would get the wrong name.
            (split(names) == split(values)).then_some((protocol, names, values))
        });
        let Some((protocol, names, values)) = skipped.or_note(pair, "net/netstat", line) else { continue };
        lines.next();
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            if let Some(desc) = part_of(NETSTAT, protocol, name)
                && let Some(number) =
                    skipped.or_note(parse_signed(value), "net/netstat", format_args!("{name} {value}"))
            {
                page.add(desc, [], number);
            }
        }
    }
}

/// Lines such as `Ip6InOctets  123`: the protocol is everything up to the 6.
pub(in crate::sources) fn add_snmp6(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let parsed = words.next().zip(words.next()).and_then(|(name, value)| {
            let (protocol, name) = name.split_at(name.find('6')? + 1);
            Some((protocol, name, value.parse().ok()?))
        });
        if let Some((protocol, name, value)) = skipped.or_note(parsed, "net/snmp6", line)
            && let Some(desc) = part_of(NETSTAT, protocol, name)
        {
            page.add(desc, [], Value::Integer(value));
        }
    }
}

pub(in crate::sources) fn read_sockstat(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let mut found = false;
    for name in ["net/sockstat", "net/sockstat6"] {
        let Some(text) = skipped.text(name, &roots.proc.join(name)) else { continue };
        found = true;
        add_sockstat(page, &text, page_size(), skipped);
    }
    outcome(found)
}

/// Lines such as `TCP: inuse 4 orphan 0`.
pub(in crate::sources) fn add_sockstat(page: &mut Page, text: &str, page_size: u64, skipped: &mut Skipped) {
    for line in text.lines() {
        let words = line.split_once(": ").map(|(protocol, rest)| (protocol, rest.split_ascii_whitespace()));
        let Some((protocol, mut words)) = skipped.or_note(words, "net/sockstat", line) else { continue };
        while let Some(name) = words.next() {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            let Some(value) = skipped.or_note(value, "net/sockstat", line) else { continue };
            if let Some(desc) = part_of(SOCKSTAT, protocol, name) {
                page.add(desc, [], Value::Integer(value));
            }
            if let (Some(desc), Some(bytes)) = (part_of(SOCKSTAT_BYTES, protocol, name), value.checked_mul(page_size)) {
                page.add(desc, [], Value::Integer(bytes));
            }
        }
    }
}

pub(in crate::sources) fn read_softnet(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("net/softnet_stat", &roots.proc.join("net/softnet_stat")) else {
        return outcome(false);
    };
    add_softnet(page, &text, skipped);
    outcome(true)
}

fn parse_hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// Columns of hexadecimal numbers.
fn parse_hex_columns(line: &str) -> Option<Vec<u64>> {
    line.split_ascii_whitespace().map(parse_hex).collect()
}

/// One line per CPU, hexadecimal: packets, dropped, times squeezed; since 5.14 column 13 is the CPU's number, before
/// that only the line number identifies it.
pub(in crate::sources) fn add_softnet(page: &mut Page, text: &str, skipped: &mut Skipped) {
    // A blank line is not a CPU, but another unreadable line may be.
    let (mut line_number, mut counted) = (0, true);
    for line in text.lines() {
        if is_blank(line, "net/softnet_stat", skipped) {
            continue;
        }
        let columns = parse_hex_columns(line).filter(|columns| columns.len() >= 3);
        // After an unreadable line, the line number is not the CPU's number.
        let cpu = columns.as_ref().and_then(|columns| columns.get(12).copied().or(counted.then_some(line_number)));
        let (Some(columns), Some(cpu)) = (columns, cpu.map(|cpu| cpu.to_string())) else {
            skipped.note("net/softnet_stat", line);
            counted = false;
            continue;
        };
        line_number += 1;
        for (desc, count) in [&SOFTNET_PROCESSED, &SOFTNET_DROPPED, &SOFTNET_SQUEEZED].into_iter().zip(columns) {
            page.add(desc, [&cpu], Value::Integer(count));
        }
    }
}

/// Records a blank line.
fn is_blank(line: &str, what: &'static str, skipped: &mut Skipped) -> bool {
    let blank = line.trim().is_empty();
    if blank {
        skipped.note(what, "a blank line");
    }
    blank
}

pub(in crate::sources) fn read_udp(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let mut found = false;
    for (name, ip) in [("net/udp", "v4"), ("net/udp6", "v6")] {
        let Some(text) = skipped.text(name, &roots.proc.join(name)) else { continue };
        found = true;
        add_udp(page, ip, &text, skipped);
    }
    outcome(found)
}

/// Sums of the column `tx_queue:rx_queue`, hexadecimal; none if a socket's line is unreadable, because a partial sum
/// would be wrong.
pub(in crate::sources) fn add_udp(page: &mut Page, ip: &str, text: &str, skipped: &mut Skipped) {
    let queues = |line: &str| {
        let (tx, rx) = line.split_ascii_whitespace().nth(4)?.split_once(':')?;
        Some((parse_hex(tx)?, parse_hex(rx)?))
    };
    let mut sums = Some((0u64, 0u64));
    for line in text.lines().filter(|line| !line.trim_start().starts_with("sl ")) {
        if is_blank(line, "net/udp", skipped) {
            continue;
        }
        let queues = skipped.or_note(queues(line), "net/udp", line);
        sums = sums.zip(queues).and_then(|(sum, (tx, rx))| Some((sum.0.checked_add(tx)?, sum.1.checked_add(rx)?)));
    }
    if let Some((tx, rx)) = sums {
        page.add(&UDP_QUEUES, ["tx", ip], Value::Integer(tx));
        page.add(&UDP_QUEUES, ["rx", ip], Value::Integer(rx));
    }
}

pub(in crate::sources) fn read_arp(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("net/arp", &roots.proc.join("net/arp")) else { return outcome(false) };
    add_arp(page, &text, skipped);
    outcome(true)
}

/// One line per entry, whose last word is the device. An unreadable line can belong to any device, so no count would be
/// right.
pub(in crate::sources) fn add_arp(page: &mut Page, text: &str, skipped: &mut Skipped) {
    let mut devices: Option<BTreeMap<&str, u64>> = Some(BTreeMap::new());
    for line in text.lines().filter(|line| !line.starts_with("IP address")) {
        if is_blank(line, "net/arp", skipped) {
            continue;
        }
        let device = skipped.or_note(line.split_ascii_whitespace().nth(5), "net/arp", line);
        devices = devices.zip(device).map(|(mut devices, device)| {
            *devices.entry(device).or_default() += 1;
            devices
        });
    }
    for (device, count) in devices.unwrap_or_default() {
        page.add(&ARP_ENTRIES, [device], Value::Integer(count));
    }
}

pub(in crate::sources) fn read_conntrack(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let limits = roots.proc.join("sys/net/netfilter");
    let mut found = false;
    for (file, desc) in [("nf_conntrack_count", &CONNTRACK_ENTRIES), ("nf_conntrack_max", &CONNTRACK_LIMIT)] {
        if let Some(number) = skipped.number(file, &limits.join(file)) {
            found = true;
            page.add(desc, [], Value::Integer(number));
        }
    }
    if let Some(text) = skipped.text("net/stat/nf_conntrack", &roots.proc.join("net/stat/nf_conntrack")) {
        add_conntrack(page, &text, skipped);
    }
    outcome(found)
}

/// The column names, then one line per CPU, hexadecimal. Summed over the CPUs; none if a line is unreadable.
pub(in crate::sources) fn add_conntrack(page: &mut Page, text: &str, skipped: &mut Skipped) {
    const FILE: &str = "net/stat/nf_conntrack";
    let (mut names, mut rows) = (Vec::new(), Some(Vec::new()));
    for line in text.lines() {
        if is_blank(line, FILE, skipped) {
            continue;
        }
        if names.is_empty() && line.starts_with("entries") {
            names = line.split_ascii_whitespace().collect();
            continue;
        }
        let row = parse_hex_columns(line).filter(|row| row.len() == names.len());
        let row = skipped.or_note(row, FILE, line);
        rows = rows.zip(row).map(|(mut rows, row)| {
            rows.push(row);
            rows
        });
    }
    let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return };
    for field in CONNTRACK {
        let Some(column) = names.iter().position(|name| *name == field.key) else { continue };
        let sum = rows.iter().filter_map(|row| row.get(column)).fold(0u64, |sum, count| sum.saturating_add(*count));
        page.add(&field.desc, [], Value::Integer(sum));
    }
}
