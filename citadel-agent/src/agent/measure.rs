//! Measures for a limited time, or reads all sources once, without serving or sending anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use tokio::signal::unix::{SignalKind, signal};

use super::listeners::GRACE;
use super::state::Agent;
use super::{TICK, runtime};
use crate::config::Config;
use crate::discovery::inventory::Model;
use crate::ebpf::handover::Handover;
use crate::ebpf::status::FamilyStatus;
use crate::history::History;
use crate::host::Roots;
use crate::host::process::{Usage, read_own_usage};
use crate::http::App as _;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::agent::SOURCE_SUCCESS;
use crate::metrics::family::{LabelValues, Page, Value};

/// The result of one reading on this host.
pub struct Examined {
    /// A page with all metrics.
    pub page: Page,
    /// Status of each family of kernel programs.
    pub families: Vec<FamilyStatus>,
    /// GPU status, as in `/status`.
    pub gpu: serde_json::Value,
    /// The models.
    pub models: Vec<Model>,
}

impl Examined {
    /// The samples of a family with their labels, without histograms.
    pub fn samples(&self, desc: &'static Desc) -> impl Iterator<Item = (&LabelValues, f64)> {
        let families = self.page.families.iter().filter(move |family| std::ptr::eq(family.desc, desc));
        families.flat_map(|family| &family.samples).filter_map(|sample| match sample.value {
            Value::Integer(value) => Some((&sample.labels, value as f64)),
            Value::Float(value) => Some((&sample.labels, value)),
            Value::Histogram(_) => None,
        })
    }

    /// The sources that were read, and whether reading succeeded.
    #[must_use]
    pub fn sources(&self) -> BTreeMap<&str, bool> {
        self.samples(&SOURCE_SUCCESS).map(|(labels, value)| (labels[0].as_str(), value == 1.0)).collect()
    }
}

/// The result of measuring for some time, with the agent's own resource usage.
pub struct Measured {
    /// The last reading.
    pub examined: Examined,
    /// Measured time.
    pub time: Duration,
    /// CPU time of the agent, excluding startup.
    pub cpu_seconds: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

/// Time limit for the first answer of NVML and systemd, which are queried on separate threads.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Attaches the kernel programs, reads every source once, and detaches the programs. Nothing is sent or served.
///
/// # Errors
/// Discovery cannot be started.
pub fn examine(config: &Config) -> anyhow::Result<Examined> {
    runtime()?.block_on(async {
        let agent =
            Agent::start(config.clone(), History::default(), Handover::default()).context("cannot start discovery")?;
        tokio::join!(agent.refresh(None, GRACE), tokio::time::sleep(FIRST_ANSWER));
        let mut state = agent.state();
        let page = state.page(None);
        Ok(state.examined(page))
    })
}

/// Reads every source once, without kernel programs: these count from when they are attached, so a single reading is
/// useless.
///
/// # Errors
/// Discovery cannot be started.
pub fn read_once(config: &Config) -> anyhow::Result<Page> {
    let config = without_programs(config);
    runtime()?.block_on(async {
        let agent = Agent::start(config, History::default(), Handover::default()).context("cannot start discovery")?;
        agent.refresh(None, GRACE).await;
        Ok(agent.state().page(None))
    })
}

/// Finds the models of this host without kernel programs.
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

/// Measures for `time`, or until SIGINT or SIGTERM. BPF statistics are enabled meanwhile, if permitted. Nothing is sent
/// or served.
///
/// # Errors
/// The operating system refuses something that the agent needs.
pub fn measure(config: &Config, time: Duration) -> anyhow::Result<Measured> {
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot install the SIGTERM handler")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot install the SIGINT handler")?;
        // Enabled before the programs are attached, so that each run is counted, until it is dropped.
        let _statistics = enable_stats(Stats::RunTime).ok();
        let agent =
            Agent::start(config.clone(), History::default(), Handover::default()).context("cannot start discovery")?;
        let usage = || -> anyhow::Result<Usage> {
            read_own_usage(&Roots::default()).context("cannot read the agent's own resource usage")
        };
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
        // Before the last reading, which a running agent does only once per interval.
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
