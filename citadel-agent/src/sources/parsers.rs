//! A table of the parsers of host data: bytes in, samples out. The fuzz targets and the tests feed them data that no
//! kernel writes.

use crate::host::skipped::Skipped;
use crate::host::{cgroup, mountinfo, net_tcp, pid};
use crate::logs::entry::Entry;
use crate::logs::events::{of_kernel, of_model};
use crate::logs::export;
use crate::metrics::catalogue::system::{PRESSURE_IO_STALLED, PRESSURE_IO_WAITING};
use crate::metrics::family::Page;
use crate::sources::storage::{disks, filesystems, raid, smart_report};
use crate::sources::system::{cpu, kernel, load, memory, network, protocols, sensors};

/// A parser.
pub struct Parser {
    /// What it parses.
    pub name: &'static str,
    /// Examples: a file of the hosts in `tests/fixtures`, or all files there with this prefix.
    pub seeds: &'static str,
    parse: Parse,
}

/// Unreadable parts are recorded.
enum Parse {
    /// For lines, or a value.
    Text(fn(&str, &mut Page, &mut Skipped)),
    /// For data without an encoding.
    Bytes(fn(&[u8], &mut Page, &mut Skipped)),
}

impl Parser {
    /// Parses the content of a file.
    pub fn parse(&self, bytes: &[u8], page: &mut Page, skipped: &mut Skipped) {
        match self.parse {
            Parse::Text(parse) => parse(&String::from_utf8_lossy(bytes), page, skipped),
            Parse::Bytes(parse) => parse(bytes, page, skipped),
        }
    }
}

