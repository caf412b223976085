//! Background sources: slow ones, each read on its own thread, so that it cannot delay others.
//!
//! A scrape first requests a refresh, which starts the reads that are due and waits for them up to the scrape's time
//! limit; then it takes the available readings. A sensor that hangs therefore costs only its own series, and the values
//! of a scrape are current. Threads exist only for one read: nothing is read unless there is a scrape.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::storage::{directories, disks, filesystems, raid, smart};
use super::system::{network, sensors};
use super::{Reading, Taken};
use crate::collector::HOPELESS;
use crate::config::resolved::Config;
use crate::host::Roots;
use crate::host::skipped::{Skipped, Tally};
use crate::metrics::catalogue::Section;
use crate::metrics::family::Page;

/// Inputs of these sources; shared with their threads.
#[derive(Clone)]
pub struct Context {
    /// The current configuration.
    pub config: Arc<Config>,
    /// Paths of the kernel's file systems.
    pub roots: Roots,
    pub(super) hung_mounts: filesystems::HungMounts,
    pub(super) disks: smart::Disks,
}

impl Context {
    /// Inputs without state from earlier reads.
    #[must_use]
    pub fn new(config: Arc<Config>, roots: Roots) -> Self {
        Self { config, roots, hung_mounts: filesystems::HungMounts::default(), disks: smart::Disks::default() }
    }
}

/// When a source is read.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// At each scrape, which waits for it.
    Scrape,
    /// At the first scrape after this time since the last read; scrapes do not wait for it.
    Spaced(fn(&Config) -> Duration),
}

pub(super) struct Source {
    /// Value of the `source` label.
    pub(super) name: &'static str,
    /// The section whose page has it.
    pub(super) section: Section,
    pace: Pace,
    read: fn(&Context, &mut Page, &mut Skipped) -> Reading,
}

/// All slow sources.
pub(super) const SOURCES: &[Source] = &[
    system("netclass", |context, page, skipped| network::read_attributes(&context.roots, page, skipped)),
    system("hwmon", |context, page, skipped| sensors::read_hwmon(&context.roots, page, skipped)),
    system("thermal_zone", |context, page, skipped| sensors::read_thermal(&context.roots, page, skipped)),
    system("cpufreq", |context, page, skipped| sensors::read_cpufreq(&context.roots, page, skipped)),
    storage("filesystem", Pace::Scrape, |context, page, skipped| {
        filesystems::read(&context.roots, &context.hung_mounts, page, skipped)
    }),
    // The file waits for an array that is being reconfigured.
    storage("mdadm", Pace::Scrape, |context, page, skipped| raid::read(&context.roots, page, skipped)),
    storage("nvme", Pace::Scrape, |context, page, skipped| disks::read_nvme(&context.roots, page, skipped)),
    storage("smart", Pace::Spaced(|config| config.storage.smart_interval), |context, page, skipped| {
        smart::read(&context.config.storage.smartctl, &context.disks, page, skipped)
    }),
    storage("directories", Pace::Spaced(|config| config.storage.directory_interval), |context, page, _| {
        directories::read(&context.config.storage.directories, page)
    }),
];

const fn system(name: &'static str, read: fn(&Context, &mut Page, &mut Skipped) -> Reading) -> Source {
    Source { name, section: Section::System, pace: Pace::Scrape, read }
}

const fn storage(name: &'static str, pace: Pace, read: fn(&Context, &mut Page, &mut Skipped) -> Reading) -> Source {
    Source { name, section: Section::Storage, pace, read }
}

/// How old a reading may be that a scrape gets while the next read is under way: two scrapers that come at the same time share
/// a read.
const FRESH: Duration = Duration::from_secs(1);

/// Time limit for a source that scrapes do not wait for.
const SPACED_PATIENCE: Duration = Duration::from_secs(120);

/// State of the sources. Clones share it.
#[derive(Clone)]
pub struct Readers {
    states: Arc<[Mutex<SourceState>]>,
    /// Counts finished reads of all sources.
    finished: watch::Sender<u64>,
    /// Which reading may be used while the next read is in progress.
    previous: Previous,
}

/// Which reading may be used while the next read is in progress.
#[derive(Clone, Copy, Debug)]
enum Previous {
    /// One not older than [`FRESH`].
    Fresh,
    /// Any, until the read has taken [`HOPELESS`].
    WhileHopeful,
}

#[derive(Default)]
struct SourceState {
    /// Start of the current read.
    busy: Option<Instant>,
    newest: Option<LastRead>,
    skipped: Tally,
}

/// Result of a read.
struct LastRead {
    at: Instant,
    took: Duration,
    taken: Taken,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            states: SOURCES.iter().map(|_| Mutex::default()).collect(),
            finished: watch::Sender::new(0),
            previous: Previous::Fresh,
        }
    }
}

