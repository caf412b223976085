//! Network protocols and what queues before them: `/proc/net/{snmp,netstat,snmp6,sockstat,sockstat6,softnet_stat,udp,arp}`
//! and connection tracking (`Documentation/networking/snmp_counter.rst`).

use std::collections::BTreeMap;

use super::{add_signed, outcome};
use crate::host::Roots;
use crate::host::files::{ReadError, read_number, read_text};
use crate::host::process::page_size;
use crate::metrics::catalogue::system::{
    ARP_ENTRIES, CONNTRACK, CONNTRACK_ENTRIES, CONNTRACK_LIMIT, NETSTAT, SOCKSTAT, SOCKSTAT_BYTES, SOFTNET_DROPPED,
    SOFTNET_PROCESSED, SOFTNET_SQUEEZED, UDP_QUEUES,
};
use crate::metrics::catalogue::{Desc, Field};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_netstat(roots: &Roots, page: &mut Page) -> Reading {
    let mut found = false;
    for name in ["net/snmp", "net/netstat"] {
        let Some(text) = read_text(&roots.proc.join(name))? else { continue };
        found = true;
        add_netstat(page, &text);
    }
    // Absent where IPv6 is switched off.
    if let Some(text) = read_text(&roots.proc.join("net/snmp6"))? {
        found = true;
        add_snmp6(page, &text);
    }
    outcome(found)
}

/// Finds `PROTOCOL_NAME`, of which only a few of the kernel's hundreds are exported.
fn part_of(table: &'static [Field], protocol: &str, name: &str) -> Option<&'static Desc> {
    let is_it = |field: &&Field| field.key.strip_prefix(protocol).and_then(|rest| rest.strip_prefix('_')) == Some(name);
    table.iter().find(is_it).map(|field| &field.desc)
}

/// Pairs of lines: the names of a protocol's fields, then their values.
pub(super) fn add_netstat(page: &mut Page, text: &str) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((protocol, names)), Some((same, values))) = (names.split_once(": "), values.split_once(": ")) else {
            continue;
        };
        if protocol != same {
            continue;
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            if let (Some(desc), Ok(value)) = (part_of(NETSTAT, protocol, name), value.parse()) {
                add_signed(page, desc, [], value);
            }
        }
    }
}

/// Lines as `Ip6InOctets  123`: the protocol is everything up to the 6.
pub(super) fn add_snmp6(page: &mut Page, text: &str) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) else { continue };
        let Some(end) = name.find('6') else { continue };
        let (protocol, name) = name.split_at(end + 1);
        if let Some(desc) = part_of(NETSTAT, protocol, name) {
            page.add(desc, [], Value::Integer(value));
        }
    }
}

pub(in crate::sources) fn read_sockstat(roots: &Roots, page: &mut Page) -> Reading {
    let mut found = false;
    for name in ["net/sockstat", "net/sockstat6"] {
        let Some(text) = read_text(&roots.proc.join(name))? else { continue };
        found = true;
        add_sockstat(page, &text, page_size());
    }
    outcome(found)
}

/// Lines as `TCP: inuse 4 orphan 0`.
pub(super) fn add_sockstat(page: &mut Page, text: &str, page_size: u64) {
    for line in text.lines() {
        let Some((protocol, rest)) = line.split_once(": ") else { continue };
        let mut words = rest.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let Ok(value) = value.parse::<u64>() else { continue };
            if let Some(desc) = part_of(SOCKSTAT, protocol, name) {
                page.add(desc, [], Value::Integer(value));
            }
            if let (Some(desc), Some(bytes)) = (part_of(SOCKSTAT_BYTES, protocol, name), value.checked_mul(page_size)) {
                page.add(desc, [], Value::Integer(bytes));
            }
        }
    }
}

pub(in crate::sources) fn read_softnet(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("net/softnet_stat"))? else { return outcome(false) };
    add_softnet(page, &text);
    outcome(true)
}

