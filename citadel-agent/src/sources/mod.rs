//! Sources: where samples come from. A new one is a file here, a line in [`SOURCES`], entries in the catalogue and a
//! fixture; one that may take long belongs into the table of [`apart`].

pub mod alerts;
pub mod apart;
mod discovery;
pub mod engine;
mod gpu;
pub mod health;
mod models;
mod probes;
mod process;
pub mod processes;
pub mod remote_write;
mod sched;
pub mod services;
mod storage;
mod syscalls;
mod system;

use std::error::Error;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::apart::{Found, Readers};
use self::health::Probes;
use self::services::Services;
use crate::config::resolved::Config;
use crate::discovery::inventory::Inventory;
use crate::discovery::watch::Discovered;
use crate::ebpf::families::Families;
use crate::gpu::Gpu;
use crate::host::Roots;
use crate::metrics::catalogue::Section;
use crate::metrics::catalogue::agent::{SOURCE_DURATION, SOURCE_SUCCESS};
use crate::metrics::family::{Page, Value};
use crate::slot::Slot;

/// What sources read from.
pub struct Origin<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// Where the kernel's file systems are.
    pub roots: &'a Roots,
    /// The models of this host.
    pub inventory: &'a Inventory,
    /// What discovery knows besides.
    pub discovered: &'a Discovered,
    /// The alerts' figures, once there are any.
    pub alerts: &'a Slot<alerts::Numbers>,
    /// Remote write's figures, once there are any.
    pub remote_write: &'a Slot<Vec<remote_write::Numbers>>,
    /// The kernel probes.
    pub families: &'a mut Families,
    /// The GPUs, where they are wanted.
    pub gpu: Option<&'a Gpu>,
    /// The sources that are read apart from the scrape.
    pub readers: &'a Readers,
    /// systemd's units, where they are followed.
    pub services: Option<&'a Services>,
    /// The probes of models, where they are asked.
    pub probes: Option<&'a Probes>,
    /// What the host's sources keep from one read to the next.
    pub memory: &'a mut Memory,
}

/// What sources keep from one read to the next.
#[derive(Debug, Default)]
pub struct Memory {
    cpu: system::cpu::Highest,
}

/// How a read went.
pub enum Outcome {
    /// The page has what there is.
    Read,
    /// The page has what there is, but something that should be there is missing, and this is why: exported, and counted
    /// as a failure.
    Partly(Box<dyn Error + Send + Sync>),
    /// This host or this configuration has no such source: nothing is exported, not even a failure.
    Absent,
}

/// What a source answers.
type Reading = Result<Outcome, Box<dyn Error + Send + Sync>>;

/// One source.
pub struct Source {
    /// Value of the `source` label.
    pub name: &'static str,
    /// The section whose page carries it.
    pub section: Section,
    /// Reads it. An error keeps the whole of it off the page.
    read: fn(&mut Origin<'_>, &mut Page) -> Reading,
}

/// All sources that the scrape reads itself.
pub const SOURCES: &[Source] = &[
    Source { name: "gpu", section: Section::Gpu, read: gpu::read },
    Source { name: "gpu_models", section: Section::Models, read: gpu::read_models },
    Source { name: "models", section: Section::Models, read: models::read },
    Source { name: "health", section: Section::Models, read: health::read },
    Source { name: "engine", section: Section::Models, read: engine::read },
    Source { name: "discovery", section: Section::Models, read: discovery::read },
    Source { name: "processes", section: Section::Models, read: processes::read },
    Source { name: "sched", section: Section::Models, read: sched::read },
    Source { name: "syscalls", section: Section::Models, read: syscalls::read },
    Source { name: "probes", section: Section::Agent, read: probes::read },
    Source { name: "alerts", section: Section::Agent, read: alerts::read },
    Source { name: "process", section: Section::Agent, read: process::read },
    Source { name: "remote_write", section: Section::Agent, read: remote_write::read },
    system("cpu", |origin, page| system::cpu::read(origin.roots, &mut origin.memory.cpu, page)),
    system("stat", |origin, page| system::load::read_stat(origin.roots, page)),
    system("meminfo", |origin, page| system::memory::read_meminfo(origin.roots, page)),
    system("meminfo_numa", |origin, page| system::memory::read_numa(origin.roots, page)),
    system("vmstat", |origin, page| system::memory::read_vmstat(origin.roots, page)),
    system("loadavg", |origin, page| system::load::read_averages(origin.roots, page)),
    system("pressure", |origin, page| system::load::read_pressure(origin.roots, page)),
    system("schedstat", |origin, page| system::load::read_schedstat(origin.roots, page)),
    system("netdev", |origin, page| system::network::read_devices(origin.roots, page)),
    system("bonding", |origin, page| system::network::read_bonds(origin.roots, page)),
    system("netstat", |origin, page| system::protocols::read_netstat(origin.roots, page)),
    system("sockstat", |origin, page| system::protocols::read_sockstat(origin.roots, page)),
    system("softnet", |origin, page| system::protocols::read_softnet(origin.roots, page)),
    system("udp_queues", |origin, page| system::protocols::read_udp(origin.roots, page)),
    system("arp", |origin, page| system::protocols::read_arp(origin.roots, page)),
    system("conntrack", |origin, page| system::protocols::read_conntrack(origin.roots, page)),
    system("filefd", |origin, page| system::kernel::read_filefd(origin.roots, page)),
    system("entropy", |origin, page| system::kernel::read_entropy(origin.roots, page)),
    system("uname", |_, page| system::kernel::read_uname(page)),
    system("os", |origin, page| system::kernel::read_os(origin.roots, page)),
    system("time", |origin, page| system::clock::read_time(origin.roots, page)),
    system("timex", |_, page| system::clock::read_timex(page)),
    system("edac", |origin, page| system::sensors::read_edac(origin.roots, page)),
    Source {
        name: "diskstats",
        section: Section::Storage,
        read: |origin, page| storage::disks::read_stats(origin.roots, page),
    },
    Source { name: "systemd", section: Section::Services, read: services::read },
];

const fn system(name: &'static str, read: fn(&mut Origin<'_>, &mut Page) -> Reading) -> Source {
    Source { name, section: Section::System, read }
}

