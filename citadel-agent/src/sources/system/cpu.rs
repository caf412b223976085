//! CPU time by mode, and thermal throttling (`proc_stat(5)`, `Documentation/ABI/testing/sysfs-devices-system-cpu`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{numbered, outcome};
use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::system::{
    CPU_CORE_THROTTLES, CPU_GUEST_SECONDS, CPU_ISOLATED, CPU_PACKAGE_THROTTLES, CPU_SECONDS,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

/// The columns of a CPU's line.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// The columns after them.
const GUEST_MODES: [&str; 2] = ["user", "nice"];

const COLUMNS: usize = MODES.len() + GUEST_MODES.len();

/// Number of columns in Linux 2.4.
const FEWEST_COLUMNS: usize = 4;

/// The kernel's unit of CPU time; `USER_HZ` is 100 on all supported architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// A CPU whose idle time decreases by more than this was removed and added again, and starts at 0.
const HOTPLUG_TICKS: u64 = 300;

/// Maximum number of CPUs that Linux supports.
const MAX_CPUS: u32 = 8192;

type Counts = [u64; COLUMNS];

/// Ticks of each CPU, by its number as text; `None` if its line cannot be read.
type Ticks<'a> = BTreeMap<&'a str, Option<Counts>>;

/// The highest counts so far. Idle and iowait of an idle CPU are estimates and can decrease slightly; Prometheus would
/// treat that as a restart, and add the whole counter again.
#[derive(Debug, Default)]
pub(in crate::sources) struct Highest(HashMap<String, Counts>);

pub(in crate::sources) fn read(
    roots: &Roots,
    highest: &mut Highest,
    page: &mut Page,
    skipped: &mut Skipped,
) -> Reading {
    let Some(text) = skipped.text("stat", &roots.proc.join("stat")) else { return outcome(false) };
    add_stat(page, highest, &text, skipped);
    let cpus = roots.sys.join("devices/system/cpu");
    if let Some(list) = read_value(&cpus.join("isolated")) {
        add_isolated(page, &list, skipped);
    }
    add_throttles(page, &cpus, skipped);
    outcome(true)
}

pub(in crate::sources) fn add_stat(page: &mut Page, highest: &mut Highest, text: &str, skipped: &mut Skipped) {
    for (number, counts) in highest.raise(&parse(text, skipped)) {
        add(page, number, &counts);
    }
}

/// The CPU lines of `/proc/stat`. Missing columns of old kernels are 0.
fn parse<'a>(stat: &'a str, skipped: &mut Skipped) -> Ticks<'a> {
    let mut ticks = Ticks::new();
    for line in stat.lines() {
        let Some(rest) = line.strip_prefix("cpu") else { continue };
        let (number, columns) = rest.split_once(' ').unwrap_or((rest, ""));
        // The total.
        if number.is_empty() {
            continue;
        }
        let columns: Option<Vec<u64>> =
            columns.split_ascii_whitespace().take(COLUMNS).map(|column| column.parse().ok()).collect();
        let counts = columns.filter(|columns| columns.len() >= FEWEST_COLUMNS).map(|columns| {
            let mut counts = [0; COLUMNS];
            counts[..columns.len()].copy_from_slice(&columns);
            counts
        });
        let is_cpu = number.parse::<u32>().is_ok_and(|number| number < MAX_CPUS);
        let counts = counts.filter(|_| is_cpu && !ticks.contains_key(number));
        if skipped.or_note(counts, "stat", line).is_some() || is_cpu {
            ticks.insert(number, counts);
        }
    }
    ticks
}

impl Highest {
    /// Adds new counts, and returns the counts to export: never lower than before, and only of readable CPUs.
    fn raise<'a>(&mut self, new: &Ticks<'a>) -> Vec<(&'a str, Counts)> {
        const IDLE: usize = 3;
        self.0.retain(|number, _| new.contains_key(number.as_str()));
        let read = new.iter().filter_map(|(&number, counts)| Some((number, (*counts)?)));
        let raised = read.map(|(number, counts)| {
            let highest = self.0.entry(number.to_owned()).or_insert(counts);
            if highest[IDLE].saturating_sub(counts[IDLE]) >= HOTPLUG_TICKS {
                *highest = counts;
            }
            for (highest, count) in highest.iter_mut().zip(counts) {
                *highest = count.max(*highest);
            }
            (number, *highest)
        });
        raised.collect()
    }
}

fn add(page: &mut Page, number: &str, counts: &Counts) {
    let (modes, guest) = counts.split_at(MODES.len());
    for (mode, &count) in MODES.iter().zip(modes) {
        page.add(&CPU_SECONDS, [number, mode], Value::Float(count as f64 / TICKS_PER_SECOND));
    }
    for (mode, &count) in GUEST_MODES.iter().zip(guest) {
        page.add(&CPU_GUEST_SECONDS, [number, mode], Value::Float(count as f64 / TICKS_PER_SECOND));
    }
}

