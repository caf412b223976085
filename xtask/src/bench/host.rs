//! Host metrics compared with node_exporter on the same host with the same families: CPU per scrape, memory.

use std::fmt::Write as _;
use std::fs;
use std::mem::MaybeUninit;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::agent::{bytes, free_port};
use super::stats::Spread;
use super::{Stage, document, go_on, report};
use crate::group::{self, Group};
use crate::workspace::Workspace;
use crate::{build, scrape};

/// Arguments of `cargo xtask bench host`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rounds; both are scraped in each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Scrapes of each per round.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
    /// Print the figures only; docs/overhead.md stays as it is.
    #[arg(long)]
    quick: bool,
}

/// The section of docs/overhead.md that this benchmark writes.
const HEADING: &str = "## The host, compared with node_exporter";

/// The collectors whose families the agent has too.
const COLLECTORS: [&str; 31] = [
    "arp",
    "bonding",
    "conntrack",
    "cpu",
    "cpufreq",
    "diskstats",
    "edac",
    "entropy",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "mdadm",
    "meminfo",
    "meminfo_numa",
    "netclass",
    "netdev",
    "netstat",
    "nvme",
    "os",
    "pressure",
    "schedstat",
    "sockstat",
    "softnet",
    "stat",
    "thermal_zone",
    "time",
    "timex",
    "udp_queues",
    "uname",
    "vmstat",
];

/// The agent's pages with these families.
const PAGES: [&str; 2] = ["/metrics/system", "/metrics/storage"];

/// Runs `cargo xtask bench host`.
pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let rounds = if args.quick { 2 } else { args.rounds };
    let subjects = [agent(stage)?, node_exporter(stage)?];
    for subject in &subjects {
        // Both read some things only once, at the start.
        subject.scrape(20)?;
    }
    let mut costs: [Vec<f64>; 2] = Default::default();
    for round in 0..rounds {
        // The order alternates, so that neither always goes first.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            go_on()?;
            costs[index].push(subjects[index].scrape(args.scrapes)?);
        }
    }
    let memory = [subjects[0].memory()?, subjects[1].memory()?];
    let series = [subjects[0].series()?, subjects[1].series()?];
    let section = section(&costs, memory, series, args.scrapes)?;
    println!("{section}");
    if !args.quick {
        document::write_section(workspace, &section)?;
    }
    Ok(())
}

/// A process that is scraped.
struct Subject {
    group: Group,
    port: u16,
    pages: &'static [&'static str],
}

fn agent(stage: &Stage) -> Result<Subject> {
    let (port, health) = (free_port()?, free_port()?);
    // Without what node_exporter has no equivalent of: eBPF programs and models.
    let text = format!(
        "local_collection:\n  listen_address: \"127.0.0.1\"\n  metrics_port: {port}\n  health_check_port: {health}\n  \
         log_level: WARN\nmodel_monitoring:\n  ports: {{}}\n  discover: none\n  health_endpoints: []\nebpf:\n  net: false\n\
         services:\n  units: []\nstorage:\n  smartctl: /nonexistent\n"
    );
    let config = stage.folder.join("host.yaml");
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = build::agent_command(&stage.agent, Some(&config))?;
    let mut group = Group::spawn("the agent", &mut command, group::log(&stage.folder, "host-agent"), false)?;
    group.wait_until(Duration::from_secs(20), || scrape::get(health, "/ready").is_ok())?;
    Ok(Subject { group, port, pages: &PAGES })
}

fn node_exporter(stage: &Stage) -> Result<Subject> {
    let port = free_port()?;
    let mut command = Command::new("prometheus-node-exporter");
    command.args(["--collector.disable-defaults", "--web.disable-exporter-metrics", "--log.level=error"]);
    command.args([
        "--collector.netdev.device-exclude=^$",
        "--collector.filesystem.mount-points-exclude=^/(dev|proc|sys)($|/)",
    ]);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.args(COLLECTORS.map(|collector| format!("--collector.{collector}")));
    let log = group::log(&stage.folder, "node_exporter");
    let mut group = Group::spawn("node_exporter", &mut command, log, false)?;
    group.wait_until(Duration::from_secs(20), || scrape::get(port, "/metrics").is_ok())?;
    Ok(Subject { group, port, pages: &["/metrics"] })
}

impl Subject {
    /// Scrapes `times` times and returns the CPU time per scrape in seconds.
    fn scrape(&self, times: u32) -> Result<f64> {
        let before = cpu(self.group.child.id())?;
        for _ in 0..times {
            for page in self.pages {
                scrape::get(self.port, page)?;
            }
        }
        Ok((cpu(self.group.child.id())? - before) / f64::from(times))
    }

    /// Resident memory in bytes.
    fn memory(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.group.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        bytes(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))
    }

    /// Number of host series on its pages.
    fn series(&self) -> Result<usize> {
        let mut count = 0;
        for page in self.pages {
            let text = scrape::get(self.port, page)?;
            count += text.lines().filter(|line| line.starts_with("node_") && !line.starts_with("node_scrape_")).count();
        }
        Ok(count)
    }
}

/// CPU time of a process in seconds with nanosecond resolution, including threads that have exited.
fn cpu(pid: u32) -> Result<f64> {
    let pid = libc::pid_t::try_from(pid).context("no process id")?;
    let (mut clock, mut time) = (0, MaybeUninit::<libc::timespec>::uninit());
    // SAFETY: the second argument is a valid place for the result.
    let found = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(found == 0, "no CPU clock of process {pid}");
    // SAFETY: the second argument is a valid place for the result.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        bail!("process {pid} has exited");
    }
    // SAFETY: the call has succeeded and initialised it.
    let time = unsafe { time.assume_init() };
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// The text of the section.
fn section(costs: &[Vec<f64>; 2], memory: [f64; 2], series: [usize; 2], scrapes: u32) -> Result<String> {
    let [ours, theirs] = costs.each_ref().map(|costs| Spread::of(costs.iter().map(|cost| cost * 1e3)));
    let ratios = Spread::of(costs[0].iter().zip(&costs[1]).map(|(ours, theirs)| ours / theirs));
    let met = |ratio: f64| if ratio < 1.0 { "met" } else { "**not met**" };
    let mut text = format!("{HEADING}\n\nWritten by `cargo xtask bench host`. {}\n\n", report::environment()?);
    writeln!(
        text,
        "Debian's node_exporter with the collectors whose families the agent has, and the agent without models and \
         kernel programs, scraped in turn over loopback, {scrapes} times in each of {} rounds; CPU is from the \
         process's CPU clock, in nanoseconds, including exited threads.\n",
        costs[0].len()
    )?;
    text += "| what | agent | node_exporter | agent / node_exporter | target | |\n| --- | ---: | ---: | ---: | --- | --- |\n";
    writeln!(
        text,
        "| CPU per scrape, ms | {:.2} | {:.2} | {:.2} ({:.2} - {:.2}) | below 1 | {} |",
        ours.median(),
        theirs.median(),
        ratios.median(),
        ratios.min(),
        ratios.max(),
        met(ratios.median())
    )?;
    let ratio = memory[0] / memory[1];
    writeln!(
        text,
        "| resident memory, MB | {:.1} | {:.1} | {ratio:.2} | below 1 | {} |",
        memory[0] / 1e6,
        memory[1] / 1e6,
        met(ratio)
    )?;
    writeln!(text, "| series `node_*` | {} | {} | | | |", series[0], series[1])?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_the_process() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        assert!((0..3_000_000u64).map(std::hint::black_box).sum::<u64>() > 0);
        assert!(cpu(own).unwrap() > before);
    }
}
