//! Selects the entries for a destination. Pure, except for what is known about models.

use std::collections::HashMap;
use std::sync::Arc;

use regex_lite::Regex;

use super::entry::{Entry, Origin};
use super::events::{Kernel, names_device, of_kernel};
use super::known::{Known, Label, NamedGpu, Of};
use super::severity::Severity;
use crate::config::resolved::Logs;
use crate::config::resolved::logs::pattern;

/// A unit's burst, in seconds of its rate.
const BURST_SECONDS: f64 = 10.0;

/// Maximum number of units whose rate is tracked. Beyond it, all start again with a full allowance.
const MOST_UNITS: usize = 1024;

/// Targets of the agent's log whose lines are not sent: they are about sending.
const OWN_LOOP: [&str; 2] = ["citadel_agent::logs", "citadel_agent::outbound"];

/// An entry to be sent, and its attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The entry.
    pub entry: Entry,
    /// The unit or container that wrote it, or `kernel`.
    pub unit: Arc<str>,
    /// Whether `unit` is a container.
    pub container: bool,
    /// Its severity.
    pub severity: Severity,
    /// The model.
    pub model: Option<Arc<Label>>,
    /// The GPU that it mentions.
    pub gpu: Option<NamedGpu>,
}

/// What to do with an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Send it.
    Take(Box<Record>),
    /// Drop it: its unit exceeds its rate limit.
    Limited,
    /// Skip it.
    Leave,
}

/// Identifies the agent's own entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// Its PID.
    pub pid: u32,
    /// Its unit, if it runs as a service.
    pub unit: Option<String>,
}

/// Selects entries.
#[derive(Debug)]
pub struct Selector {
    known: Known,
    own: Own,
    units: Vec<Regex>,
    containers: Vec<Regex>,
    kernel: bool,
    least: Severity,
    rate: f64,
    buckets: HashMap<Arc<str>, Bucket>,
}

/// Token bucket of a unit.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    entries: f64,
    /// Last update, in the journal's time.
    at_us: u64,
}

impl Selector {
    /// From the validated configuration.
    #[must_use]
    pub fn new(logs: &Logs, known: Known, own: Own) -> Self {
        let patterns = |globs: &[String]| globs.iter().filter_map(|glob| pattern(glob).ok()).collect();
        Self {
            known,
            own,
            units: patterns(&logs.units),
            containers: patterns(&logs.containers),
            kernel: logs.kernel,
            least: logs.severity,
            rate: logs.rate_limit as f64,
            buckets: HashMap::new(),
        }
    }

    /// Decides about an entry.
    pub fn choose(&mut self, entry: Entry) -> Choice {
        let matches = |patterns: &[Regex], name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
        let of = self.known.of(&entry);
        let of_line = |label: Option<&Arc<Label>>| {
            label.filter(|_| names_device(&entry.message())).and_then(|label| self.known.only_gpu(label.port))
        };
        let (wanted, unit, container, model, gpu): (bool, Arc<str>, bool, _, Option<NamedGpu>) = match entry.origin() {
            _ if self.is_own(&entry) => (self.says_own(&entry), "citadel-agent".into(), false, None, None),
            Origin::Kernel => {
                let message = entry.message();
                let found = of_kernel(&message).filter(|_| self.kernel);
                let (model, gpu) = match &found {
                    Some(Kernel::Gpu(pci, _)) => (None, pci.as_deref().map(|pci| self.known.gpu(pci))),
                    Some(Kernel::Killed(cgroup, pid)) => (self.known.of_process(cgroup, *pid).label().cloned(), None),
                    Some(Kernel::Memory) | None => (None, None),
                };
                (found.is_some(), "kernel".into(), false, model, gpu)
            }
            Origin::Unit(unit) => {
                let gpu = of_line(of.label());
                (of != Of::None || matches(&self.units, unit), unit.into(), false, of.label().cloned(), gpu)
            }
            Origin::Container(name, _) => {
                let gpu = of_line(of.label());
                (of != Of::None || matches(&self.containers, name), name.into(), true, of.label().cloned(), gpu)
            }
            Origin::None => return Choice::Leave,
        };
        let severity = entry.severity();
        if !wanted || severity > self.least {
            return Choice::Leave;
        }
        if !self.allow(&unit, entry.time_us) {
            return Choice::Limited;
        }
        Choice::Take(Box::new(Record { entry, unit, container, severity, model, gpu }))
    }

    fn is_own(&self, entry: &Entry) -> bool {
        let unit = self.own.unit.as_deref().is_some_and(|unit| entry.origin() == Origin::Unit(unit));
        unit || entry.pid() == Some(self.own.pid)
    }

    /// Whether it is one of the agent's own entries to be sent: warnings and errors, but not about sending.
    fn says_own(&self, entry: &Entry) -> bool {
        let message = entry.message();
        entry.severity() <= Severity::Warning && !is_about_sending(&message)
    }

    /// Whether the unit may log another entry at this time. Setting the clock back has no effect.
    fn allow(&mut self, unit: &Arc<str>, at_us: u64) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        if self.buckets.len() >= MOST_UNITS && !self.buckets.contains_key(unit) {
            self.buckets.clear();
        }
        let full = self.rate * BURST_SECONDS;
        let bucket = self.buckets.entry(Arc::clone(unit)).or_insert(Bucket { entries: full, at_us });
        let seconds = at_us.saturating_sub(bucket.at_us) as f64 / 1e6;
        *bucket = Bucket { entries: (bucket.entries + seconds * self.rate).min(full), at_us };
        let allowed = bucket.entries >= 1.0;
        if allowed {
            bucket.entries -= 1.0;
        }
        allowed
    }
}

