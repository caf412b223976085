//! Xid errors, counted once although two tell of them. Pure.
//!
//! NVML delivers most of them as events, but not those after which it cannot answer (79, 119, 120: the GPU is off the bus,
//! its firmware is silent); the kernel's log has those too, but may not be readable, or lose lines. Each of the two tells
//! of an error at most once, so of a GPU's errors with one number there were at least as many as the one that told of
//! more: that is the count. It never falls, whichever of the two fails for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Who told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Teller {
    /// An NVML event.
    Nvml,
    /// A line of the kernel's log.
    Kernel,
}

/// Counts by GPU and Xid.
#[derive(Debug, Default)]
pub struct Xids {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By PCI address and Xid: how often NVML told of it, and how often the kernel.
    counts: BTreeMap<(String, u64), (u64, u64)>,
    /// The newest Xid by PCI address.
    last: BTreeMap<String, u64>,
    /// Lines of the kernel's log that were overwritten before they were read.
    lines_lost: u64,
}

impl Xids {
    /// Counts one. `pci` is the GPU's address as sysfs spells it.
    pub fn count(&self, teller: Teller, pci: &str, xid: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (nvml, kernel) = state.counts.entry((pci.to_owned(), xid)).or_default();
        match teller {
            Teller::Nvml => *nvml += 1,
            Teller::Kernel => *kernel += 1,
        }
        state.last.insert(pci.to_owned(), xid);
    }

    /// All counts: PCI address, Xid, how many.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64, u64)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count =
            |((pci, xid), &(nvml, kernel)): (&(String, u64), &(u64, u64))| (pci.clone(), *xid, nvml.max(kernel));
        state.counts.iter().map(count).collect()
    }

    /// The newest Xid of a GPU.
    #[must_use]
    pub fn last(&self, pci: &str) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last.get(pci).copied()
    }

    /// Counts lines that the kernel overwrote before they were read.
    pub fn lose(&self, lines: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines_lost += lines;
    }

    /// How many such lines there were.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines_lost
    }
}

/// One record of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Sequence number; one that is left out was lost.
    pub sequence: u64,
    /// The GPU's PCI address and the Xid, where the record tells of one.
    pub xid: Option<(String, u64)>,
    /// The message.
    pub message: &'a str,
}

/// Parses a record. `None`: it is none, or not the kernel's own, so that no program's line counts as the driver's.
#[must_use]
pub fn parse_record(record: &str) -> Option<Record<'_>> {
    let (prefix, message) = record.split_once(';')?;
    let message = message.lines().next().unwrap_or_default();
    let mut prefix = prefix.split(',');
    let priority: u32 = prefix.next()?.parse().ok()?;
    let sequence = prefix.next()?.parse().ok()?;
    // The facility is above the three bits of the level; the kernel's own is 0, and a program cannot write as it.
    let kernel = priority >> 3 == 0;
    Some(Record { sequence, xid: kernel.then(|| parse_xid(message)).flatten(), message })
}

/// `NVRM: Xid (PCI:0000:3b:00): 79, pid=...` -> address and Xid. The driver writes no function; GPUs are function 0.
fn parse_xid(message: &str) -> Option<(String, u64)> {
    let rest = message.split_once("NVRM: Xid (PCI:")?.1;
    let (address, rest) = rest.split_once("): ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let xid = rest[..digits].parse().ok()?;
    let mut parts = address.split(':').map(|part| u32::from_str_radix(part, 16));
    let (Some(Ok(domain)), Some(Ok(bus)), Some(Ok(device)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some((super::pci::address(domain, bus, device), xid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_that_both_tell_of_is_counted_once() {
        let xids = Xids::default();
        xids.count(Teller::Nvml, "0000:3b:00.0", 31);
        xids.count(Teller::Kernel, "0000:3b:00.0", 31);
        xids.count(Teller::Kernel, "0000:3b:00.0", 79);
        xids.count(Teller::Kernel, "0000:3b:00.0", 31);
        xids.count(Teller::Nvml, "0000:5e:00.0", 48);
        let counts: Vec<_> =
            xids.all().into_iter().map(|(pci, xid, count)| (pci[5..7].to_owned(), xid, count)).collect();
        assert_eq!(counts, [("3b".to_owned(), 31, 2), ("3b".to_owned(), 79, 1), ("5e".to_owned(), 48, 1)]);
        assert_eq!(xids.last("0000:3b:00.0"), Some(31));
    }

    #[test]
    fn records_of_the_driver_are_understood() {
        let record = "4,1234,98765,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.\n SUBSYSTEM=pci\n";
        let parsed = parse_record(record).unwrap();
        assert_eq!((parsed.sequence, parsed.xid), (1234, Some(("0000:3b:00.0".to_owned(), 79))));
        let record = "3,7,1,-,caller=T1;NVRM: Xid (PCI:0001:C1:00): 119, Timeout waiting for RPC from GSP!";
        assert_eq!(parse_record(record).unwrap().xid, Some(("0001:c1:00.0".to_owned(), 119)));
        assert_eq!(parse_record("6,8,1,-;usb 1-1: new device").unwrap().xid, None);
    }

    #[test]
    fn what_a_program_writes_to_the_log_is_not_the_drivers() {
        let record = "12,9,1,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1";
        assert_eq!(parse_record(record).unwrap().xid, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_makes_it_panic(line in "[0-9,;:()A-Za-z \\n]{0,80}|\\PC{0,80}", xid in "[0-9]{0,30}") {
            _ = parse_record(&line);
            _ = parse_record(&format!("4,1,1,-;NVRM: Xid (PCI:{line}): {xid}"));
        }
    }
}
