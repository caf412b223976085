//! Counts messages and events in the logs of models and the kernel.

use std::sync::Arc;

use regex_lite::Regex;

use super::entry::{Entry, Origin};
use super::events::{self, Kernel, of_kernel, of_model};
use super::known::{Known, Label};
use super::numbers::Counts;

/// Maximum number of models with series, including those that no longer exist.
const MOST_MODELS: usize = 1024;

/// Counts entries.
#[derive(Debug)]
pub struct Counter {
    known: Known,
    own: Vec<(String, Regex)>,
    counts: Counts,
}

impl Counter {
    /// A counter that also counts these configured events.
    #[must_use]
    pub fn new(known: Known, own: Vec<(String, Regex)>, before: Counts) -> Self {
        Self { known, own, counts: before }
    }

    /// Counts an entry.
    pub fn take(&mut self, entry: &Entry) {
        if entry.origin() == Origin::Kernel {
            match of_kernel(&entry.message()) {
                Some(Kernel::Gpu(_, true)) => self.add(None, events::XID),
                Some(Kernel::Killed(cgroup, pid)) => {
                    let label = self.known.of_process(cgroup, pid).label().cloned();
                    self.add(label, events::OOM_KILL);
                }
                Some(Kernel::Gpu(_, false) | Kernel::Memory) | None => {}
            }
            return;
        }
        let of = self.known.of(entry);
        let Some(label) = of.label() else { return };
        if !self.has_room(label) {
            return;
        }
        *self.counts.messages.entry(((**label).clone(), entry.severity())).or_default() += 1;
        let message = entry.message();
        let found: Vec<String> = of_model(&message, &self.own).map(str::to_owned).collect();
        found.iter().for_each(|event| self.add(Some(Arc::clone(label)), event));
    }

    /// All counts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn add(&mut self, label: Option<Arc<Label>>, event: &str) {
        let label = label.map(|label| (*label).clone());
        *self.counts.events.entry((label, event.to_owned())).or_default() += 1;
    }

    fn has_room(&self, label: &Label) -> bool {
        let counts = &self.counts.messages;
        counts.len() < MOST_MODELS || counts.keys().any(|(own, _)| own == label)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::super::known::tests::model;
    use super::super::severity::Severity;
    use super::*;
    use crate::discovery::inventory::Inventory;

    #[test]
    fn lines_count_for_their_model_by_severity_and_events_once_each() {
        let known = Known::default();
        known.learn(&Inventory { models: vec![model("phi3", 11403, Some("vllm.service"), &[7])] });
        let own = vec![("slow".to_owned(), Regex::new("slow").unwrap())];
        let mut counter = Counter::new(known, own, Counts::default());
        let line = |message| {
            entry(&[("_SYSTEMD_UNIT", "vllm.service"), ("_PID", "7"), ("PRIORITY", "6"), ("MESSAGE", message)])
        };
        counter.take(&line("INFO: started"));
        counter.take(&line("what an engine says"));
        counter.take(&line("ERROR 11-24 10:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried"));
        counter.take(&line("a slow one"));
        counter.take(&entry(&[
            ("_SYSTEMD_UNIT", "sshd.service"),
            ("MESSAGE", "torch.OutOfMemoryError: CUDA out of memory"),
        ]));
        let kernel =
            |facility, message| entry(&[("_TRANSPORT", "kernel"), ("SYSLOG_FACILITY", facility), ("MESSAGE", message)]);
        let killed =
            "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/system.slice/vllm.service,task=python3,pid=7,uid=0";
        let other = "oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/system.slice/x.service,task=x,pid=9,uid=0";
        for message in [killed, other, "Out of memory: Killed process 7 (python3)", "NVRM: Xid (PCI:0000:3b:00): 79, x"]
        {
            counter.take(&kernel("0", message));
            counter.take(&kernel("1", message));
        }
        let phi3 = Label { model: "phi3".to_owned(), port: 11403 };
        let counts = counter.counts();
        assert_eq!(counts.messages, [((phi3.clone(), Severity::Error), 1), ((phi3.clone(), Severity::Info), 3)].into());
        let event = |label: Option<&Label>, event: &str| ((label.cloned(), event.to_owned()), 1);
        assert_eq!(
            counts.events,
            [
                event(Some(&phi3), "cuda_out_of_memory"),
                event(Some(&phi3), "slow"),
                event(Some(&phi3), "oom_kill"),
                event(None, "oom_kill"),
                event(None, "xid"),
            ]
            .into()
        );
    }
}