/// The CPUs isolated from the scheduler (`isolcpus=`), a list such as `2-3,7`.
pub(in crate::sources) fn add_isolated(page: &mut Page, list: &str, skipped: &mut Skipped) {
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
        let range = range.filter(|(first, last)| first <= last && *last < MAX_CPUS);
        let Some((first, last)) = skipped.or_note(range, "cpu/isolated", part) else { continue };
        for cpu in first..=last {
            page.add(&CPU_ISOLATED, [&cpu.to_string()], Value::Integer(1));
        }
    }
}

/// All threads of a core or package have the same count: the first one is used.
fn add_throttles(page: &mut Page, cpus: &Path, skipped: &mut Skipped) {
    let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
    for (_, cpu) in numbered(cpus, "cpu", skipped).unwrap_or_default() {
        // If there is none, the kernel reports -1.
        let mut topology = |name| skipped.number::<i64>(name, &cpu.join("topology").join(name));
        let (Some(package), Some(core)) = (topology("physical_package_id"), topology("core_id")) else { continue };
        if package < 0 || core < 0 {
            continue;
        }
        let mut throttles = |name| skipped.number::<u64>(name, &cpu.join("thermal_throttle").join(name));
        cores.entry((package, core)).or_insert_with(|| throttles("core_throttle_count"));
        packages.entry(package).or_insert_with(|| throttles("package_throttle_count"));
    }
    for ((package, core), count) in cores {
        if let Some(count) = count {
            page.add(&CPU_CORE_THROTTLES, [&package.to_string(), &core.to_string()], Value::Integer(count));
        }
    }
    for (package, count) in packages {
        if let Some(count) = count {
            page.add(&CPU_PACKAGE_THROTTLES, [&package.to_string()], Value::Integer(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(highest: &mut Highest, text: &str) -> Vec<(String, Counts)> {
        let ticks = parse(text, &mut Skipped::default());
        highest.raise(&ticks).into_iter().map(|(number, counts)| (number.to_owned(), counts)).collect()
    }

    #[test]
    fn a_counter_never_goes_back_unless_the_cpu_was_replaced() {
        let mut highest = Highest::default();
        let mut read = |idle: u64, iowait: u64| {
            let text = format!("cpu  1 1 1 1\ncpu0 10 0 5 {idle} {iowait} 0 0 0 0 0\n");
            raise(&mut highest, &text)[0].1[3..5].to_vec()
        };
        assert_eq!(read(1000, 50), [1000, 50]);
        assert_eq!(read(999, 40), [1000, 50]);
        assert_eq!(read(1200, 41), [1200, 50]);
        assert_eq!(read(7, 1), [7, 1]);
        assert!(raise(&mut highest, "").is_empty());
    }

    #[test]
    fn a_cpu_that_cannot_be_read_once_is_absent_and_goes_on_where_it_was() {
        let mut highest = Highest::default();
        raise(&mut highest, "cpu0 1 0 0 100\ncpu1 1 0 0 100\n");
        let read = raise(&mut highest, "cpu0 x 0 0 100\ncpu1 1 0 0 101\n");
        assert_eq!(read.iter().map(|(cpu, _)| cpu.as_str()).collect::<Vec<_>>(), ["1"]);
        assert_eq!(raise(&mut highest, "cpu0 1 0 0 99\n")[0].1[3], 100);
    }

    #[test]
    fn old_kernels_and_garbage() {
        let mut skipped = Skipped::default();
        assert_eq!(parse("cpu0 1 2 3 4\n", &mut skipped)["0"], Some([1, 2, 3, 4, 0, 0, 0, 0, 0, 0]));
        assert!(parse("\ncpu 1 2\nintr 5\n", &mut skipped).is_empty() && skipped.is_empty());
        assert_eq!(parse("cpu0 1 2 x 4\n", &mut skipped)["0"], None);
        // Whose numbers are the CPU's cannot be known.
        assert_eq!(parse("cpu0 1 2 3 4\ncpu0 2 2 3 4\n", &mut skipped)["0"], None);
        assert_eq!(parse("cpu0 1 2 3\n", &mut skipped)["0"], None);
        assert!(parse("cpu4294967296 1 2 3 4\ncpufreq\n", &mut skipped).is_empty());
        assert_eq!(skipped.count(), 5);
    }

    #[test]
    fn isolated_cpus_are_a_list_of_ranges() {
        let (mut page, mut skipped) = (Page::default(), Skipped::default());
        add_isolated(&mut page, "2-3,7,x,9-8,1-99999\n", &mut skipped);
        let cpus: Vec<_> = page.families[0].samples.iter().map(|sample| sample.labels[0].as_str()).collect();
        assert_eq!((cpus, skipped.count()), (vec!["2", "3", "7"], 3));
    }
}
