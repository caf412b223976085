//! An agent that measures for a limited time, or reads everything once, and neither serves nor sends anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use tokio::signal::unix::{SignalKind, signal};

use super::state::Agent;
use super::{GRACE, TICK, runtime};
use crate::config::Config;
use crate::discovery::inventory::Model;
use crate::ebpf::status::FamilyStatus;
use crate::host::Roots;
use crate::host::process::{Usage, read_own_usage};
use crate::http::App as _;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::agent::SOURCE_SUCCESS;
use crate::metrics::family::{LabelValues, Page, Value};

/// What an agent measures on this host at this moment.
pub struct Examined {
    /// A page of everything.
    pub page: Page,
    /// How each family of kernel programs did.
    pub families: Vec<FamilyStatus>,
    /// The GPUs, as `/status` serves them.
    pub gpu: serde_json::Value,
    /// The models.
    pub models: Vec<Model>,
}

impl Examined {
    /// The samples of a family, by their labels; histograms are left out.
    pub fn samples(&self, desc: &'static Desc) -> impl Iterator<Item = (&LabelValues, f64)> {
        let families = self.page.families.iter().filter(move |family| std::ptr::eq(family.desc, desc));
        families.flat_map(|family| &family.samples).filter_map(|sample| match sample.value {
            Value::Integer(value) => Some((&sample.labels, value as f64)),
            Value::Float(value) => Some((&sample.labels, value)),
            Value::Histogram(_) => None,
        })
    }

    /// The sources that were read, and whether each could be.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<&str, bool> {
        self.samples(&SOURCE_SUCCESS).map(|(labels, value)| (labels[0].as_str(), value == 1.0)).collect()
    }
}

/// What an agent measured in some time, and what it used for that.
pub struct Measured {
    /// What there was at the end.
    pub examined: Examined,
    /// How long it measured.
    pub time: Duration,
    /// CPU time of the agent itself, without its start.
    pub cpu_seconds: f64,
    /// Its resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

/// How long NVML and systemd, which are asked on threads of their own, have for their first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Attaches the kernel programs, reads every source once, and takes the programs back. Nothing is sent or served.
///
/// # Errors
/// Discovery cannot be started.
pub fn examine(config: &Config) -> anyhow::Result<Examined> {
    runtime()?.block_on(async {
        let agent = Agent::start(config.clone()).context("cannot start discovery")?;
        tokio::join!(agent.refresh(None, GRACE), tokio::time::sleep(FIRST_ANSWER));
        let mut state = agent.state();
        let page = state.page(None);
        Ok(state.examined(page))
    })
}

/// Reads every source once, without kernel programs: what those count begins when they are attached, so one reading of
/// them says nothing.
///
/// # Errors
/// Discovery cannot be started.
pub fn read_once(config: &Config) -> anyhow::Result<Page> {
    let config = without_programs(config);
    runtime()?.block_on(async {
        let agent = Agent::start(config).context("cannot start discovery")?;
        agent.refresh(None, GRACE).await;
        Ok(agent.state().page(None))
    })
}

/// The models of this host, found without kernel programs.
///
/// # Errors
/// Discovery cannot be started.
pub fn find_models(config: &Config) -> anyhow::Result<Vec<Model>> {
    Ok(examine(&without_programs(config))?.models)
}

fn without_programs(config: &Config) -> Config {
    let mut config = config.clone();
    let ebpf = &mut config.ebpf;
    (ebpf.net, ebpf.recvq, ebpf.sched, ebpf.syscalls) = (false, false, false, false);
    config
}

/// Measures for `time`, or until SIGINT or SIGTERM. Meanwhile the kernel counts what programs cost, where this process may ask for
/// that. Nothing is sent or served.
///
/// # Errors
/// The operating system refuses what the agent needs.
pub fn measure(config: &Config, time: Duration) -> anyhow::Result<Measured> {
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        // Before the programs are attached, so that each run is counted; until it is closed.
        let _statistics = enable_stats(Stats::RunTime).ok();
        let agent = Agent::start(config.clone()).context("cannot start discovery")?;
        let usage =
            || -> anyhow::Result<Usage> { read_own_usage(&Roots::default()).context("cannot read the own usage") };
        let (started, before) = (Instant::now(), usage()?);
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = ticks.tick() => drop(agent.state().follow()),
            }
        }
        // Before the last reading, which a running agent does once an interval.
        let (time, after) = (started.elapsed(), usage()?);
        agent.refresh(None, GRACE).await;
        let mut state = agent.state();
        let page = state.page(None);
        Ok(Measured {
            examined: state.examined(page),
            time,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            resident_bytes: after.resident_bytes,
        })
    })
}
