//! Maps processes to models, for frequent lookups.

use std::collections::HashMap;
use std::sync::Arc;

use super::inventory::{Inventory, Pid};

/// The labels of a model. Ordered by port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner {
    /// The TCP port.
    pub port: u16,
    /// Value of the `model` label.
    pub model: String,
}

/// All processes of all models.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Owners {
    by_pid: HashMap<Pid, Arc<Owner>>,
}

impl Owners {
    /// The processes of `inventory`; one that several models share belongs to the first by port, as in
    /// [`Inventory::model_of`].
    #[must_use]
    pub fn new(inventory: &Inventory) -> Self {
        let mut by_pid = HashMap::new();
        for model in &inventory.models {
            let owner = Arc::new(Owner { port: model.port, model: model.name.clone() });
            for &pid in &model.pids {
                by_pid.entry(pid).or_insert_with(|| Arc::clone(&owner));
            }
        }
        Self { by_pid }
    }

    /// The model of a process; `None` if it belongs to no model.
    #[must_use]
    pub fn of(&self, pid: Pid) -> Option<&Arc<Owner>> {
        self.by_pid.get(&pid)
    }
}
