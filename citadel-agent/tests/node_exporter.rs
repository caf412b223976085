//! The host's metrics against the real node_exporter, on this host at the same time: names, labels, types, values.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::host::Roots;
use citadel_agent::metrics::catalogue::{self, Desc, Kind, Section, omitted::is_omitted};
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::{self, CarryOver, Health, Origin, background};
use support::client;
use support::origin::{Nothing, text};
use support::text::{Labels, Parsed, parse};

/// What node_exporter is told so that it looks at what the agent looks at: Debian's defaults leave out the loopback device, and
/// mounts where models often are.
const ARGUMENTS: [&str; 4] = [
    "--collector.meminfo_numa",
    "--collector.netdev.device-exclude=^$",
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
    "--log.level=error",
];

/// Gauges that move by themselves from one moment to the next, with how far, in their own unit, node_exporter's reading may lie
/// outside of what the agent reads just before and just after.
const RESTLESS: &[(&str, f64)] = &[
    ("node_procs_running", 64.0),
    ("node_procs_blocked", 64.0),
    ("node_disk_io_now", 1024.0),
    ("node_sockstat_", 4096.0),
    ("node_netstat_Tcp_CurrEstab", 256.0),
    ("node_filefd_allocated", 4096.0),
    ("node_udp_queues", 1e6),
    ("node_arp_entries", 8.0),
    ("node_entropy_available_bits", 4096.0),
    ("node_memory_", 5e8),
    ("node_filesystem_", 5e8),
    ("node_load", 4.0),
    ("node_timex_", 1.0),
    ("node_time_seconds", 0.0),
    ("node_hwmon_", 20.0),
    ("node_thermal_zone_temp", 20.0),
    ("node_cpu_", 5e9),
];

/// Of these, what stands still all the same.
const STEADY: &[&str] = &[
    "node_memory_MemTotal_bytes",
    "node_memory_SwapTotal_bytes",
    "node_memory_CommitLimit_bytes",
    "node_memory_VmallocTotal_bytes",
    "node_memory_HugePages_",
    "node_memory_Hugepagesize_bytes",
    "node_memory_numa_MemTotal",
    "node_filesystem_size_bytes",
    "node_filesystem_readonly",
    "node_filesystem_device_error",
    "node_timex_tick_seconds",
    "node_timex_sync_status",
    "node_cpu_frequency_m",
    "node_cpu_scaling_frequency_m",
    "node_cpu_scaling_governor",
];

/// node_exporter on a port of its own.
struct NodeExporter {
    child: Child,
    port: u16,
}

impl NodeExporter {
    fn start() -> Self {
        // Taken and given back: node_exporter cannot be handed a listener.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus-node-exporter")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(ARGUMENTS)
            .stderr(Stdio::null())
            .spawn()
            .expect("node_exporter is needed: apt-get install prometheus-node-exporter (cargo xtask test does it)");
        let exporter = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "node_exporter does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        exporter
    }

