//! What became of each sample, for one destination.
//!
//! # Invariant
//! `seq - begin = acknowledged + rejected + dropped`: the cursor moves only in [`Ledger::settle`], which adds what it moved
//! over to exactly one of the three. What is collected and not settled is pending. Hence
//! `collected = acknowledged + rejected + dropped + pending`, at every moment and over restarts, for the cursor and the
//! counts are one file, replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::spool::Reason;

/// What became of samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The receiver has them.
    Acknowledged,
    /// The receiver does not want them.
    Rejected,
    /// They were lost.
    Dropped(Reason),
}

/// One destination's account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// The number of the first sample that this destination was meant to get.
    pub begin: u64,
    /// The number of the first sample that is not settled: the cursor.
    pub seq: u64,
    /// The end of the spool when this was written: what was collected until then, even if the disk lost it.
    pub end: u64,
    /// Samples that the receiver acknowledged.
    pub acknowledged: u64,
    /// Samples that the receiver refused for good.
    pub rejected: u64,
    /// Samples that were lost, by reason.
    pub dropped: BTreeMap<Reason, u64>,
    /// What the receiver was found not to understand.
    pub receiver: Receiver,
}

/// What is remembered of a receiver.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receiver {
    /// Its URL: another one may understand more.
    pub url: String,
    /// When it was found to know only 1.0, in milliseconds since the epoch.
    pub only_v1_ms: Option<i64>,
    /// When it was found to take no native histograms.
    pub no_native_ms: Option<i64>,
}

impl Ledger {
    /// An account that begins with the sample `seq`.
    #[must_use]
    pub fn new(seq: u64) -> Self {
        let (begin, receiver) = (seq, Receiver::default());
        Self { begin, seq, end: seq, acknowledged: 0, rejected: 0, dropped: BTreeMap::new(), receiver }
    }

    /// Moves the cursor over `range`, which begins where it is. What lies behind it already counts once.
    pub fn settle(&mut self, range: Range<u64>, outcome: Outcome) {
        debug_assert!(range.start <= self.seq, "samples are settled in order");
        let count = range.end.saturating_sub(self.seq);
        self.seq += count;
        match outcome {
            Outcome::Acknowledged => self.acknowledged += count,
            Outcome::Rejected => self.rejected += count,
            Outcome::Dropped(reason) => *self.dropped.entry(reason).or_default() += count,
        }
    }

    /// Samples that were collected before the spool's `end` and are not settled.
    #[must_use]
    pub fn pending(&self, end: u64) -> u64 {
        end.saturating_sub(self.seq)
    }

    /// Samples that were collected for this destination.
    #[must_use]
    pub fn collected(&self, end: u64) -> u64 {
        end.max(self.seq) - self.begin
    }

    /// Whether the account is consistent.
    #[must_use]
    pub fn holds(&self) -> bool {
        let settled = self.acknowledged + self.rejected + self.dropped.values().sum::<u64>();
        self.seq.checked_sub(self.begin) == Some(settled)
    }
}

/// A ledger in its file: a checksum keeps a flipped digit from moving the cursor.
#[derive(Serialize, Deserialize)]
struct Sealed {
    ledger: Ledger,
    crc32: u32,
}

fn crc(ledger: &Ledger) -> io::Result<u32> {
    Ok(crc32fast::hash(&serde_json::to_vec(ledger)?))
}

/// Reads the ledger at `path`; `None` when there is none.
///
/// # Errors
/// The file cannot be read, or what it says is not to be trusted.
pub fn read(path: &Path) -> io::Result<Option<Ledger>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Sealed { ledger, crc32 } = serde_json::from_slice(&text)?;
    if crc(&ledger)? != crc32 || !ledger.holds() {
        return Err(io::Error::new(ErrorKind::InvalidData, "its checksum or its sums are wrong"));
    }
    Ok(Some(ledger))
}

/// Replaces the ledger at `path`, so that a crash leaves the old or the new one.
///
/// # Errors
/// The disk refuses.
pub fn write(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let sealed = Sealed { ledger: ledger.clone(), crc32: crc(ledger)? };
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&sealed)?)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sample_is_counted_once(
            begin in 0u64..1000, steps in prop::collection::vec((0u64..50, 0u64..50, 0usize..4), 0..60)
        ) {
            let outcomes = [
                Outcome::Acknowledged, Outcome::Rejected, Outcome::Dropped(Reason::Size), Outcome::Dropped(Reason::Age),
            ];
            let mut ledger = Ledger::new(begin);
            for (back, length, outcome) in steps {
                let from = ledger.seq.saturating_sub(back);
                ledger.settle(from..from + length, outcomes[outcome]);
                prop_assert!(ledger.holds());
                let end = ledger.seq + back;
                let settled = ledger.acknowledged + ledger.rejected + ledger.dropped.values().sum::<u64>();
                prop_assert_eq!(ledger.collected(end), settled + ledger.pending(end));
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("cursor.json");
        assert_eq!(read(&path).unwrap(), None);
        let mut ledger = Ledger::new(7);
        ledger.settle(7..30, Outcome::Acknowledged);
        ledger.settle(30..31, Outcome::Dropped(Reason::Damaged));
        write(&path, &ledger).unwrap();
        assert_eq!(read(&path).unwrap(), Some(ledger));
        let text = fs::read(&path).unwrap();
        for (at, bit) in (0..text.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut broken = text.clone();
            broken[at] ^= 1 << bit;
            fs::write(&path, broken).unwrap();
            let found = read(&path);
            assert!(found.is_err() || found.unwrap() == Some(ledger_of(&text)), "byte {at}, bit {bit}");
        }
    }

    fn ledger_of(text: &[u8]) -> Ledger {
        serde_json::from_slice::<Sealed>(text).unwrap().ledger
    }
}
