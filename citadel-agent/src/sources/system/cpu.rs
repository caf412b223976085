//! CPU time by mode, and throttling for heat (`proc_stat(5)`, `Documentation/ABI/testing/sysfs-devices-system-cpu`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{numbered, outcome};
use crate::host::Roots;
use crate::host::files::{ReadError, read_number, read_text};
use crate::metrics::catalogue::system::{CPU_CORE_THROTTLES, CPU_GUEST_SECONDS, CPU_PACKAGE_THROTTLES, CPU_SECONDS};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

/// The columns of a CPU's line, in their order.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// The columns behind them.
const GUEST_MODES: [&str; 2] = ["user", "nice"];

const COLUMNS: usize = MODES.len() + GUEST_MODES.len();

/// The kernel's unit of CPU time; `USER_HZ` is 100 on every architecture that the agent runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A CPU whose idle time goes back by more than this was taken out and put back, and counts anew.
const HOTPLUG_TICKS: u64 = 300;

/// Ticks of each CPU, by its number as the kernel writes it.
pub(in crate::sources) type Ticks = HashMap<String, [u64; COLUMNS]>;

/// The highest counts so far. Idle and iowait of a CPU that is idle are estimates of the moment and can go back a little;
/// Prometheus would take that for a restart, and add the whole counter once more.
#[derive(Debug, Default)]
pub(in crate::sources) struct Highest(Ticks);

pub(in crate::sources) fn read(roots: &Roots, highest: &mut Highest, page: &mut Page) -> Reading {
    let path = roots.proc.join("stat");
    let Some(text) = read_text(&path)? else { return outcome(false) };
    let ticks =
        parse(&text).ok_or_else(|| ReadError::malformed(&path, "a CPU's line has other things than numbers"))?;
    let ticks = highest.raise(ticks);
    add(page, ticks);
    add_throttles(page, &roots.sys.join("devices/system/cpu"))?;
    outcome(true)
}

/// The CPUs' lines of `/proc/stat`. Old kernels have fewer columns; these are 0 there.
pub(super) fn parse(stat: &str) -> Option<Ticks> {
    let mut ticks = Ticks::new();
    for line in stat.lines() {
        let Some((name, columns)) = line.split_once(' ') else { continue };
        let Some(number) = name.strip_prefix("cpu").filter(|number| !number.is_empty()) else { continue };
        let mut counts = [0; COLUMNS];
        for (count, column) in counts.iter_mut().zip(columns.split_ascii_whitespace()) {
            *count = column.parse().ok()?;
        }
        ticks.insert(number.to_owned(), counts);
    }
    Some(ticks)
}

impl Highest {
    /// Takes new counts, and gives the counts to export: none lower than before, only CPUs that are there.
    pub(super) fn raise(&mut self, new: Ticks) -> &Ticks {
        const IDLE: usize = 3;
        self.0.retain(|number, _| new.contains_key(number));
        for (number, counts) in new {
            let highest = self.0.entry(number).or_insert(counts);
            if highest[IDLE].saturating_sub(counts[IDLE]) >= HOTPLUG_TICKS {
                *highest = counts;
            }
            for (highest, count) in highest.iter_mut().zip(counts) {
                *highest = count.max(*highest);
            }
        }
        &self.0
    }
}

fn add(page: &mut Page, ticks: &Ticks) {
    for (number, counts) in ticks {
        let (modes, guest) = counts.split_at(MODES.len());
        for (mode, &count) in MODES.iter().zip(modes) {
            page.add(&CPU_SECONDS, [number, mode], Value::Float(count as f64 / TICKS_PER_SECOND));
        }
        for (mode, &count) in GUEST_MODES.iter().zip(guest) {
            page.add(&CPU_GUEST_SECONDS, [number, mode], Value::Float(count as f64 / TICKS_PER_SECOND));
        }
    }
}

/// A core's and a package's count are the same at each of its threads: the first one says it.
fn add_throttles(page: &mut Page, cpus: &Path) -> Result<(), ReadError> {
    let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
    for (_, cpu) in numbered(cpus, "cpu")?.unwrap_or_default() {
        let topology = |name: &str| read_number::<u64>(&cpu.join("topology").join(name));
        let (Some(package), Some(core)) = (topology("physical_package_id"), topology("core_id")) else { continue };
        let throttles = |name: &str| read_number::<u64>(&cpu.join("thermal_throttle").join(name));
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_never_goes_back_unless_the_cpu_was_replaced() {
        let ticks =
            |idle: u64, iowait: u64| parse(&format!("cpu  1 1 1 1\ncpu0 10 0 5 {idle} {iowait} 0 0 0 0 0\n")).unwrap();
        let mut highest = Highest::default();
        assert_eq!(highest.raise(ticks(1000, 50))["0"][3..5], [1000, 50]);
        assert_eq!(highest.raise(ticks(999, 40))["0"][3..5], [1000, 50]);
        assert_eq!(highest.raise(ticks(1200, 41))["0"][3..5], [1200, 50]);
        assert_eq!(highest.raise(ticks(7, 1))["0"][3..5], [7, 1]);
        assert!(highest.raise(Ticks::new()).is_empty());
    }

    #[test]
    fn old_kernels_and_garbage() {
        assert_eq!(parse("cpu0 1 2 3 4\n").unwrap()["0"], [1, 2, 3, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse("cpu0 1 2 x 4\n"), None);
        assert!(parse("cpufreq\n\ncpu 1 2\nintr 5\n").unwrap().is_empty());
    }
}