/// A line a CPU, hexadecimal: packets, dropped, times squeezed; since 5.14 the CPU's number is column 13, before that the
/// lines are all there is to count.
pub(super) fn add_softnet(page: &mut Page, text: &str) {
    for (line_number, line) in text.lines().enumerate() {
        let columns: Option<Vec<u64>> =
            line.split_ascii_whitespace().map(|hex| u64::from_str_radix(hex, 16).ok()).collect();
        let Some([processed, dropped, squeezed, rest @ ..]) = columns.as_deref() else { continue };
        let cpu = rest.get(9).copied().unwrap_or(line_number as u64).to_string();
        page.add(&SOFTNET_PROCESSED, [&cpu], Value::Integer(*processed));
        page.add(&SOFTNET_DROPPED, [&cpu], Value::Integer(*dropped));
        page.add(&SOFTNET_SQUEEZED, [&cpu], Value::Integer(*squeezed));
    }
}

pub(in crate::sources) fn read_udp(roots: &Roots, page: &mut Page) -> Reading {
    let mut found = false;
    for (name, ip) in [("net/udp", "v4"), ("net/udp6", "v6")] {
        let path = roots.proc.join(name);
        let Some(text) = read_text(&path)? else { continue };
        found = true;
        let (tx, rx) = parse_queues(&text).ok_or_else(|| ReadError::malformed(&path, "a socket has no queues"))?;
        page.add(&UDP_QUEUES, ["tx", ip], Value::Integer(tx));
        page.add(&UDP_QUEUES, ["rx", ip], Value::Integer(rx));
    }
    outcome(found)
}

/// Sums of the column `tx_queue:rx_queue`, hexadecimal.
pub(super) fn parse_queues(text: &str) -> Option<(u64, u64)> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (mut tx_sum, mut rx_sum) = (0u64, 0u64);
    for line in text.lines().skip(1) {
        let (tx, rx) = line.split_ascii_whitespace().nth(4)?.split_once(':')?;
        tx_sum = tx_sum.checked_add(hex(tx)?)?;
        rx_sum = rx_sum.checked_add(hex(rx)?)?;
    }
    Some((tx_sum, rx_sum))
}

pub(in crate::sources) fn read_arp(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("net/arp"))? else { return outcome(false) };
    let mut devices: BTreeMap<&str, u64> = BTreeMap::new();
    for device in text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(5)) {
        *devices.entry(device).or_default() += 1;
    }
    for (device, count) in devices {
        page.add(&ARP_ENTRIES, [device], Value::Integer(count));
    }
    outcome(true)
}

pub(in crate::sources) fn read_conntrack(roots: &Roots, page: &mut Page) -> Reading {
    let limits = roots.proc.join("sys/net/netfilter");
    let (Some(count), Some(max)) =
        (read_number(&limits.join("nf_conntrack_count")), read_number(&limits.join("nf_conntrack_max")))
    else {
        return outcome(false);
    };
    page.add(&CONNTRACK_ENTRIES, [], Value::Integer(count));
    page.add(&CONNTRACK_LIMIT, [], Value::Integer(max));
    if let Some(text) = read_text(&roots.proc.join("net/stat/nf_conntrack"))? {
        add_conntrack(page, &text);
    }
    outcome(true)
}

/// The names of the columns, then a line a CPU, hexadecimal.
pub(super) fn add_conntrack(page: &mut Page, text: &str) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let rows: Vec<Vec<u64>> = lines
        .filter_map(|line| line.split_ascii_whitespace().map(|hex| u64::from_str_radix(hex, 16).ok()).collect())
        .collect();
    for field in CONNTRACK {
        let Some(column) = names.iter().position(|name| *name == field.key) else { continue };
        let sum = rows.iter().filter_map(|row| row.get(column)).fold(0u64, |sum, count| sum.saturating_add(*count));
        page.add(&field.desc, [], Value::Integer(sum));
    }
}
