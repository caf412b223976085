//! Sources of samples. A new one is a file here, a line in [`SOURCES`], entries in the catalogue and a fixture; a slow
//! one belongs in the table of [`background`].

pub mod background;
mod discovery;
pub mod engine;
mod gpu;
pub mod health;
mod http;
mod logs;
mod models;
pub mod parsers;
mod probes;
mod process;
pub mod processes;
mod sched;
pub mod services;
mod slowdown;
mod sockets;
mod storage;
mod syscalls;
mod system;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::background::Readers;
use self::health::Probes;
use self::services::Services;
use crate::config::resolved::Config;
use crate::config::watch::Loaded;
use crate::discovery::inventory::Inventory;
use crate::discovery::watch::Discovered;
use crate::ebpf::families::Families;
use crate::gpu::Gpu;
use crate::history::History;
use crate::host::Roots;
use crate::host::skipped::{Skipped, Tally};
use crate::http::Dropped;
use crate::metrics::catalogue::Section;
use crate::metrics::catalogue::agent::{SOURCE_DURATION, SOURCE_SKIPPED, SOURCE_SUCCESS};
use crate::metrics::family::{Page, PageError, Value};
use crate::remote_write;
use crate::slot::Slot;

/// Inputs of sources.
pub struct Origin<'a> {
    /// The current configuration.
    pub config: &'a Config,
    /// When it was loaded, and whether a later one was refused.
    pub loaded: Loaded,
    /// Paths of the kernel's file systems.
    pub roots: &'a Roots,
    /// The models of this host.
    pub inventory: &'a Inventory,
    /// Further results of discovery.
    pub discovered: &'a Discovered,
    /// Figures of alerts, once available.
    pub alerts: &'a Slot<crate::alerts::Numbers>,
    /// Connections dropped by the HTTP listeners.
    pub http_dropped: &'a Dropped,
    /// Figures of logs, once available.
    pub logs: &'a Slot<crate::logs::numbers::Numbers>,
    /// Figures of remote write, once available.
    pub remote_write: &'a Slot<Vec<remote_write::Numbers>>,
    /// The kernel programs.
    pub families: &'a mut Families,
    /// The GPUs, if enabled.
    pub gpu: Option<&'a Gpu>,
    /// The background sources.
    pub readers: &'a Readers,
    /// systemd units, if monitored.
    pub services: Option<&'a Services>,
    /// The probes of models, if enabled.
    pub probes: Option<&'a Probes>,
    /// State that the host's sources carry over between reads.
    pub carry_over: &'a mut CarryOver,
}

/// State that sources keep between reads.
#[derive(Debug, Default)]
pub struct CarryOver {
    cpu: system::cpu::Highest,
    /// Units of the models that listen or have listened.
    units: BTreeMap<u16, String>,
    slowdowns: slowdown::Last,
    /// The last day, which says what has listened before this run.
    history: History,
}

impl CarryOver {
    /// Nothing read yet; the history says what listened before this run.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self { history, ..Self::default() }
    }
}

/// Outcome of a read.
pub enum Outcome {
    /// Everything is on the page.
    Read,
    /// Some of it is on the page; this is what is missing. Exported, and counted as a failure.
    Partly(Box<dyn Error + Send + Sync>),
    /// This host or configuration does not have the source: nothing is exported, not even a failure.
    Absent,
}

/// Result of a source.
type Reading = Result<Outcome, Box<dyn Error + Send + Sync>>;

