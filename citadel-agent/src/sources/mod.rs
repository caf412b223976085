//! Sources: where samples come from. A new one is a file here, a line in [`SOURCES`], entries in the catalogue and a
//! fixture.

pub mod alerts;
mod discovery;
mod gpu;
mod models;
mod probes;
mod process;
mod processes;
pub mod remote_write;
mod sched;
mod syscalls;

use std::error::Error;
use std::time::Instant;

use tracing::{info, warn};

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

/// All sources.
pub const SOURCES: &[Source] = &[
    Source { name: "gpu", section: Section::Gpu, read: gpu::read },
    Source { name: "gpu_models", section: Section::Models, read: gpu::read_models },
    Source { name: "models", section: Section::Models, read: models::read },
    Source { name: "discovery", section: Section::Models, read: discovery::read },
    Source { name: "processes", section: Section::Models, read: processes::read },
    Source { name: "sched", section: Section::Models, read: sched::read },
    Source { name: "syscalls", section: Section::Models, read: syscalls::read },
    Source { name: "probes", section: Section::Agent, read: probes::read },
    Source { name: "alerts", section: Section::Agent, read: alerts::read },
    Source { name: "process", section: Section::Agent, read: process::read },
    Source { name: "remote_write", section: Section::Agent, read: remote_write::read },
];

/// Remembers which sources fail, so that each failure and each recovery is logged once.
#[derive(Debug)]
pub struct Health {
    failing: [bool; SOURCES.len()],
}

impl Default for Health {
    fn default() -> Self {
        Self { failing: [false; SOURCES.len()] }
    }
}

/// Reads the sources of a section and of the agent itself, or all of them. A source that fails is left out, and said.
pub fn collect(section: Option<Section>, origin: &mut Origin<'_>, health: &mut Health) -> Page {
    let mut page = Page::default();
    for (source, failing) in SOURCES.iter().zip(&mut health.failing) {
        if section.is_some_and(|section| source.section != section && source.section != Section::Agent) {
            continue;
        }
        let begin = Instant::now();
        let mut own = Page::default();
        let outcome = (source.read)(origin, &mut own);
        let failure = match outcome {
            Ok(Outcome::Absent) => continue,
            Ok(Outcome::Read) => {
                page.append(own);
                None
            }
            Ok(Outcome::Partly(error)) => {
                page.append(own);
                Some(error)
            }
            Err(error) => Some(error),
        };
        let success = failure.is_none();
        if let Some(error) = failure
            && !*failing
        {
            warn!(source = source.name, %error, "cannot be read; its metrics are missing until it can");
        }
        if success && *failing {
            info!(source = source.name, "can be read again");
        }
        *failing = !success;
        page.add(&SOURCE_SUCCESS, [source.name], Value::Integer(u64::from(success)));
        page.add(&SOURCE_DURATION, [source.name], Value::Float(begin.elapsed().as_secs_f64()));
    }
    page
}
