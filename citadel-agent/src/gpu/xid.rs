//! Xid errors, counted once although two sources report them. Pure.
//!
//! NVML delivers most of them as events, but not those after which it cannot answer (79, 119, 120: the GPU is off the
//! bus, its firmware is silent). The kernel log has those too, but may be unreadable or lose lines. Each source reports
//! an error at most once, so for each GPU and Xid number there were at least as many errors as the source with the
//! higher count reported: that is the count. It never decreases, whichever source fails for a while.
//!
//! Non-root users can make the kernel log text of theirs (such as a mount option), so a line counts only if it is from
//! the driver: it starts like the driver's lines, and names a GPU of this host. The number of series is bounded by the
//! host's GPUs and `MOST`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// The highest Xid with its own series. The driver's list (`nverror.h`, R580) ends at 172; newer drivers add more.
const MOST: u64 = 255;

/// NVML's number for an unknown Xid (nvml.h).
pub const UNKNOWN: u64 = 999;

/// Maximum number of remembered GPUs: addresses change only when hardware is exchanged at run time.
const MOST_GPUS: usize = 256;

/// Xids that indicate changed ECC counters: 48 double bit, 63 and 64 row remapping, 92 high single bit rate, 94
/// contained, 95 uncontained, 140 unrecovered (NVIDIA's catalogue of Xid errors).
const ECC: [u64; 7] = [48, 63, 64, 92, 94, 95, 140];

/// Start of the driver's lines about Xids.
const XID: &str = "NVRM: Xid (PCI:";

/// The source of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reporter {
    /// An NVML event.
    Nvml,
    /// A kernel log line.
    Kernel,
}

/// An error number of the driver, or any unknown one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Xid(u64);

impl Xid {
    /// An error number; all numbers outside of the driver's range are the same.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(if (1..=MOST).contains(&number) || number == UNKNOWN { number } else { 0 })
    }

    /// The number, if it is in the driver's range.
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

/// Why a log line that mentions an Xid was not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// A program wrote it.
    NotKernel,
    /// It is the continuation of another line.
    Fragment,
    /// It contains the driver's text, but does not start with it.
    NotAtStart,
    /// It starts like the driver's lines, but is malformed.
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
    state: Mutex<XidState>,
}

#[derive(Debug, Default)]
struct XidState {
    /// Addresses of this host's GPUs, according to sysfs or NVML at any time.
    gpus: BTreeSet<String>,
    /// By PCI address and Xid: the number of reports by NVML, and by the kernel.
    counts: BTreeMap<(String, Xid), (u64, u64)>,
    /// The newest Xid by PCI address.
    last: BTreeMap<String, Xid>,
    /// By PCI address: how often the kernel logged that it fell off the bus.
    fallen: BTreeMap<String, u64>,
    refused: BTreeMap<Refusal, u64>,
    /// Whether an Xid has indicated changed ECC counters since the last query.
    ecc: bool,
    /// Kernel log lines that were overwritten before they were read.
    lines_lost: u64,
}

impl Xids {
    fn with<T>(&self, f: impl FnOnce(&mut XidState) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds GPUs of this host; errors of other GPUs are not counted.
    pub fn know<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        self.with(|state| {
            for address in addresses {
                if state.gpus.len() < MOST_GPUS && !state.gpus.contains(address) {
                    state.gpus.insert(address.to_owned());
                }
            }
        });
    }

    /// Counts an error and returns the count of its kind. `pci` is the GPU's address as in sysfs.
    ///
    /// # Errors
    /// There is no such GPU; this is counted.
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

    /// Counts a line that reports that a GPU fell off the bus.
    ///
    /// # Errors
    /// There is no such GPU; this is counted.
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

    /// Counts a refused line, and returns the count of its kind.
    pub fn refuse(&self, refusal: Refusal) -> u64 {
        self.with(|state| {
            let refused = state.refused.entry(refusal).or_default();
            *refused += 1;
            *refused
        })
    }

    /// All counts: PCI address, Xid, count.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Xid, u64)> {
        let count =
            |((pci, xid), &(nvml, kernel)): (&(String, Xid), &(u64, u64))| (pci.clone(), *xid, nvml.max(kernel));
        self.with(|state| state.counts.iter().map(count).collect())
    }

    /// PCI addresses of GPUs that fell off the bus according to the kernel log, with counts.
    #[must_use]
    pub fn fallen(&self) -> BTreeMap<String, u64> {
        self.with(|state| state.fallen.clone())
    }

    /// Refused lines, by reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<Refusal, u64> {
        self.with(|state| state.refused.clone())
    }

    /// The newest Xid of a GPU.
    #[must_use]
    pub fn last(&self, pci: &str) -> Option<Xid> {
        self.with(|state| state.last.get(pci).copied())
    }

    /// Whether an Xid has indicated changed ECC counters since the last call.
    pub fn take_ecc(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.ecc))
    }

    /// Makes [`Self::take_ecc`] return true, because an ECC error was reported otherwise.
    pub fn expect_ecc(&self) {
        self.with(|state| state.ecc = true);
    }

    /// Counts lines that the kernel overwrote before they were read.
    pub fn lose(&self, lines: u64) {
        self.with(|state| state.lines_lost += lines);
    }

    /// The number of such lines.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.with(|state| state.lines_lost)
    }
}

/// A record of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Sequence number; missing numbers were lost.
    pub sequence: u64,
    /// What it reports about a GPU.
    pub news: News,
    /// The message.
    pub message: &'a str,
}

/// A report about a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// Nothing.
    None,
    /// An Xid of the GPU at a PCI address.
    Xid(String, u64),
    /// The GPU at a PCI address fell off the bus.
    Fallen(String),
    /// It contains the driver's text for an Xid, but is not from the driver.
    Refused(Refusal),
}

/// Parses a record; `None` if it is invalid.
#[must_use]
pub fn parse_record(record: &str) -> Option<Record<'_>> {
    let (prefix, message) = record.split_once(';')?;
    // Further lines are fields of the record; line ends within a message are escaped.
    let message = message.lines().next().unwrap_or_default();
    let mut prefix = prefix.split(',');
    let priority: u32 = prefix.next()?.parse().ok()?;
    let sequence = prefix.next()?.parse().ok()?;
    // `c`: printed as the continuation of a line, whose beginning may be another's text.
    let fragment = prefix.nth(1).is_some_and(|flags| flags.contains('c'));
    // The facility is above the three bits of the level; 0 is the kernel, and programs cannot use it.
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

/// Parses `0000:3b:00): 79, pid=...` or, for a MIG instance, `0000:3b:00 GPU-I:05 GPU-CI:00): 31, ...` into address and
/// Xid. The driver omits the function; GPUs are function 0.
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

/// Parses lines without an Xid that report a lost GPU: `NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.` at run
/// time, `NVRM: The NVIDIA GPU 0000:3b:00.0\x0aNVRM: ... fallen off the bus and is not responding to commands.` when
/// the driver initializes it.
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
        // At most as many digits as the driver writes, and no sign.
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
