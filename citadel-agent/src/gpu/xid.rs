//! Xid errors, counted once although two report them. Pure.
//!
//! NVML delivers most of them as events, but not those after which it cannot answer (79, 119, 120: the GPU is off the bus,
//! its firmware is silent); the kernel's log has those too, but may not be readable, or lose lines. Each of the two
//! reports an error at most once, so of a GPU's errors with one number there were at least as many as the one that
//! reported more: that is the count. It never falls, whichever of the two fails for a while.
//!
//! Users other than root can make the kernel log text of theirs (a file system's mount option, say), so a line counts only
//! where it is the driver's: it begins as the driver's lines do, and names a GPU of this host. Series are bounded by the
//! host's GPUs and `MOST`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Greatest Xid that has a series of its own. The driver's list (`nverror.h`, R580) ends at 172; newer drivers add some.
const MOST: u64 = 255;

/// What NVML calls an Xid that it cannot name (nvml.h).
pub const UNKNOWN: u64 = 999;

/// Most GPUs that are remembered: the addresses of a host change only where hardware is exchanged while it runs.
const MOST_GPUS: usize = 256;

/// Xids after which ECC counters have moved: 48 double bit, 63 and 64 row remapping, 92 high single bit rate, 94 contained,
/// 95 uncontained, 140 unrecovered (NVIDIA's catalogue of Xid errors).
const ECC: [u64; 7] = [48, 63, 64, 92, 94, 95, 140];

/// How the driver's lines about Xids begin.
const XID: &str = "NVRM: Xid (PCI:";

/// Who reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reporter {
    /// An NVML event.
    Nvml,
    /// A line of the kernel's log.
    Kernel,
}

/// Which error: the driver's number, or any that the driver does not have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Xid(u64);

impl Xid {
    /// The number as the driver gives it; those out of its range are one.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(if (1..=MOST).contains(&number) || number == UNKNOWN { number } else { 0 })
    }

    /// The number, unless it is out of the driver's range.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        (self.0 != 0).then_some(self.0)
    }

    /// As a label's value: the number, or `other`.
    #[must_use]
    pub fn label(self) -> String {
        self.number().map_or_else(|| "other".to_owned(), |number| number.to_string())
    }
}

/// Why a line of the log that speaks of an Xid did not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// A program wrote it.
    NotKernel,
    /// It is the rest of another line.
    Fragment,
    /// The driver's words are in it, but it does not begin with them.
    NotAtStart,
    /// It begins as the driver's lines do, but does not go on so.
    Malformed,
    /// It names no GPU of this host.
    NotAGpu,
}

impl Refusal {
    /// As a label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refusal::NotKernel => "not_kernel",
            Refusal::Fragment => "fragment",
            Refusal::NotAtStart => "not_at_start",
            Refusal::Malformed => "malformed",
            Refusal::NotAGpu => "not_a_gpu",
        }
    }
}

/// Counts by GPU and Xid.
#[derive(Debug, Default)]
pub struct Xids {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Addresses of this host's GPUs, as sysfs or NVML had them at any time.
    gpus: BTreeSet<String>,
    /// By PCI address and Xid: how often NVML reported it, and how often the kernel.
    counts: BTreeMap<(String, Xid), (u64, u64)>,
    /// The newest Xid by PCI address.
    last: BTreeMap<String, Xid>,
    /// By PCI address: how often the kernel logged that it has fallen off the bus.
    fallen: BTreeMap<String, u64>,
    refused: BTreeMap<Refusal, u64>,
    /// An Xid after which ECC counters have moved, since that was last asked.
    ecc: bool,
    /// Lines of the kernel's log that were overwritten before they were read.
    lines_lost: u64,
}

impl Xids {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of GPUs of this host; errors of others do not count.
    pub fn know<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        self.with(|state| {
            for address in addresses {
                if state.gpus.len() < MOST_GPUS && !state.gpus.contains(address) {
                    state.gpus.insert(address.to_owned());
                }
            }
        });
    }

    /// Counts one, and gives how many of its kind there are by now. `pci` is the GPU's address as sysfs spells it.
    ///
    /// # Errors
    /// There is no such GPU; that is counted.
    pub fn count(&self, reporter: Reporter, pci: &str, number: u64) -> Result<u64, Refusal> {
        let xid = Xid::new(number);
        self.with(|state| {
            if !state.gpus.contains(pci) {
                *state.refused.entry(Refusal::NotAGpu).or_default() += 1;
                return Err(Refusal::NotAGpu);
            }
            state.ecc |= ECC.contains(&number);
            let (nvml, kernel) = state.counts.entry((pci.to_owned(), xid)).or_default();
            let counted = match reporter {
                Reporter::Nvml => nvml,
                Reporter::Kernel => kernel,
            };
            *counted += 1;
            let counted = *counted;
            state.last.insert(pci.to_owned(), xid);
            Ok(counted)
        })
    }

    /// Counts a line that says that a GPU has fallen off the bus.
    ///
    /// # Errors
    /// There is no such GPU; that is counted.
    pub fn count_fallen(&self, pci: &str) -> Result<u64, Refusal> {
        self.with(|state| {
            if !state.gpus.contains(pci) {
                *state.refused.entry(Refusal::NotAGpu).or_default() += 1;
                return Err(Refusal::NotAGpu);
            }
            let fallen = state.fallen.entry(pci.to_owned()).or_default();
            *fallen += 1;
            Ok(*fallen)
        })
    }

    /// Counts a line that did not count as an Xid, and gives how many there are of this kind.
    pub fn refuse(&self, refusal: Refusal) -> u64 {
        self.with(|state| {
            let refused = state.refused.entry(refusal).or_default();
            *refused += 1;
            *refused
        })
    }

    /// All counts: PCI address, Xid, how many.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Xid, u64)> {
        let count =
            |((pci, xid), &(nvml, kernel)): (&(String, Xid), &(u64, u64))| (pci.clone(), *xid, nvml.max(kernel));
        self.with(|state| state.counts.iter().map(count).collect())
    }

    /// PCI addresses of GPUs of which the kernel logged that they have fallen off the bus, and how often.
    #[must_use]
    pub fn fallen(&self) -> BTreeMap<String, u64> {
        self.with(|state| state.fallen.clone())
    }

    /// The lines that did not count, by reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<Refusal, u64> {
        self.with(|state| state.refused.clone())
    }

    /// The newest Xid of a GPU.
    #[must_use]
    pub fn last(&self, pci: &str) -> Option<Xid> {
        self.with(|state| state.last.get(pci).copied())
    }

    /// Whether an Xid came since the last call after which ECC counters have moved.
    pub fn take_ecc(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.ecc))
    }

    /// Has [`Self::take_ecc`] say so: an ECC error was reported otherwise.
    pub fn expect_ecc(&self) {
        self.with(|state| state.ecc = true);
    }

    /// Counts lines that the kernel overwrote before they were read.
    pub fn lose(&self, lines: u64) {
        self.with(|state| state.lines_lost += lines);
    }

    /// How many such lines there were.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.with(|state| state.lines_lost)
    }
}

