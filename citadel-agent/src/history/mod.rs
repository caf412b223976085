//! The last day of measurements on this host: for each model, each GPU and the host, the increase of all relevant
//! counters in each interval of 5 s (for 15 minutes) and of 1 minute (for 24 hours).
//!
//! Its only owner is [`History`], which one task feeds with the collector's pages. Everything else only reads:
//! `explain`, the alerts, the control socket, the page. Intervals are stored encoded and compressed, with at most 4 MB
//! in total; beyond that, the oldest minutes are dropped first. `measures` lists what is stored, `interval` encodes one
//! interval, `store` implements retention, `disk` the file, `window` the types that readers get.

mod busiest;
mod disk;
mod interval;
mod measures;
mod service;
mod store;
#[cfg(test)]
mod tests;
pub mod window;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol_str::SmolStr;

use self::busiest::Busiest;
pub use self::busiest::PREFIX as PROCESS_CPUS;
use self::measures::Reader;
pub use self::service::Running;
use self::store::Store;
pub use self::store::{COARSE_MS, FINE_MS, FINE_SPAN_MS, MAX_BYTES, SPAN_MS};
use self::window::{SubjectHistory, Window};
use crate::metrics::family::Page;

/// Milliseconds since 1970.
pub type Millis = i64;

/// Maximum number of windows per request.
pub const MAX_WINDOWS: i64 = 1500;

/// The subject of measurements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// The host.
    Host,
    /// The model on this port.
    Model(u16),
    /// The GPU with this UUID.
    Gpu(SmolStr),
}

impl Subject {
    /// Its form in files and answers: `host`, the port, or `gpu:UUID`.
    #[must_use]
    pub fn id(&self) -> SmolStr {
        match self {
            Self::Host => SmolStr::new_static("host"),
            Self::Model(port) => smol_str::format_smolstr!("{port}"),
            Self::Gpu(uuid) => smol_str::format_smolstr!("gpu:{uuid}"),
        }
    }

    /// The inverse of [`Subject::id`].
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        match id.strip_prefix("gpu:") {
            Some(uuid) => Some(Self::Gpu(uuid.into())),
            None if id == "host" => Some(Self::Host),
            None => id.parse().ok().map(Self::Model),
        }
    }
}

/// The history. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    reader: Reader,
    store: Store,
    /// When the last page was collected.
    last_ms: Option<Millis>,
    /// Models on whose port something has listened in the time that is kept.
    listened: BTreeMap<u16, SmolStr>,
    busiest: Busiest,
}

impl History {
    /// Adds a page collected at `at_ms`: the increase since the previous page becomes an interval.
    pub fn take(&self, page: &Page, at_ms: Millis) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let intervals = inner.reader.read(page, &mut inner.store.keys);
        inner.listened.extend(measures::listening(page));
        inner.busiest.take(page, at_ms);
        match inner.last_ms.replace(at_ms) {
            Some(from_ms) if from_ms < at_ms => {
                for (subject, (name, interval)) in intervals {
                    inner.store.add(subject, &name, from_ms, at_ms, interval);
                }
                inner.store.forget_before(at_ms);
                let kept = &inner.store.subjects;
                inner.listened.retain(|port, _| kept.contains_key(&Subject::Model(*port)));
            }
            // The clock was set back: earlier intervals would be in the future.
            Some(from_ms) if from_ms > at_ms => inner.store.forget_after(at_ms),
            _ => {}
        }
    }

    /// Names of all known subjects.
    #[must_use]
    pub fn subjects(&self) -> BTreeMap<Subject, SmolStr> {
        self.inner().store.names()
    }

    /// The models on whose port something has listened, as far back as the history goes, by port.
    #[must_use]
    pub fn listened(&self) -> BTreeMap<u16, SmolStr> {
        self.inner().listened.clone()
    }

    /// When the last page was added.
    #[must_use]
    pub fn newest_ms(&self) -> Option<Millis> {
        self.inner().store.newest_ms()
    }

    /// The measurements of a subject between two times; an interval counts if its middle is in between.
    #[must_use]
    pub fn window(&self, subject: &Subject, from_ms: Millis, to_ms: Millis) -> Window {
        let inner = self.inner();
        let windows = inner.store.windows(subject, from_ms, to_ms, (to_ms - from_ms).max(1));
        let mut window = windows.into_iter().next_back().unwrap_or_default();
        if *subject == Subject::Host {
            window.gauges.extend(inner.busiest.window(from_ms, to_ms));
        }
        window
    }

    /// Consecutive windows of `step_ms`, which is increased if there would be more than [`MAX_WINDOWS`]. `None` as
    /// subject: all.
    #[must_use]
    pub fn series(
        &self,
        subject: Option<&Subject>,
        from_ms: Millis,
        to_ms: Millis,
        step_ms: Millis,
    ) -> Vec<SubjectHistory> {
        let span = to_ms.saturating_sub(from_ms).clamp(1, SPAN_MS + COARSE_MS);
        let from_ms = to_ms - span;
        let step_ms = step_ms.max(FINE_MS).max(span / MAX_WINDOWS);
        let inner = self.inner();
        let names = inner.store.names();
        let wanted = names.into_iter().filter(|(of, _)| subject.is_none_or(|subject| subject == of));
        wanted
            .map(|(of, name)| SubjectHistory {
                subject: of.id().to_string(),
                name: name.to_string(),
                windows: inner.store.windows(&of, from_ms, to_ms, step_ms),
            })
            .collect()
    }

    /// Size of all intervals in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner().store.bytes()
    }

    /// Increases whenever a restart would lose data; compare it with an earlier value.
    #[must_use]
    pub fn sealed(&self) -> u64 {
        self.inner().store.sealed()
    }

    /// Writes everything to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let bytes = disk::encode(&self.inner().store);
        disk::write(path, &bytes)
    }

    /// Loads what an earlier run saved, unless there is a history already; `now_ms` determines what is too old. A
    /// missing file is not an error.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn load(&self, path: &Path, now_ms: Millis) -> io::Result<()> {
        let Some(mut store) = disk::read(path)? else { return Ok(()) };
        store.forget_after(now_ms);
        store.forget_before(now_ms);
        let mut inner = self.inner();
        if inner.store.newest_ms().is_none() {
            // Its keys have other numbers.
            inner.reader = Reader::default();
            inner.last_ms = None;
            let models = store.subjects.iter().filter_map(|(subject, kept)| match subject {
                Subject::Model(port) if store.has_listened(subject, now_ms) => Some((*port, kept.name.clone())),
                _ => None,
            });
            inner.listened.extend(models);
            inner.store = store;
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No operation leaves it inconsistent, so a poisoned lock is safe to use; at worst an interval is missing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
