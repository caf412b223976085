//! Disks: `/proc/diskstats` (`Documentation/admin-guide/iostats.rst`), udev's database, and NVMe controllers.

use std::collections::HashMap;

use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::storage::{DISK_INFO, DISK_IO_NOW, DISKSTATS, NVME_INFO};
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

/// Columns after the name: 11, with discards 15 (4.18), with flushes 17 (5.5).
const COLUMNS: usize = 17;

/// The only column that is a gauge.
const IO_NOW: usize = 8;

/// Columns in milliseconds, exported as seconds.
const MILLISECONDS: [usize; 6] = [3, 7, 9, 10, 14, 16];

/// Columns in sectors, exported as bytes; discarded sectors are exported as sectors.
const SECTORS: [usize; 2] = [2, 6];

/// The kernel's sector size, regardless of the disk's.
const SECTOR_BYTES: u64 = 512;

pub(in crate::sources) fn read_stats(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("diskstats", &roots.proc.join("diskstats")) else { return Ok(Outcome::Absent) };
    for disk in add_stats(page, &text, skipped) {
        // Not every host has udev.
        let udev = skipped.text("udev", &roots.udev.join(format!("b{}:{}", disk.major, disk.minor)));
        add_info(page, &disk, &udev.unwrap_or_default(), skipped);
    }
    Ok(Outcome::Read)
}

/// Adds the disks' counters, and returns the disks.
pub(in crate::sources) fn add_stats<'a>(page: &mut Page, text: &'a str, skipped: &mut Skipped) -> Vec<Disk<'a>> {
    let disks = text.lines().filter_map(|line| skipped.or_note(parse(line), "diskstats", line));
    let disks: Vec<Disk<'_>> = disks.filter(|disk| !is_ignored(disk.name)).collect();
    disks.iter().for_each(|disk| add(page, disk));
    disks
}

/// Adds the properties of a disk in udev's database, if any.
pub(in crate::sources) fn add_info(page: &mut Page, disk: &Disk<'_>, udev: &str, skipped: &mut Skipped) {
    let udev = parse_udev(udev, skipped);
    let property = |name: &str| udev.get(name).copied().unwrap_or_default();
    let serial = match property("SCSI_IDENT_SERIAL") {
        "" => property("ID_SERIAL_SHORT"),
        serial => serial,
    };
    let (path, wwn, model) = (property("ID_PATH"), property("ID_WWN"), property("ID_MODEL"));
    let labels = [disk.name, disk.major, disk.minor, path, wwn, model, serial, property("ID_REVISION")];
    page.add(&DISK_INFO, labels, Value::Integer(1));
}

/// A line of the file.
#[derive(PartialEq, Debug)]
pub(in crate::sources) struct Disk<'a> {
    pub(in crate::sources) major: &'a str,
    pub(in crate::sources) minor: &'a str,
    pub(in crate::sources) name: &'a str,
    columns: Vec<u64>,
}

fn parse(line: &str) -> Option<Disk<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor, name) = (words.next()?, words.next()?, words.next()?);
    let columns: Option<Vec<u64>> = words.take(COLUMNS).map(|number| number.parse().ok()).collect();
    let columns = columns.filter(|columns| columns.len() >= 11)?;
    // The numbers become part of a path.
    [major, minor].iter().all(|number| number.parse::<u32>().is_ok()).then_some(Disk { major, minor, name, columns })
}

/// Partitions and pseudo devices, which node_exporter ignores by default.
fn is_ignored(name: &str) -> bool {
    let device = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if device.len() == name.len() {
        return false;
    }
    let is_scsi =
        |prefix: &str| device.strip_prefix(prefix).is_some_and(|rest| matches!(rest.as_bytes(), [b'a'..=b'z']));
    let is_nvme_partition = || {
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let numbers = device.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')?.split_once('n'));
        numbers.is_some_and(|(controller, namespace)| digits(controller) && digits(namespace))
    };
    matches!(device, "ram" | "loop" | "fd") || ["hd", "sd", "vd", "xvd"].into_iter().any(is_scsi) || is_nvme_partition()
}

fn add(page: &mut Page, disk: &Disk<'_>) {
    let mut counters = DISKSTATS.iter();
    for (column, &count) in disk.columns.iter().enumerate() {
        if column == IO_NOW {
            page.add(&DISK_IO_NOW, [disk.name], Value::Integer(count));
            continue;
        }
        let Some(field) = counters.next() else { break };
        let value = if MILLISECONDS.contains(&column) {
            Value::Float(count as f64 / 1e3)
        } else if SECTORS.contains(&column) {
            Value::Integer(count.saturating_mul(SECTOR_BYTES))
        } else {
            Value::Integer(count)
        };
        page.add(&field.desc, [disk.name], value);
    }
}

/// Properties of a device in udev's database: lines such as `E:ID_MODEL=...`, among others with another prefix.
fn parse_udev<'a>(text: &'a str, skipped: &mut Skipped) -> HashMap<&'a str, &'a str> {
    let mut properties = HashMap::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("E", property)) => properties.extend(skipped.or_note(property.split_once('='), "udev", line)),
            Some((key, _)) if key.len() == 1 => {}
            _ => skipped.note("udev", line),
        }
    }
    properties
}

pub(in crate::sources) fn read_nvme(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let class = roots.sys.join("class/nvme");
    let Some(devices) = skipped.list("class/nvme", &class) else { return Ok(Outcome::Absent) };
    for device in &devices {
        let text = |name: &str| read_value(&class.join(device).join(name)).unwrap_or_default();
        let labels = [device, &text("firmware_rev"), &text("model"), &text("serial"), &text("state")];
        page.add(&NVME_INFO, labels.map(String::as_str), Value::Integer(1));
    }
    Ok(if devices.is_empty() { Outcome::Absent } else { Outcome::Read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_ignored_and_disks_are_not() {
        for name in ["sda1", "vdb12", "xvda1", "hda3", "nvme0n1p1", "nvme10n2p15", "loop0", "ram15", "fd0"] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["sda", "sdaa1", "nvme0n1", "nvme0c0n1", "md0", "dm-1", "zram0", "mmcblk0p1", "np1", "nvmen1p1", ""]
        {
            assert!(!is_ignored(name), "{name}");
        }
    }

    #[test]
    fn lines_of_all_kernels_and_garbage() {
        let line = |columns: usize| format!(" 259 0 nvme0n1 {}", ["7"; 20][..columns].join(" "));
        for (columns, parsed) in [(11, 11), (15, 15), (17, 17), (20, 17)] {
            assert_eq!(parse(&line(columns)).unwrap().columns.len(), parsed);
        }
        for line in ["", " 8 0 sda", &line(10), " ../x 0 sda 1 1 1 1 1 1 1 1 1 1 1", " 8 0 sda 1 1 1 1 1 x 1 1 1 1 1"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