/// Whether a line of the agent's own log is about sending: by its target, in JSON or among the first words of a text.
fn is_about_sending(message: &str) -> bool {
    let own = |target: &str| OWN_LOOP.iter().any(|own| target.starts_with(own));
    match message.split_once("\"target\":\"").filter(|_| message.starts_with('{')) {
        Some((_, target)) => own(target),
        // A time may stand before the level.
        None => message.split_whitespace().take(3).any(own),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::super::known::tests::model;
    use super::*;
    use crate::discovery::inventory::Inventory;

    fn selector(change: impl FnOnce(&mut Logs)) -> Selector {
        let mut logs = Logs::default();
        change(&mut logs);
        let known = Known::default();
        known.learn(&Inventory { models: vec![model("phi3", 11403, Some("vllm.service"), &[7])] });
        Selector::new(&logs, known, Own { pid: 500, unit: Some("citadel-agent.service".to_owned()) })
    }

    fn taken(selector: &mut Selector, fields: &[(&str, &str)]) -> Option<Record> {
        match selector.choose(entry(fields)) {
            Choice::Take(record) => Some(*record),
            Choice::Limited | Choice::Leave => None,
        }
    }

    #[test]
    fn models_the_kernel_and_patterns_are_taken_and_nothing_else() {
        let mut chosen = selector(|logs| {
            logs.units = vec!["nginx*.service".to_owned()];
            logs.containers = vec!["web-?".to_owned()];
        });
        let record = taken(&mut chosen, &[("_SYSTEMD_UNIT", "vllm.service"), ("MESSAGE", "ERROR: x")]).unwrap();
        assert_eq!((&*record.unit, record.severity), ("vllm.service", Severity::Error));
        assert_eq!(record.model.unwrap().port, 11403);
        let kernel = [("_TRANSPORT", "kernel"), ("SYSLOG_FACILITY", "0"), ("PRIORITY", "3")];
        let with = |message| [kernel.as_slice(), &[("MESSAGE", message)]].concat();
        let xid = taken(&mut chosen, &with("NVRM: Xid (PCI:0000:3b:00): 79, x")).unwrap();
        assert_eq!((&*xid.unit, xid.severity), ("kernel", Severity::Error));
        assert_eq!(xid.gpu.unwrap().pci, "0000:3b:00.0");
        let killed = "oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/system.slice/vllm.service,task=x,pid=99,uid=0";
        assert_eq!(taken(&mut chosen, &with(killed)).unwrap().model.unwrap().model, "phi3");
        assert!(taken(&mut chosen, &with("eth0: link up")).is_none());
        assert!(taken(&mut chosen, &[("_SYSTEMD_UNIT", "nginx@1.service")]).is_some());
        assert!(taken(&mut chosen, &[("_SYSTEMD_UNIT", "sshd.service")]).is_none());
        let container = |name| [("_UID", "0"), ("CONTAINER_NAME", name), ("CONTAINER_ID_FULL", "01")];
        assert!(taken(&mut chosen, &container("web-1")).unwrap().container);
        assert!(taken(&mut chosen, &container("web-11")).is_none());
        assert!(taken(&mut chosen, &[("MESSAGE", "x")]).is_none());
    }

    #[test]
    fn of_the_agents_own_only_warnings_and_none_about_sending() {
        let mut chosen = selector(|logs| logs.units = vec!["*".to_owned()]);
        let own = |level: &str, target: &str| {
            format!(
                "{{\"timestamp\":\"2026\",\"level\":\"{level}\",\"message\":\"x\",\"target\":\"citadel_agent::{target}\"}}"
            )
        };
        for (level, target, sent) in [
            ("WARN", "gpu", true),
            ("ERROR", "gpu", true),
            ("INFO", "gpu", false),
            ("ERROR", "logs::destination", false),
            ("WARN", "outbound", false),
        ] {
            for who in [("_SYSTEMD_UNIT", "citadel-agent.service"), ("_PID", "500")] {
                // What it writes by default is text, as its log has it in the journal.
                for message in [own(level, target), format!(" {level} citadel_agent::{target}: x name=\"a\"")] {
                    let fields = [who, ("_SYSTEMD_UNIT", "session-1.scope"), ("MESSAGE", &message)];
                    assert_eq!(taken(&mut chosen, &fields).is_some(), sent, "{message}");
                }
            }
        }
    }

    #[test]
    fn severity_and_rate_are_limits() {
        let mut chosen = selector(|logs| logs.severity = Severity::Warning);
        assert!(taken(&mut chosen, &[("_SYSTEMD_UNIT", "vllm.service"), ("MESSAGE", "INFO: x")]).is_none());
        assert!(taken(&mut chosen, &[("_SYSTEMD_UNIT", "vllm.service"), ("PRIORITY", "4")]).is_some());

        let mut limited = selector(|logs| logs.rate_limit = 2);
        let at = |limited: &mut Selector, us: u64| {
            let entry = Entry { time_us: us, ..entry(&[("_SYSTEMD_UNIT", "vllm.service")]) };
            limited.choose(entry)
        };
        let count =
            |limited: &mut Selector, us: u64| (0..100).filter(|_| matches!(at(limited, us), Choice::Take(_))).count();
        let begin = 1_700_000_000_000_000;
        assert_eq!(count(&mut limited, begin), 20);
        assert_eq!(count(&mut limited, begin + 3_000_000), 6);
        // The clock goes back, and on.
        assert_eq!(count(&mut limited, begin - 3_600_000_000), 0);
        assert_eq!(count(&mut limited, begin - 3_599_000_000), 2);
        assert_eq!(at(&mut limited, begin - 3_599_000_000), Choice::Limited);
    }
}
