//! Assigns ports to slots in the kernel's maps. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A port keeps its slot until the programs are loaded again, even while it is not measured: so its counters never decrease, and a
/// slot never has another port's counts.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Slots {
    by_port: BTreeMap<u16, u32>,
    capacity: u32,
}

/// More ports were measured since the agent started than its maps have slots for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{ports} different ports since the agent started, but its kernel maps have room for {capacity}; restart the agent to \
     measure them"
)]
pub struct TooManyPorts {
    /// Ports with a slot, including the new ones.
    pub ports: usize,
    /// Number of slots.
    pub capacity: u32,
}

impl Slots {
    /// Slots beyond those needed at the start, for ports added by a reload.
    const SPARE: usize = 32;

    /// A slot for each of `ports`, and some spare ones.
    #[must_use]
    pub fn of(ports: &BTreeSet<u16>) -> Self {
        let by_port: BTreeMap<_, _> = ports.iter().copied().zip(0..).collect();
        let capacity = (by_port.len() + Self::SPARE) as u32;
        Self { by_port, capacity }
    }

    /// Number of slots.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Adds a slot for each of `ports`.
    ///
    /// # Errors
    /// There are not enough slots; then nothing changes.
    pub fn with(&self, ports: &BTreeSet<u16>) -> Result<Self, TooManyPorts> {
        let mut by_port = self.by_port.clone();
        for &port in ports {
            let next = by_port.len() as u32;
            by_port.entry(port).or_insert(next);
        }
        if by_port.len() > self.capacity as usize {
            return Err(TooManyPorts { ports: by_port.len(), capacity: self.capacity });
        }
        Ok(Self { by_port, capacity: self.capacity })
    }

    /// The slot of a port.
    #[must_use]
    pub fn get(&self, port: u16) -> Option<u32> {
        self.by_port.get(&port).copied()
    }

    /// All ports that ever had a slot.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_its_slot() {
        let slots = Slots::of(&[11401, 11500].into());
        let later = slots.with(&[11400].into()).unwrap();
        assert_eq!(later.get(11401), slots.get(11401));
        assert_eq!(later.get(11500), slots.get(11500));
        let mut used: Vec<_> = later.ports().map(|port| later.get(port).unwrap()).collect();
        used.sort_unstable();
        assert_eq!(used, [0, 1, 2]);
    }

    #[test]
    fn too_many_ports_are_refused_as_a_whole() {
        let slots = Slots::of(&BTreeSet::new()).with(&(0..32).collect()).unwrap();
        let error = slots.with(&[100, 101].into()).unwrap_err();
        assert_eq!(error, TooManyPorts { ports: 34, capacity: 32 });
        assert_eq!(slots.get(100), None);
    }
}
