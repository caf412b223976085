//! The busiest processes outside the models, as far back as fine intervals go, in memory only: their names are anybody's, and must
//! not use up the history's keys.

use std::collections::{BTreeMap, VecDeque};

use smol_str::{SmolStr, format_smolstr};

use super::window::Gauge;
use super::{FINE_SPAN_MS, Millis};
use crate::metrics::catalogue::models::BUSIEST_PROCESS;
use crate::metrics::family::{Page, Value};

/// Key of their gauges in a window of the host; the command name follows.
pub const PREFIX: &str = "process_cpus";

const NONE: Gauge = Gauge { mean: 0.0, min: 0.0, max: 0.0, last: 0.0 };

/// By time: CPUs by command name.
#[derive(Debug, Default)]
pub(super) struct Busiest(VecDeque<(Millis, BTreeMap<SmolStr, f64>)>);

impl Busiest {
    /// Adds those of a page.
    pub(super) fn take(&mut self, page: &Page, at_ms: Millis) {
        let mut cpus = BTreeMap::new();
        let family = page.families.iter().filter(|family| family.desc.name == BUSIEST_PROCESS.name);
        for sample in family.flat_map(|family| &family.samples) {
            if let (Some(command), Value::Float(used)) = (sample.labels.first(), &sample.value) {
                *cpus.entry(command.clone()).or_default() += used;
            }
        }
        self.0.retain(|(at, _)| (at_ms - FINE_SPAN_MS..at_ms).contains(at));
        self.0.push_back((at_ms, cpus));
    }

    /// Their gauges between two times. A process that is not among the busiest of a page counts as 0 there.
    pub(super) fn window(&self, from_ms: Millis, to_ms: Millis) -> BTreeMap<String, Gauge> {
        let pages: Vec<_> = self.0.iter().filter(|(at, _)| (from_ms..=to_ms).contains(at)).collect();
        let mut all: BTreeMap<String, Gauge> = BTreeMap::new();
        for (nth, (_, cpus)) in pages.iter().enumerate() {
            for (command, &used) in cpus {
                let gauge = all.entry(format_smolstr!("{PREFIX}.{command}").into()).or_insert(NONE);
                gauge.mean += used / pages.len() as f64;
                gauge.max = gauge.max.max(used);
                gauge.last = if nth + 1 == pages.len() { used } else { 0.0 };
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(processes: &[(&str, &str, f64)]) -> Page {
        let mut page = Page::default();
        for (command, pid, cpus) in processes {
            page.add(&BUSIEST_PROCESS, [command, pid], Value::Float(*cpus));
        }
        page
    }

    #[test]
    fn processes_of_one_name_add_up_and_what_is_old_goes() {
        let mut busiest = Busiest::default();
        busiest.take(&page(&[("sh", "1", 0.5), ("sh", "2", 0.75), ("cc", "3", 0.25)]), 1000);
        busiest.take(&page(&[("sh", "1", 0.75)]), 6000);
        let window = busiest.window(0, 10_000);
        let (sh, cc) = (window["process_cpus.sh"], window["process_cpus.cc"]);
        assert_eq!((sh.mean, sh.max, sh.last), (1.0, 1.25, 0.75));
        assert_eq!((cc.mean, cc.max, cc.last), (0.125, 0.25, 0.0));
        assert_eq!(busiest.window(2000, 10_000).len(), 1);
        busiest.take(&page(&[]), 1000 + 2 * FINE_SPAN_MS);
        assert_eq!(busiest.0.len(), 1);
        // A clock that was set back.
        busiest.take(&page(&[]), 500);
        assert_eq!(busiest.0.len(), 1);
    }
}