impl Readers {
    /// The same, for pages collected at an interval. A source that takes longer than a collection waits keeps its last
    /// reading, so that its series do not come and go; it is missing only when its read seems to hang.
    #[must_use]
    pub fn steady(&self) -> Self {
        Self { previous: Previous::WhileHopeful, ..self.clone() }
    }

    /// Starts the reads of a section, or of all, that are due. The future completes when those that a scrape waits for
    /// are done, at the latest after `within`, and returns the number of finished reads.
    pub fn refresh(
        &self,
        section: Option<Section>,
        context: &Context,
        within: Duration,
    ) -> impl Future<Output = u64> + Send + use<> {
        let mut finished = self.finished.subscribe();
        let wanted = |source: &Source| section.is_none_or(|section| source.section == section);
        let awaited: Vec<usize> =
            (0..SOURCES.len()).filter(|&index| wanted(&SOURCES[index]) && self.begin(index, context)).collect();
        let readers = self.clone();
        async move {
            let all_read = async {
                while awaited.iter().any(|&index| readers.state(index).busy.is_some()) {
                    // The sender is one of `readers`, so it exists.
                    _ = finished.changed().await;
                }
            };
            // Late sources are skipped.
            _ = tokio::time::timeout(within, all_read).await;
            *readers.finished.borrow()
        }
    }

    /// Starts a read if it is due. Returns whether a scrape should wait for it.
    fn begin(&self, index: usize, context: &Context) -> bool {
        let source = &SOURCES[index];
        let mut state = self.state(index);
        if let Some(since) = state.busy {
            return matches!(source.pace, Pace::Scrape) && since.elapsed() < HOPELESS;
        }
        if let (Pace::Spaced(interval), Some(newest)) = (source.pace, &state.newest)
            && newest.at.elapsed() < interval(&context.config)
        {
            return false;
        }
        let began = Instant::now();
        state.busy = Some(began);
        drop(state);
        let (readers, context) = (self.clone(), context.clone());
        let read = move || {
            // However the read ends, even with a panic, it is no longer in progress.
            let panicked = Taken::Failed(Page::default(), "the read panicked".to_owned());
            let mut done = Done { readers, index, began, taken: panicked, skipped: Skipped::default() };
            let mut page = Page::default();
            let answer = (source.read)(&context, &mut page, &mut done.skipped);
            done.taken = Taken::of(answer, page, &mut done.skipped);
        };
        let spawned = thread::Builder::new().name(source.name.to_owned()).stack_size(256 << 10).spawn(read);
        if let Err(error) = spawned {
            let failed = Taken::Failed(Page::default(), format!("cannot start a thread to read it: {error}"));
            self.finish(index, began, failed, &Skipped::default());
        }
        matches!(source.pace, Pace::Scrape)
    }

    fn finish(&self, index: usize, began: Instant, taken: Taken, skipped: &Skipped) {
        let read = LastRead { at: Instant::now(), took: began.elapsed(), taken };
        let mut state = self.state(index);
        state.skipped.add(SOURCES[index].name, skipped);
        state.busy = None;
        let old = state.newest.replace(read);
        drop(state);
        drop(old);
        self.finished.send_modify(|count| *count += 1);
    }

    /// Whether no read is in progress.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        (0..SOURCES.len()).all(|index| self.state(index).busy.is_none())
    }

    /// The current reading of a source, its duration, and how much was skipped so far.
    pub(super) fn take(&self, index: usize) -> (Taken, Duration, u64) {
        let state = self.state(index);
        let skipped = state.skipped.total();
        if let Some(since) = state.busy {
            let waited = since.elapsed();
            let usable = match (SOURCES[index].pace, &state.newest) {
                (Pace::Scrape, newest) => newest.as_ref().is_some_and(|newest| match self.previous {
                    Previous::Fresh => newest.at.elapsed() < FRESH,
                    Previous::WhileHopeful => waited < HOPELESS,
                }),
                (Pace::Spaced(_), _) => waited < SPACED_PATIENCE,
            };
            if !usable {
                let why = format!("the current read has taken {:.1} s so far", waited.as_secs_f64());
                return (Taken::Failed(Page::default(), why), waited, skipped);
            }
        }
        match &state.newest {
            None => (Taken::Nothing, Duration::ZERO, skipped),
            Some(LastRead { taken, took, .. }) => (taken.clone(), *took, skipped),
        }
    }

    fn state(&self, index: usize) -> MutexGuard<'_, SourceState> {
        self.states[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the result of a read when dropped.
struct Done {
    readers: Readers,
    index: usize,
    began: Instant,
    taken: Taken,
    skipped: Skipped,
}

impl Drop for Done {
    fn drop(&mut self) {
        let taken = std::mem::replace(&mut self.taken, Taken::Nothing);
        self.readers.finish(self.index, self.began, taken, &self.skipped);
    }
}