/// Which sources fail, so that each failure and each recovery is logged once.
#[derive(Debug)]
pub struct Health {
    sources: [Trouble; SOURCES.len()],
    apart: [Trouble; apart::SOURCES.len()],
}

impl Default for Health {
    fn default() -> Self {
        Self { sources: [Trouble::default(); SOURCES.len()], apart: [Trouble::default(); apart::SOURCES.len()] }
    }
}

/// Whether one source fails.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Its last failure; `None` once the recovery was logged.
    last: Option<Instant>,
}

/// A source has recovered when it has not failed for this long. One that fails now and then is logged as one failure.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

impl Trouble {
    /// Takes the outcome of a read, and logs it if it is news.
    fn note(&mut self, name: &str, failure: Option<&str>, now: Instant) {
        match (failure, self.last) {
            (Some(error), last) => {
                self.last = Some(now);
                if last.is_none() {
                    warn!(
                        source = name,
                        error, "cannot read a source; its metrics are missing until it can be read again"
                    );
                }
            }
            (None, Some(last)) if now.duration_since(last) >= RECOVERED_AFTER => {
                self.last = None;
                info!(source = name, "the source can be read again");
            }
            (None, _) => {}
        }
    }
}

/// Reads the sources of a section and of the agent itself, or all of them. A source that fails is left out, and said.
///
/// Of the sources that are read apart it takes what there is: [`Readers::refresh`] comes first.
pub fn collect(section: Option<Section>, origin: &mut Origin<'_>, health: &mut Health) -> Page {
    let mut page = Page::default();
    let wanted = |own: Section| section.is_none_or(|section| own == section || own == Section::Agent);
    for (source, trouble) in SOURCES.iter().zip(&mut health.sources) {
        if !wanted(source.section) {
            continue;
        }
        let begin = Instant::now();
        let mut own = Page::default();
        let outcome = match (source.read)(origin, &mut own) {
            Ok(Outcome::Absent) => continue,
            Ok(Outcome::Read) => (own, None),
            Ok(Outcome::Partly(error)) => (own, Some(error.to_string())),
            Err(error) => (Page::default(), Some(error.to_string())),
        };
        include(&mut page, source.name, outcome, begin.elapsed(), trouble);
    }
    for (index, (source, trouble)) in apart::SOURCES.iter().zip(&mut health.apart).enumerate() {
        if !wanted(source.section) {
            continue;
        }
        match origin.readers.take(index) {
            Found::Nothing => {}
            Found::Page(own, took) => include(&mut page, source.name, (own, None), took, trouble),
            Found::Failed(own, error, took) => include(&mut page, source.name, (own, Some(error)), took, trouble),
        }
    }
    page
}

/// Adds what a source has read to the page, and says how it went.
fn include(page: &mut Page, name: &'static str, read: (Page, Option<String>), took: Duration, trouble: &mut Trouble) {
    // Prometheus refuses a page on which a series is twice, so that a host with two devices of one name would have no
    // metrics at all: only the source that sees them goes without.
    let (mut own, failure) = read;
    let failure = match own.sort() {
        Ok(()) => {
            page.append(own);
            failure
        }
        Err(error) => Some(error.to_string()),
    };
    let success = failure.is_none();
    trouble.note(name, failure.as_deref(), Instant::now());
    page.add(&SOURCE_SUCCESS, [name], Value::Integer(u64::from(success)));
    page.add(&SOURCE_DURATION, [name], Value::Float(took.as_secs_f64()));
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
