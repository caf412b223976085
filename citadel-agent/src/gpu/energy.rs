//! Attributes a GPU's energy to the models.
//!
//! A GPU counts millijoules for the whole board. Between two readings, each process used a share of the SM time; its
//! model is charged that share of the interval's energy, rounded down to a microjoule. The rest is charged to nobody:
//! idle time, other processes, intervals with unknown shares, and everything counted before the first reading.
//!
//! Invariants, verified by the property test below:
//! - the charges of a GPU add up exactly to its counter, after every reading;
//! - a charge never decreases, unless the counter does (the driver was reloaded): then all start again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sample::{Joules, Process};
use crate::discovery::owners::{Owner, Owners};

/// A model's share of a GPU's SM time in an interval, in percent.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// The model; `None`: a process of no model.
    pub owner: Option<Arc<Owner>>,
    /// Percent, 0 to 100.
    pub percent: f64,
}

/// The shares of SM time; `None` if the driver does not report them (MIG, old hardware).
#[must_use]
pub fn parts(processes: &[Process], owners: &Owners) -> Option<Vec<Part>> {
    let parts: Vec<Part> = (processes.iter())
        .filter_map(|process| Some(Part { owner: owners.of(process.pid).cloned(), percent: process.sm? }))
        .collect();
    (!parts.is_empty() || processes.is_empty()).then_some(parts)
}

/// The charges for all GPUs, by UUID.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<String, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// Counter at the last reading, in microjoules.
    counter: u64,
    charges: BTreeMap<Option<Arc<Owner>>, u64>,
}

impl Ledger {
    /// Charges the energy that `gpu` used since its last reading. `parts` are the shares of SM time since then; `None`:
    /// unknown, so charged to nobody.
    pub fn charge(&mut self, gpu: &str, counter_mj: u64, parts: Option<&[Part]>) {
        let counter = counter_mj.saturating_mul(1000);
        let account = match self.accounts.get_mut(gpu) {
            Some(account) if account.counter <= counter => account,
            // New, or the counter restarted: everything on it was before our time.
            _ => {
                let charges = BTreeMap::from([(None, counter)]);
                self.accounts.insert(gpu.to_owned(), Account { counter, charges });
                return;
            }
        };
        let used = counter - account.counter;
        account.counter = counter;
        let mut rest = used;
        let parts = parts.unwrap_or_default();
        // Apart from rounding, the driver's samples of many processes add up to at most 100 %.
        let whole = parts.iter().map(|part| part.percent.max(0.0)).sum::<f64>().max(100.0);
        for part in parts.iter().filter(|part| part.owner.is_some()) {
            let charge = ((used as f64 * part.percent.max(0.0) / whole) as u64).min(rest);
            rest -= charge;
            *account.charges.entry(part.owner.clone()).or_default() += charge;
        }
        *account.charges.entry(None).or_default() += rest;
    }

    /// The charges for a GPU, nobody's first. Empty for a GPU that was never read.
    #[must_use]
    pub fn charges(&self, gpu: &str) -> Vec<Joules> {
        let charges = self.accounts.get(gpu).map(|account| &account.charges);
        charges
            .into_iter()
            .flatten()
            .map(|(owner, &microjoules)| Joules { owner: owner.clone(), microjoules })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(port: u16) -> Option<Arc<Owner>> {
        (port > 0).then(|| Arc::new(Owner { port, model: format!("model-{port}") }))
    }

    fn part(port: u16, percent: f64) -> Part {
        Part { owner: owner(port), percent }
    }

    fn charged(ledger: &Ledger) -> Vec<(u16, u64)> {
        let port = |joules: &Joules| joules.owner.as_ref().map_or(0, |owner| owner.port);
        ledger.charges("GPU").iter().map(|joules| (port(joules), joules.microjoules)).collect()
    }

    #[test]
    fn an_interval_is_split_by_the_time_on_the_sms() {
        let mut ledger = Ledger::default();
        ledger.charge("GPU", 5_000, Some(&[part(1, 50.0)]));
        assert_eq!(charged(&ledger), [(0, 5_000_000)], "what was before the first reading is nobody's");
        ledger.charge("GPU", 6_000, Some(&[part(1, 50.0), part(2, 20.0), part(0, 10.0)]));
        assert_eq!(charged(&ledger), [(0, 5_300_000), (1, 500_000), (2, 200_000)]);
        ledger.charge("GPU", 7_000, None);
        assert_eq!(charged(&ledger), [(0, 6_300_000), (1, 500_000), (2, 200_000)], "an unseen interval is nobody's");
    }

    #[test]
    fn parts_of_more_than_all_are_scaled_down() {
        let mut ledger = Ledger::default();
        ledger.charge("GPU", 0, None);
        ledger.charge("GPU", 1_000, Some(&[part(1, 150.0), part(2, 50.0)]));
        assert_eq!(charged(&ledger), [(0, 0), (1, 750_000), (2, 250_000)]);
    }

    #[test]
    fn a_counter_that_begins_again_begins_all_again() {
        let mut ledger = Ledger::default();
        ledger.charge("GPU", 0, None);
        ledger.charge("GPU", 1_000, Some(&[part(1, 100.0)]));
        ledger.charge("GPU", 10, Some(&[part(1, 100.0)]));
        assert_eq!(charged(&ledger), [(0, 10_000)]);
    }

    #[test]
    fn where_the_driver_does_not_tell_who_had_the_sms_nobody_is_charged() {
        let unknown = Process { pid: 20, memory: None, sm: None, codecs: None, mig: None };
        assert_eq!(parts(&[unknown], &Owners::default()), None);
        assert_eq!(parts(&[], &Owners::default()), Some(vec![]), "an idle GPU is known to be idle");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn charges_add_up_to_the_counter_and_never_fall(
            readings in prop::collection::vec(
                (0u64..1 << 40, prop::option::of(prop::collection::vec((0u16..4, 0f64..150.0), 0..6))), 1..30,
            ),
        ) {
            let mut ledger = Ledger::default();
            let mut before: Vec<(u16, u64)> = Vec::new();
            let mut last = 0;
            for (counter, parts) in readings {
                let parts = parts.map(|parts| parts.iter().map(|&(port, percent)| part(port, percent)).collect::<Vec<_>>());
                ledger.charge("GPU", counter, parts.as_deref());
                let now = charged(&ledger);
                prop_assert_eq!(now.iter().map(|(_, charge)| charge).sum::<u64>(), counter * 1000);
                if counter >= last {
                    for (port, charge) in &before {
                        let later = now.iter().find(|(other, _)| other == port);
                        prop_assert!(later.is_some_and(|(_, later)| later >= charge), "{before:?} -> {now:?}");
                    }
                }
                (before, last) = (now, counter);
            }
        }
    }
}
