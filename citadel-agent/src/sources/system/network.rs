//! Network devices (`Documentation/networking/statistics.rst`, `Documentation/ABI/testing/sysfs-class-net`).

use super::{add_signed, outcome};
use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::field;
use crate::metrics::catalogue::system::{
    BONDING_ACTIVE, BONDING_SLAVES, NETCLASS, NETCLASS_COUNTERS, NETDEV, NETWORK_INFO, NETWORK_SPEED, NETWORK_UP,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

/// Columns of `/proc/net/dev`.
const COLUMNS: usize = 16;

pub(in crate::sources) fn read_devices(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("net/dev", &roots.proc.join("net/dev")) else { return outcome(false) };
    for device in add_devices(page, &text, skipped) {
        // The only counter that is not in the file.
        let path = roots.sys.join("class/net").join(device).join("statistics/rx_nohandler");
        if let (Some(desc), Some(count)) = (field(NETDEV, "receive_nohandler"), skipped.number("rx_nohandler", &path)) {
            page.add(desc, [device], Value::Integer(count));
        }
    }
    outcome(true)
}

/// Adds the devices' counters, and returns their names.
pub(in crate::sources) fn add_devices<'a>(page: &mut Page, text: &'a str, skipped: &mut Skipped) -> Vec<&'a str> {
    let mut devices = Vec::new();
    // Two header lines, in columns.
    for line in text.lines().filter(|line| !line.contains('|')) {
        let Some((device, counts)) = skipped.or_note(parse_device(line), "net/dev", line) else { continue };
        for (field, count) in NETDEV.iter().zip(counts) {
            page.add(&field.desc, [device], Value::Integer(count));
        }
        devices.push(device);
    }
    devices
}

/// A line such as `  eth0: 1 2 3 ...`.
fn parse_device(line: &str) -> Option<(&str, [u64; COLUMNS])> {
    let (device, numbers) = line.rsplit_once(':')?;
    let mut counts = [0; COLUMNS];
    let mut numbers = numbers.split_ascii_whitespace();
    for count in &mut counts {
        *count = numbers.next()?.parse().ok()?;
    }
    // It becomes part of a path.
    let device = device.trim();
    let usable = !device.is_empty() && !device.contains('/') && device != "..";
    (usable && numbers.next().is_none()).then_some((device, counts))
}

/// Attributes of devices. Not read by the scrape directly, because for some of them the kernel takes its networking
/// lock, which a driver can hold for a long time.
pub(in crate::sources) fn read_attributes(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let class = roots.sys.join("class/net");
    let Some(devices) = skipped.list("class/net", &class) else { return outcome(false) };
    for device in &devices {
        let path = class.join(device);
        // `bonding_masters` is a file in this directory.
        if !path.is_dir() {
            continue;
        }
        let text = |name: &str| read_value(&path.join(name)).unwrap_or_default();
        let operstate = text("operstate");
        // Unreadable does not mean down.
        if !operstate.is_empty() {
            page.add(&NETWORK_UP, [device], Value::Integer(u64::from(operstate == "up")));
        }
        let info =
            [device.as_str(), &text("address"), &text("broadcast"), &text("duplex"), &operstate, &text("ifalias")];
        page.add(&NETWORK_INFO, info, Value::Integer(1));
        for field in NETCLASS.iter().chain(NETCLASS_COUNTERS) {
            if let Some(number) = skipped.value(field.key, &path.join(field.key), parse_number) {
                add_signed(page, &field.desc, [device], number);
            }
        }
        // Megabits per second. A device without a link reports -1, which node_exporter exports unchanged.
        let bytes = |megabits: i64| megabits.checked_mul(1_000_000 / 8);
        if let Some(speed) = skipped.value("speed", &path.join("speed"), |text| bytes(text.parse().ok()?)) {
            add_signed(page, &NETWORK_SPEED, [device], speed);
        }
    }
    outcome(!devices.is_empty())
}

/// Decimal, or hexadecimal with `0x`.
fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

pub(in crate::sources) fn read_bonds(roots: &Roots, page: &mut Page) -> Reading {
    let class = roots.sys.join("class/net");
    let Some(masters) = read_value(&class.join("bonding_masters")) else { return outcome(false) };
    for master in masters.split_ascii_whitespace().filter(|name| !name.contains('/')) {
        let bonding = class.join(master).join("bonding");
        let slaves = read_value(&bonding.join("slaves")).unwrap_or_default();
        let (mut count, mut active) = (0, 0);
        for slave in slaves.split_ascii_whitespace().filter(|name| !name.contains('/')) {
            // Kernels before 2.6.39 name the link at the slave differently; none of them can run the agent.
            let state = read_value(&class.join(master).join(format!("lower_{slave}/bonding_slave/mii_status")))
                .or_else(|| read_value(&class.join(slave).join("bonding_slave/mii_status")));
            count += 1;
            active += u64::from(state.as_deref() == Some("up"));
        }
        page.add(&BONDING_SLAVES, [master], Value::Integer(count));
        page.add(&BONDING_ACTIVE, [master], Value::Integer(active));
    }
    outcome(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_lines() {
        let numbers = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let line = format!("  eth0.1:{numbers}");
        let (device, counts) = parse_device(&line).unwrap();
        assert_eq!((device, counts[0], counts[15]), ("eth0.1", 1, 16));
        for line in ["", " face |bytes    packets", "eth0: 1 2", "../x: 1", &format!("../x: {numbers}")] {
            assert_eq!(parse_device(line), None, "{line}");
        }
    }

    #[test]
    fn attributes_are_decimal_or_hexadecimal() {
        assert_eq!(
            [parse_number("0x1003"), parse_number("1500"), parse_number("-1")],
            [Some(4099), Some(1500), Some(-1)]
        );
        assert_eq!([parse_number("0x"), parse_number("up"), parse_number("")], [None; 3]);
    }
}
