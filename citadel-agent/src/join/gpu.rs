//! Splits a GPU's memory and SM time among the models.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::discovery::owners::{Owner, Owners};
use crate::gpu::sample::Reading;

/// A model's share of a GPU.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// The model; `None` for everything that belongs to no model.
    pub owner: Option<Arc<Owner>>,
    /// Device memory in bytes, if the driver reports it.
    pub memory: Option<u64>,
    /// Percent of SM time, if the driver reports it.
    pub sm: Option<f64>,
}

/// Splits a GPU among the models that have processes on it. The memory of all shares adds up to the GPU's allocated
/// memory: memory of other processes and of the driver is in the share without an owner. If the operating system
/// manages the memory (Grace), that share is the memory of other processes as reported, because the allocated memory
/// then includes pages that no process holds.
#[must_use]
pub fn split(reading: &Reading, owners: &Owners) -> Vec<Share> {
    let mut shares: BTreeMap<Option<&Arc<Owner>>, Share> = BTreeMap::new();
    for process in &reading.processes {
        let owner = owners.of(process.pid);
        match shares.get_mut(&owner) {
            // A sum with an unknown part is unknown.
            Some(share) => {
                share.memory = share.memory.zip(process.memory).map(|(sum, memory)| sum + memory);
                share.sm = share.sm.zip(process.sm).map(|(sum, sm)| sum + sm);
            }
            None => {
                shares.insert(owner, Share { owner: owner.cloned(), memory: process.memory, sm: process.sm });
            }
        }
    }
    let models = || shares.iter().filter(|(owner, _)| owner.is_some()).map(|(_, share)| share.memory);
    if let Some(memory) = reading.memory
        && !reading.unified
    {
        let models: Option<u64> = models().sum();
        let rest = shares.entry(None).or_insert(Share { owner: None, memory: None, sm: None });
        // Processes and total are two separate readings, between which processes can start or exit.
        rest.memory = models.map(|models| memory.used.saturating_sub(models).max(rest.memory.unwrap_or(0)));
    }
    shares.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::inventory::{Inventory, Model};
    use crate::gpu::sample::{DeviceMemory, Process};

    fn model(name: &str, port: u16, pids: &[u32]) -> Model {
        Model {
            name: name.to_owned(),
            port,
            listens: true,
            pids: pids.iter().copied().collect(),
            main: None,
            exe: None,
            unit: None,
            cgroup: None,
            served: None,
            unnamed: false,
            dormant: false,
            engine: None,
        }
    }

    fn owners() -> Owners {
        // Two workers in one unit, one of which lives in a container: to the host they are pids like any other.
        Owners::new(&Inventory { models: vec![model("mixtral", 11400, &[10, 11]), model("phi3", 11403, &[20])] })
    }

    fn process(pid: u32, memory: u64, sm: f64) -> Process {
        Process { pid, memory: Some(memory), sm: Some(sm), codecs: None, mig: None }
    }

    fn reading(used: u64, processes: Vec<Process>) -> Reading {
        let memory = Some(DeviceMemory { total: 1000, used, reserved: Some(10) });
        Reading { memory, processes, ..Reading::default() }
    }

    fn shown(shares: &[Share]) -> Vec<(String, Option<u64>, Option<f64>)> {
        let name = |share: &Share| share.owner.as_ref().map_or(String::new(), |owner| owner.model.clone());
        shares.iter().map(|share| (name(share), share.memory, share.sm)).collect()
    }

    #[test]
    fn the_whole_process_tree_counts_for_its_model_and_strangers_for_none() {
        let processes =
            vec![process(10, 100, 30.0), process(11, 200, 20.0), process(20, 50, 5.0), process(99, 40, 1.0)];
        let shares = split(&reading(450, processes), &owners());
        // 60 bytes are no process's.
        assert_eq!(
            shown(&shares),
            [
                (String::new(), Some(100), Some(1.0)),
                ("mixtral".to_owned(), Some(300), Some(50.0)),
                ("phi3".to_owned(), Some(50), Some(5.0))
            ]
        );
    }

    #[test]
    fn what_the_driver_does_not_know_stays_unknown() {
        let unknown = Process { pid: 20, memory: None, sm: None, codecs: None, mig: None };
        let shares = split(&Reading { processes: vec![unknown], ..Reading::default() }, &owners());
        assert_eq!(shown(&shares), [("phi3".to_owned(), None, None)]);
    }

    #[test]
    fn a_sum_with_an_unknown_part_is_unknown() {
        let garbage = Process { sm: None, memory: None, ..process(11, 0, 0.0) };
        let shares = split(&reading(450, vec![process(10, 100, 30.0), garbage, process(20, 50, 5.0)]), &owners());
        assert_eq!(
            shown(&shares),
            [
                // What is no model's cannot be computed.
                (String::new(), None, None),
                ("mixtral".to_owned(), None, None),
                ("phi3".to_owned(), Some(50), Some(5.0))
            ]
        );
    }

    #[test]
    fn unified_memory_is_as_it_is_read() {
        let reading = Reading { unified: true, ..reading(450, vec![process(10, 100, 30.0), process(99, 40, 1.0)]) };
        assert_eq!(
            shown(&split(&reading, &owners())),
            [(String::new(), Some(40), Some(1.0)), ("mixtral".to_owned(), Some(100), Some(30.0))]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn memory_adds_up_to_what_is_allocated(
            sizes in prop::collection::vec((prop::sample::select(vec![10u32, 11, 20, 98, 99]), 0u64..1 << 30), 0..20),
            of_the_driver in 0u64..1 << 20,
        ) {
            let processes: Vec<_> = sizes.iter().map(|&(pid, size)| process(pid, size, 0.0)).collect();
            let used = sizes.iter().map(|(_, size)| size).sum::<u64>() + of_the_driver;
            let shares = split(&reading(used, processes), &owners());
            prop_assert_eq!(shares.iter().filter_map(|share| share.memory).sum::<u64>(), used);
        }
    }
}