/// All parsers.
pub const PARSERS: &[Parser] = &[
    text("stat-cpu", "proc/stat", |text, page, skipped| {
        cpu::add_stat(page, &mut cpu::Highest::default(), text, skipped);
    }),
    text("stat", "proc/stat", |text, page, skipped| load::add_stat(page, text, skipped)),
    text("cpu-isolated", "parsers/cpu-isolated", |text, page, skipped| cpu::add_isolated(page, text, skipped)),
    text("meminfo", "proc/meminfo", |text, page, skipped| memory::add_meminfo(page, text, skipped)),
    text("numa-meminfo", "sys/devices/system/node/node0/meminfo", |text, page, skipped| {
        memory::add_numa_meminfo(page, "0", text, skipped);
    }),
    text("numastat", "sys/devices/system/node/node0/numastat", |text, page, skipped| {
        memory::add_numastat(page, "0", text, skipped);
    }),
    text("vmstat", "proc/vmstat", |text, page, skipped| memory::add_vmstat(page, text, skipped)),
    text("loadavg", "proc/loadavg", |text, page, skipped| load::add_averages(page, text, skipped)),
    text("pressure", "proc/pressure/io", |text, page, skipped| {
        load::add_pressure(page, &PRESSURE_IO_WAITING, Some(&PRESSURE_IO_STALLED), text, skipped);
    }),
    text("schedstat", "proc/schedstat", |text, page, skipped| load::add_schedstat(page, text, skipped)),
    text("net-dev", "proc/net/dev", |text, page, skipped| _ = network::add_devices(page, text, skipped)),
    text("snmp", "proc/net/snmp", |text, page, skipped| protocols::add_netstat(page, text, skipped)),
    text("netstat", "proc/net/netstat", |text, page, skipped| protocols::add_netstat(page, text, skipped)),
    text("snmp6", "proc/net/snmp6", |text, page, skipped| protocols::add_snmp6(page, text, skipped)),
    text("sockstat", "proc/net/sockstat", |text, page, skipped| protocols::add_sockstat(page, text, 4096, skipped)),
    text("softnet", "proc/net/softnet_stat", |text, page, skipped| protocols::add_softnet(page, text, skipped)),
    text("udp", "proc/net/udp", |text, page, skipped| protocols::add_udp(page, "v4", text, skipped)),
    text("arp", "proc/net/arp", |text, page, skipped| protocols::add_arp(page, text, skipped)),
    text("conntrack", "proc/net/stat/nf_conntrack", |text, page, skipped| {
        protocols::add_conntrack(page, text, skipped);
    }),
    text("file-nr", "proc/sys/fs/file-nr", |text, page, skipped| kernel::add_file_nr(page, text, skipped)),
    text("os-release", "etc/os-release", |text, page, skipped| kernel::add_os_release(page, text, skipped)),
    text("hwmon", "parsers/hwmon", add_hwmon),
    text("diskstats", "proc/diskstats", |text, page, skipped| _ = disks::add_stats(page, text, skipped)),
    text("udev", "run/udev/data/", |text, page, skipped| {
        let mut none = Page::default();
        let disks = disks::add_stats(&mut none, "8 0 sda 1 2 3 4 5 6 7 8 9 10 11", skipped);
        disks.iter().for_each(|disk| disks::add_info(page, disk, text, skipped));
    }),
    text("mdstat", "parsers/mdstat", |text, page, skipped| raid::add_arrays(page, text, skipped)),
    bytes("mounts", "parsers/mounts", |bytes, _, skipped| _ = filesystems::parse(bytes, skipped)),
    bytes("smartctl-scan", "smartctl/scan.json", |bytes, _, skipped| _ = smart_report::devices(bytes, skipped)),
    bytes("smartctl", "smartctl/", |bytes, page, skipped| {
        if let Ok(report) = smart_report::Report::parse(bytes, skipped) {
            report.add(page, "sda");
        }
    }),
    bytes("pid-stat", "parsers/pid-stat", |bytes, _, _| _ = pid::parse_stat(bytes)),
    bytes("pid-status", "parsers/pid-status", |bytes, _, _| _ = pid::parse_resident(bytes)),
    bytes("smaps-rollup", "parsers/smaps-rollup", |bytes, _, _| _ = pid::parse_pss(bytes)),
    bytes("cmdline", "parsers/cmdline", |bytes, _, _| _ = pid::parse_command_line(bytes)),
    bytes("mountinfo", "parsers/mountinfo", |bytes, _, _| _ = mountinfo::parse_cgroup2_mount(bytes)),
    text("cgroup", "parsers/cgroup", |text, _, _| _ = cgroup::parse_cgroup(text)),
    text("cpu-stat", "parsers/cpu-stat", |text, _, _| _ = cgroup::parse_cpu_time(text)),
    text("net-tcp", "parsers/net-tcp", |text, _, skipped| _ = net_tcp::parse_listeners(text, skipped).count()),
    text("kmsg", "parsers/kmsg", |text, _, _| _ = crate::gpu::xid::parse_record(text)),
    bytes("journal-export", "parsers/journal-export", |mut bytes, _, _| {
        let mut parser = export::Parser::default();
        while let Ok(Some(fields)) = parser.next(&mut bytes) {
            if let Some(entry) = Entry::of(fields) {
                _ = (entry.origin(), entry.severity(), entry.number(), of_kernel(&entry.message()));
                _ = of_model(&entry.message(), &[]).count();
            }
        }
    }),
];

const fn text(name: &'static str, seeds: &'static str, parse: fn(&str, &mut Page, &mut Skipped)) -> Parser {
    Parser { name, seeds, parse: Parse::Text(parse) }
}

const fn bytes(name: &'static str, seeds: &'static str, parse: fn(&[u8], &mut Page, &mut Skipped)) -> Parser {
    Parser { name, seeds, parse: Parse::Bytes(parse) }
}

/// Lines such as `temp1_input 42000`: a file of a chip, and its content.
fn add_hwmon(text: &str, page: &mut Page, skipped: &mut Skipped) {
    let mut sensors = sensors::Sensors::new();
    for (file, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some((sensor, property)) = sensors::sensor_of(file) {
            sensors.entry(sensor).or_default().insert(property.to_owned(), value.to_owned());
        }
    }
    for (sensor, properties) in &sensors {
        sensors::add_sensor(page, "chip", sensor, properties, skipped);
    }
}