/// A source.
pub struct Source {
    /// Value of the `source` label.
    pub name: &'static str,
    /// The section whose page has it.
    pub section: Section,
    /// Reads it. Unreadable parts are skipped and recorded; an error removes all of it from the page.
    read: fn(&mut Origin<'_>, &mut Page, &mut Skipped) -> Reading,
}

/// Metrics of alerts.
fn alerts(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let numbers = origin.alerts.newest();
    let added = numbers.is_some_and(|newest| newest.value.add_to(page));
    Ok(if added { Outcome::Read } else { Outcome::Absent })
}

/// Metrics of remote write.
fn remote_write(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(newest) = origin.remote_write.newest().filter(|newest| !newest.value.is_empty()) else {
        return Ok(Outcome::Absent);
    };
    if newest.age() > remote_write::SILENT {
        let seconds = newest.age().as_secs();
        return Err(
            format!("the remote-write thread has not reported for {seconds} s: its disk hangs, or it ended").into()
        );
    }
    newest.value.iter().for_each(|numbers| numbers.add_to(page));
    Ok(Outcome::Read)
}

/// All sources that a scrape reads directly.
pub const SOURCES: &[Source] = &[
    Source { name: "gpu", section: Section::Gpu, read: |origin, page, _| gpu::read(origin, page) },
    Source { name: "gpu_models", section: Section::Models, read: |origin, page, _| gpu::read_models(origin, page) },
    Source { name: "models", section: Section::Models, read: |origin, page, _| models::read(origin, page) },
    Source { name: "health", section: Section::Models, read: |origin, page, _| health::read(origin, page) },
    Source { name: "engine", section: Section::Models, read: |origin, page, _| engine::read(origin, page) },
    Source { name: "discovery", section: Section::Models, read: discovery::read },
    Source { name: "processes", section: Section::Models, read: |origin, page, _| processes::read(origin, page) },
    Source { name: "sockets", section: Section::Models, read: |origin, page, _| sockets::read(origin, page) },
    Source { name: "slowdown", section: Section::Models, read: |origin, page, _| slowdown::read(origin, page) },
    Source { name: "sched", section: Section::Models, read: |origin, page, _| sched::read(origin, page) },
    Source { name: "syscalls", section: Section::Models, read: |origin, page, _| syscalls::read(origin, page) },
    Source { name: "log_events", section: Section::Models, read: |origin, page, _| logs::read_events(origin, page) },
    Source { name: "probes", section: Section::Agent, read: |origin, page, _| probes::read(origin, page) },
    Source { name: "http", section: Section::Agent, read: |origin, page, _| http::read(origin, page) },
    Source { name: "alerts", section: Section::Agent, read: |origin, page, _| alerts(origin, page) },
    Source { name: "process", section: Section::Agent, read: |origin, page, _| process::read(origin, page) },
    Source { name: "logs", section: Section::Agent, read: |origin, page, _| logs::read(origin, page) },
    Source { name: "remote_write", section: Section::Agent, read: |origin, page, _| remote_write(origin, page) },
    system("cpu", |origin, page, skipped| system::cpu::read(origin.roots, &mut origin.carry_over.cpu, page, skipped)),
    system("stat", |origin, page, skipped| system::load::read_stat(origin.roots, page, skipped)),
    system("meminfo", |origin, page, skipped| system::memory::read_meminfo(origin.roots, page, skipped)),
    system("meminfo_numa", |origin, page, skipped| system::memory::read_numa(origin.roots, page, skipped)),
    system("vmstat", |origin, page, skipped| system::memory::read_vmstat(origin.roots, page, skipped)),
    system("loadavg", |origin, page, skipped| system::load::read_averages(origin.roots, page, skipped)),
    system("pressure", |origin, page, skipped| system::load::read_pressure(origin.roots, page, skipped)),
    system("schedstat", |origin, page, skipped| system::load::read_schedstat(origin.roots, page, skipped)),
    system("netdev", |origin, page, skipped| system::network::read_devices(origin.roots, page, skipped)),
    system("bonding", |origin, page, _| system::network::read_bonds(origin.roots, page)),
    system("netstat", |origin, page, skipped| system::protocols::read_netstat(origin.roots, page, skipped)),
    system("sockstat", |origin, page, skipped| system::protocols::read_sockstat(origin.roots, page, skipped)),
    system("softnet", |origin, page, skipped| system::protocols::read_softnet(origin.roots, page, skipped)),
    system("udp_queues", |origin, page, skipped| system::protocols::read_udp(origin.roots, page, skipped)),
    system("arp", |origin, page, skipped| system::protocols::read_arp(origin.roots, page, skipped)),
    system("conntrack", |origin, page, skipped| system::protocols::read_conntrack(origin.roots, page, skipped)),
    system("filefd", |origin, page, skipped| system::kernel::read_filefd(origin.roots, page, skipped)),
    system("entropy", |origin, page, skipped| system::kernel::read_entropy(origin.roots, page, skipped)),
    system("uname", |_, page, _| system::kernel::read_uname(page)),
    system("os", |origin, page, skipped| system::kernel::read_os(origin.roots, page, skipped)),
    system("time", |origin, page, skipped| system::clock::read_time(origin.roots, page, skipped)),
    system("timex", |_, page, _| system::clock::read_timex(page)),
    system("edac", |origin, page, skipped| system::sensors::read_edac(origin.roots, page, skipped)),
    Source {
        name: "diskstats",
        section: Section::Storage,
        read: |origin, page, skipped| storage::disks::read_stats(origin.roots, page, skipped),
    },
    Source { name: "systemd", section: Section::Services, read: services::read },
];

const fn system(name: &'static str, read: fn(&mut Origin<'_>, &mut Page, &mut Skipped) -> Reading) -> Source {
    Source { name, section: Section::System, read }
}

/// Failing sources, so that each failure and each recovery is logged once, and how much they have skipped.
#[derive(Debug)]
pub struct Health {
    sources: [Trouble; SOURCES.len()],
    background: [Trouble; background::SOURCES.len()],
    skipped: [Tally; SOURCES.len()],
}