    /// Its page, less what its libraries add about itself.
    fn page(&self) -> Parsed {
        let mut stream = client::connect((Ipv4Addr::LOCALHOST, self.port).into());
        // In HTTP/1.0 an answer is in one piece.
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let answer = client::parse(&bytes);
        let own = |line: &&str| {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            name.starts_with("node_")
        };
        parse(&answer.text().lines().filter(own).map(|line| format!("{line}\n")).collect::<String>())
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The agent's sources, as a scrape reads them.
struct Agent {
    runtime: tokio::runtime::Runtime,
    context: background::Context,
    readers: background::Readers,
    carry_over: CarryOver,
    health: Health,
}

impl Agent {
    fn new() -> Self {
        let config = Arc::new(Config::default());
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            context: background::Context::new(config, Roots::default()),
            readers: background::Readers::default(),
            carry_over: CarryOver::default(),
            health: Health::default(),
        }
    }

    fn page(&mut self) -> Parsed {
        self.runtime.block_on(async {
            self.readers.refresh(None, &self.context, Duration::from_secs(30)).await;
        });
        let mut nothing = Nothing::default();
        let mut origin = Origin {
            config: &self.context.config,
            roots: &self.context.roots,
            readers: &self.readers,
            carry_over: &mut self.carry_over,
            ..nothing.origin()
        };
        let page = sources::collect(None, &mut origin, &mut self.health);
        parse(&text(page, Format::Text))
    }
}

/// The entries of the catalogue that are node_exporter's.
fn claimed() -> BTreeMap<&'static str, &'static Desc> {
    let host = |desc: &&Desc| [Section::System, Section::Storage].contains(&desc.section);
    catalogue::all().filter(host).filter(|desc| desc.name.starts_with("node_")).map(|desc| (desc.name, desc)).collect()
}

fn series(page: &Parsed, name: &str) -> BTreeMap<Labels, f64> {
    let own = page.samples.iter().filter(|((family, _), _)| family == name);
    own.map(|((_, labels), value)| (labels.clone(), *value)).collect()
}

#[test]
fn every_family_is_node_exporters() {
    let exporter = NodeExporter::start();
    let mut agent = Agent::new();
    // Both keep what they read at the first time.
    agent.page();
    exporter.page();
    let (before, theirs, after) = (agent.page(), exporter.page(), agent.page());

    let claimed = claimed();
    let mut wrong = Vec::new();
    for (name, kind) in &theirs.kind {
        match claimed.get(name.as_str()) {
            Some(_) if is_omitted(name) => wrong.push(format!("{name}: is exported, and listed as left out")),
            Some(_) if !after.kind.contains_key(name) => {
                wrong.push(format!("{name}: node_exporter has it, the agent has not"));
            }
            Some(_) if after.kind[name] != *kind => {
                wrong.push(format!("{name}: node_exporter says {kind}, the agent {}", after.kind[name]));
            }
            Some(desc) => compare(desc, &before, &theirs, &after, &mut wrong),
            None if is_omitted(name) => {}
            None => wrong.push(format!("{name}: neither exported nor listed as left out")),
        }
    }
    for name in after.kind.keys().filter(|name| name.starts_with("node_")) {
        if !theirs.kind.contains_key(name) {
            wrong.push(format!("{name}: the agent has it, node_exporter has not"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let compared = theirs.kind.keys().filter(|name| claimed.contains_key(name.as_str())).count();
    assert!(compared > 150, "only {compared} families were compared");
}

/// Holds one family's series against what the agent read just before and just after.
fn compare(desc: &Desc, before: &Parsed, theirs: &Parsed, after: &Parsed, wrong: &mut Vec<String>) {
    let name = desc.name;
    let (before, theirs, after) = (series(before, name), series(theirs, name), series(after, name));
    // A device may come or go at any time, but not at this one: series that both of the agent's readings have must be there.
    let lasting: BTreeSet<_> = before.keys().filter(|labels| after.contains_key(*labels)).collect();
    for labels in lasting.iter().filter(|labels| !theirs.contains_key(**labels)) {
        wrong.push(format!("{name}{labels:?}: the agent has it, node_exporter has not"));
    }
    for (labels, &value) in &theirs {
        let (Some(&first), Some(&last)) = (before.get(labels), after.get(labels)) else {
            wrong.push(format!("{name}{labels:?}: node_exporter has it, the agent has not"));
            continue;
        };
        let slack = match desc.kind {
            // A counter's value lies between those of before and after, whatever happens.
            Kind::Counter => 0.0,
            _ if STEADY.iter().any(|prefix| name.starts_with(prefix)) => 0.0,
            _ => RESTLESS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(0.0, |(_, slack)| *slack),
        };
        // What both read as a decimal fraction may differ in the last digit of a float.
        let rounding = 1e-9 * value.abs();
        let (low, high) = (first.min(last) - slack - rounding, first.max(last) + slack + rounding);
        if !(low..=high).contains(&value) {
            wrong.push(format!(
                "{name}{labels:?}: node_exporter says {value}, the agent {first} before and {last} after"
            ));
        }
    }
}

#[test]
fn nothing_is_both_exported_and_left_out() {
    for desc in catalogue::all() {
        assert!(!is_omitted(desc.name), "{}", desc.name);
    }
}