/// One record of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Sequence number; one that is left out was lost.
    pub sequence: u64,
    /// What it says of a GPU.
    pub news: News,
    /// The message.
    pub message: &'a str,
}

/// What a record says of a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// Nothing.
    None,
    /// An Xid of the GPU at a PCI address.
    Xid(String, u64),
    /// The GPU at a PCI address is no longer there.
    Fallen(String),
    /// It has the driver's words for an Xid, and is not the driver's.
    Refused(Refusal),
}

/// Parses a record. `None`: it is none.
#[must_use]
pub fn parse_record(record: &str) -> Option<Record<'_>> {
    let (prefix, message) = record.split_once(';')?;
    // Further lines are the record's own fields; line ends within a message are escaped.
    let message = message.lines().next().unwrap_or_default();
    let mut prefix = prefix.split(',');
    let priority: u32 = prefix.next()?.parse().ok()?;
    let sequence = prefix.next()?.parse().ok()?;
    // `c`: printed as the continuation of a line, so its beginning may be another's text.
    let fragment = prefix.nth(1).is_some_and(|flags| flags.contains('c'));
    // The facility is above the three bits of the level; the kernel's own is 0, and a program cannot write as it.
    let kernel = priority >> 3 == 0;
    let news = match parse_message(message) {
        News::Xid(..) | News::Fallen(_) if !kernel => News::Refused(Refusal::NotKernel),
        News::Xid(..) | News::Fallen(_) if fragment => News::Refused(Refusal::Fragment),
        news => news,
    };
    Some(Record { sequence, news, message })
}

fn parse_message(message: &str) -> News {
    if let Some(rest) = message.strip_prefix(XID) {
        return parse_xid(rest).map_or(News::Refused(Refusal::Malformed), |(pci, xid)| News::Xid(pci, xid));
    }
    if let Some(pci) = parse_fallen(message) {
        return News::Fallen(pci);
    }
    if message.contains(XID) { News::Refused(Refusal::NotAtStart) } else { News::None }
}

/// `0000:3b:00): 79, pid=...` or, of a MIG instance, `0000:3b:00 GPU-I:05 GPU-CI:00): 31, ...` -> address and Xid. The
/// driver writes no function; GPUs are function 0.
fn parse_xid(rest: &str) -> Option<(String, u64)> {
    let (place, rest) = rest.split_once("): ")?;
    let mut place = place.split(' ');
    let address = place.next()?;
    let mut instance = |name: &str| match place.next() {
        None => Some(()),
        Some(part) => {
            let number = part.strip_prefix(name)?;
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
        }
    };
    instance("GPU-I:")?;
    instance("GPU-CI:")?;
    if place.next().is_some() {
        return None;
    }
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let xid = rest[..digits].parse().ok()?;
    Some((parse_address(address)?, xid))
}

/// The lines without an Xid that say that a GPU is gone: `NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.` while it
/// runs, `NVRM: The NVIDIA GPU 0000:3b:00.0\x0aNVRM: ... fallen off the bus and is not responding to commands.` when the
/// driver starts it.
fn parse_fallen(message: &str) -> Option<String> {
    let (address, rest) = if let Some(rest) = message.strip_prefix("NVRM: GPU ") {
        rest.split_once(": ").filter(|(_, rest)| rest.starts_with("GPU has fallen off the bus"))?
    } else {
        let rest = message.strip_prefix("NVRM: The NVIDIA GPU ")?;
        rest.split_at_checked(rest.find(['\\', ' ', '\n'])?)?
    };
    rest.contains("fallen off the bus").then(|| parse_address(address.strip_suffix(".0")?))?
}

fn parse_address(address: &str) -> Option<String> {
    let mut parts = address.split(':').map(|part| {
        // Not more digits than the driver writes, and no sign.
        let plain = (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(part, 16).ok()).flatten()
    });
    let (Some(Some(domain)), Some(Some(bus)), Some(Some(device)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some(super::pci::address(domain, bus, device))
}

#[cfg(test)]
#[path = "xid_tests.rs"]
mod tests;