impl Default for Health {
    fn default() -> Self {
        let (sources, background) =
            ([Trouble::default(); SOURCES.len()], [Trouble::default(); background::SOURCES.len()]);
        Self { sources, background, skipped: std::array::from_fn(|_| Tally::default()) }
    }
}

/// Whether a source is failing.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Its last failure; `None` after the recovery was logged.
    last: Option<Instant>,
}

/// A source has recovered if it has not failed for this time. A flapping source is logged as one failure.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

impl Trouble {
    /// Records the outcome of a read, and logs changes.
    fn note(&mut self, name: &str, failure: Option<&str>, now: Instant) {
        match (failure, self.last) {
            (Some(error), last) => {
                self.last = Some(now);
                if last.is_none() {
                    warn!(
                        source = name,
                        error, "cannot read a source; its metrics are missing until reads succeed again"
                    );
                }
            }
            (None, Some(last)) if now.duration_since(last) >= RECOVERED_AFTER => {
                self.last = None;
                info!(source = name, "reading the source again");
            }
            (None, _) => {}
        }
    }
}

/// Result of a read.
#[derive(Clone)]
enum Taken {
    /// The source does not exist here.
    Nothing,
    Page(Page),
    /// It failed: what is available nevertheless, and why.
    Failed(Page, String),
}

impl Taken {
    /// Combines the result of a source with what it skipped: if it skipped everything, it failed.
    fn of(answer: Reading, mut page: Page, skipped: &mut Skipped) -> Self {
        // Prometheus rejects a page with duplicate series, so a host with two devices of the same name would have no
        // metrics at all.
        if let Err(PageError::Duplicate { .. }) = page.sort() {
            page.remove_doubles().iter().for_each(|double| skipped.note("series that is there twice", double));
        }
        if let Err(error) = page.sort() {
            return Self::Failed(Page::default(), error.to_string());
        }
        match answer {
            Ok(Outcome::Read | Outcome::Absent) if page.families.is_empty() && !skipped.is_empty() => {
                Self::Failed(page, skipped.summary())
            }
            Ok(Outcome::Read) => Self::Page(page),
            Ok(Outcome::Absent) => Self::Nothing,
            Ok(Outcome::Partly(error)) => Self::Failed(page, error.to_string()),
            Err(error) => Self::Failed(Page::default(), error.to_string()),
        }
    }
}

/// Reads the sources of a section and of the agent itself, or all. A failing source is omitted and logged.
///
/// For background sources it takes the available reading; call [`Readers::refresh`] first.
pub fn collect(section: Option<Section>, origin: &mut Origin<'_>, health: &mut Health) -> Page {
    let mut page = Page::default();
    let wanted = |own: Section| section.is_none_or(|section| own == section || own == Section::Agent);
    for ((source, trouble), tally) in SOURCES.iter().zip(&mut health.sources).zip(&mut health.skipped) {
        if !wanted(source.section) {
            continue;
        }
        let begin = Instant::now();
        let (mut own, mut skipped) = (Page::default(), Skipped::default());
        let answer = (source.read)(origin, &mut own, &mut skipped);
        let taken = Taken::of(answer, own, &mut skipped);
        tally.add(source.name, &skipped);
        include(&mut page, source.name, taken, begin.elapsed(), tally.total(), trouble);
    }
    for (index, (source, trouble)) in background::SOURCES.iter().zip(&mut health.background).enumerate() {
        if wanted(source.section) {
            let (taken, took, skipped) = origin.readers.take(index);
            include(&mut page, source.name, taken, took, skipped, trouble);
        }
    }
    page
}

/// Adds the result of a source and its status to the page.
fn include(page: &mut Page, name: &'static str, taken: Taken, took: Duration, skipped: u64, trouble: &mut Trouble) {
    let (own, failure) = match taken {
        Taken::Nothing => return,
        Taken::Page(own) => (own, None),
        Taken::Failed(own, why) => (own, Some(why)),
    };
    page.append(own);
    let success = failure.is_none();
    trouble.note(name, failure.as_deref(), Instant::now());
    page.add(&SOURCE_SUCCESS, [name], Value::Integer(u64::from(success)));
    page.add(&SOURCE_DURATION, [name], Value::Float(took.as_secs_f64()));
    page.add(&SOURCE_SKIPPED, [name], Value::Integer(skipped));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_now_and_then_is_one_failure() {
        let begin = Instant::now();
        let mut trouble = Trouble::default();
        let mut failing = |seconds, failure: Option<&str>| {
            trouble.note("mdadm", failure, begin + Duration::from_secs(seconds));
            trouble.last.is_some()
        };
        assert!(!failing(0, None));
        for seconds in (15..150).step_by(30) {
            assert!(failing(seconds, Some("it has been read for 1 s")));
            assert!(failing(seconds + 15, None));
        }
        assert!(failing(194, None));
        assert!(!failing(195, None));
    }
}
