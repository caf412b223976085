//! The agent under measurement.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Stage;
use super::cgroup::Limited;
use super::stats::Runs;
use crate::build;
use crate::group::{self, Group};
use crate::scrape::{self, Page};

/// The programs whose time is measured.
pub(super) const PROGRAMS: [&str; 3] = ["net_ingress", "net_egress", "net_sockops"];

/// How long the agent may take to become ready, and to discover a process: in an emulated machine the verifier is slow.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The agent's default configuration: seven models, by name.
pub(super) const MODELS: [(&str, u16); 7] = [
    ("mixtral", 11400),
    ("hermes", 11401),
    ("openchat", 11402),
    ("phi3", 11403),
    ("yi34b", 11404),
    ("coder", 11405),
    ("vision", 11500),
];

/// Only the probes that count requests, tokens and TCP.
pub(super) const NET_ALONE: &str = "ebpf: { recvq: false, sched: false, syscalls: false }\n";

/// A running agent that is ready; stopped on drop.
pub(super) struct Agent {
    group: Group,
    port: u16,
    health: u16,
}

impl Agent {
    /// Starts the agent with the seven models, and with `discover` as its range, or `none`.
    pub(super) fn start(stage: &Stage, discover: &str) -> Result<Self> {
        Self::start_with(stage, discover, "")
    }

    /// Like `start`, with these additional lines of configuration.
    pub(super) fn start_with(stage: &Stage, discover: &str, more: &str) -> Result<Self> {
        Self::start_prepared(stage, discover, more, |_| Ok(()))
    }

    /// Starts the agent with the seven models in this cgroup.
    pub(super) fn start_in(stage: &Stage, cgroup: &Limited) -> Result<Self> {
        Self::start_prepared(stage, "none", "", |command| {
            let mut entrance = cgroup.entrance()?;
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe { command.pre_exec(move || entrance.write_all(b"0")) };
            Ok(())
        })
    }

    fn start_prepared(
        stage: &Stage,
        discover: &str,
        more: &str,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let (port, health) = (free_port()?, free_port()?);
        let models: Vec<_> = MODELS.iter().map(|(name, port)| format!("{name}: {port}")).collect();
        let text = format!(
            "local_collection:\n  listen_address: \"127.0.0.1\"\n  metrics_port: {port}\n  health_check_port: {health}\n  \
             log_level: WARN\nmodel_monitoring:\n  ports: {{{}}}\n  discover: \"{discover}\"\n  health_endpoints: []\n{more}",
            models.join(", ")
        );
        let config = stage.folder.join("agent.yaml");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = build::agent_command(&stage.agent, Some(&config))?;
        prepare(&mut command)?;
        let mut group = Group::spawn("the agent", &mut command, group::log(&stage.folder, "agent"), false)?;
        group.wait_until(READY_WITHIN, || scrape::get(health, "/ready").is_ok())?;
        Ok(Self { group, port, health })
    }

    /// The attach form that the `syscalls` family uses.
    pub(super) fn form(&self) -> Result<String> {
        let status = scrape::get(self.health, "/status").context("asking for the agent's status")?;
        form(&status).map(str::to_owned).with_context(|| format!("the status names no attach form: {status}"))
    }

    /// Waits until discovery has attributed `pid` to a model.
    pub(super) fn wait_until_known(&mut self, pid: u32) -> Result<()> {
        let (port, pid) = (self.port, pid.to_string());
        self.group.wait_until(READY_WITHIN, || {
            let page = scrape::get(port, "/metrics/models").map(|text| Page::parse(&text));
            page.is_ok_and(|page| page.sum("citadel_model_info", &[("pid", &pid)]) == Some(1.0))
        })
    }

    /// Scrapes the models' page, as text.
    pub(super) fn text(&self) -> Result<String> {
        scrape::get(self.port, "/metrics/models").context("scraping the agent")
    }

    /// Scrapes the models' page.
    pub(super) fn page(&self) -> Result<Page> {
        Ok(Page::parse(&self.text()?))
    }

    /// Scrapes all metrics.
    pub(super) fn everything(&self) -> Result<Page> {
        Ok(Page::parse(&scrape::get(self.port, "/metrics").context("scraping the agent")?))
    }

    /// Runs and run time of each of [`PROGRAMS`] since BPF statistics were switched on.
    pub(super) fn runs(&self) -> Result<[Runs; 3]> {
        let page = self.page()?;
        Ok(PROGRAMS.map(|program| {
            let sum = |name| page.sum(name, &[("program", program)]).unwrap_or(0.0);
            // The series are absent until the program has run with statistics on.
            Runs { count: sum("citadel_probe_runs_total"), ns: sum("citadel_probe_seconds_total") * 1e9 }
        }))
    }

    /// CPU time used so far by all threads, user and system.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.group.child.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has no CPU times"))?;
        // SAFETY: sysconf reads a constant.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Resident memory in bytes: now, and the peak.
    pub(super) fn memory(&self) -> Result<(f64, f64)> {
        let path = format!("/proc/{}/status", self.group.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name| bytes(&status, name).with_context(|| format!("{path} has no {name}"));
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

/// The value of the only `form` member in the status.
fn form(status: &str) -> Option<&str> {
    status.split_once("\"form\"")?.1.split('"').nth(1)
}

/// User plus system time from `/proc/PID/stat` (fields 14 and 15; field 2, the name, may contain anything).
pub(super) fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A field of `/proc/PID/status` given in kB, as bytes.
pub(super) fn bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// A free port from the kernel's ephemeral range.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 a"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(bytes("Name:\tx\nVmHWM:\t   9 kB\nVmRSS:\t   4 kB\n", "VmRSS:"), Some(4096.0));
        assert_eq!(bytes("Name:\tx\n", "VmRSS:"), None);
    }
}
