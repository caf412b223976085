//! The outcome of each sample for one destination.
//!
//! # Invariant
//! `seq - begin = acknowledged + rejected + dropped`: the cursor moves only in [`Ledger::settle`], which adds the
//! samples it passed to exactly one of the three. Collected samples that are not settled are pending. Therefore
//! `collected = acknowledged + rejected + dropped + pending`, at all times and across restarts, because cursor and
//! counts are written together.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::spool::Reason;
use crate::state_file;

/// Outcome of samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Stored by the receiver.
    Acknowledged,
    /// Permanently refused by the receiver.
    Rejected,
    /// Lost.
    Dropped(Reason),
}

/// The account of a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// Number of the first sample collected for this destination.
    pub begin: u64,
    /// Number of the first sample that is not settled: the cursor.
    pub seq: u64,
    /// End of the spool when this was written: samples collected until then, even if the disk lost them.
    pub end: u64,
    /// Acknowledged samples.
    pub acknowledged: u64,
    /// Rejected samples.
    pub rejected: u64,
    /// Dropped samples by reason.
    pub dropped: BTreeMap<Reason, u64>,
    /// Detected limitations of the receiver.
    pub receiver: Receiver,
}

/// What is remembered about a receiver.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receiver {
    /// Its URL: another receiver may support more.
    pub url: String,
    /// When it was found to support only 1.0, in milliseconds since the epoch.
    pub only_v1_ms: Option<i64>,
    /// When it was found not to accept native histograms.
    pub no_native_ms: Option<i64>,
    /// Whether it has confirmed 2.0. Omitted if false, so that older ledgers keep their checksum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub knows_v2: bool,
}

impl Ledger {
    /// An account that starts at sample `seq`.
    #[must_use]
    pub fn new(seq: u64) -> Self {
        let (begin, receiver) = (seq, Receiver::default());
        Self { begin, seq, end: seq, acknowledged: 0, rejected: 0, dropped: BTreeMap::new(), receiver }
    }

    /// Moves the cursor over `range`, which starts at it. Samples before the cursor are not counted again.
    pub fn settle(&mut self, range: Range<u64>, outcome: Outcome) {
        self.settle_some(range, 0, outcome, outcome);
    }

    /// The same, for a range of which `some` samples have one outcome and the others another.
    pub fn settle_some(&mut self, range: Range<u64>, some: u64, outcome: Outcome, others: Outcome) {
        debug_assert!(range.start <= self.seq, "samples must be settled in order");
        let count = range.end.saturating_sub(self.seq);
        let some = some.min(count);
        self.seq += count;
        self.add(some, outcome);
        self.add(count - some, others);
    }

    fn add(&mut self, count: u64, outcome: Outcome) {
        match outcome {
            // Reasons without samples are not stored.
            _ if count == 0 => {}
            Outcome::Acknowledged => self.acknowledged += count,
            Outcome::Rejected => self.rejected += count,
            Outcome::Dropped(reason) => *self.dropped.entry(reason).or_default() += count,
        }
    }

    /// Samples collected before the spool's `end` that are not settled.
    #[must_use]
    pub fn pending(&self, end: u64) -> u64 {
        end.saturating_sub(self.seq)
    }

    /// Samples collected for this destination.
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

/// Size of a slot: a ledger takes some hundred bytes, and a URL at most 2048.
const SLOT: usize = 8 << 10;

/// A larger file is not a ledger.
const MAX_BYTES: u64 = 1 << 20;

/// A ledger in its slot: the checksum protects the cursor from a flipped digit.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Identifies the newer of the two slots.
    generation: u64,
    ledger: Ledger,
    crc32: u32,
}

impl Sealed {
    fn new(generation: u64, ledger: &Ledger) -> io::Result<Self> {
        Ok(Self { generation, ledger: ledger.clone(), crc32: Self::crc(generation, ledger)? })
    }

    fn crc(generation: u64, ledger: &Ledger) -> io::Result<u32> {
        Ok(crc32fast::hash(&serde_json::to_vec(&(generation, ledger))?))
    }

    /// The newest valid slot of a file, and its index.
    fn newest(bytes: &[u8]) -> Option<(usize, Self)> {
        let good = |slot: &[u8]| {
            let sealed: Self = serde_json::from_slice(slot).ok()?;
            let crc = Self::crc(sealed.generation, &sealed.ledger).ok()?;
            (crc == sealed.crc32 && sealed.ledger.holds()).then_some(sealed)
        };
        let slots = bytes.chunks(SLOT).take(2).enumerate();
        slots.filter_map(|(i, slot)| Some((i, good(slot)?))).max_by_key(|(_, sealed)| sealed.generation)
    }
}

/// Reads the ledger at `path`; `None` if it does not exist.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read(path: &Path) -> io::Result<Option<Ledger>> {
    let bytes = match state_file::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let untrusted = || io::Error::new(ErrorKind::InvalidData, "its checksums or its sums are wrong");
    Sealed::newest(&bytes).map(|(_, sealed)| Some(sealed.ledger)).ok_or_else(untrusted)
}

/// Writes the ledger at `path`; a crash leaves the old or the new one. The file has two slots, of which the older one
/// is overwritten. This needs no new space, so a full disk does not prevent the ledger from releasing what fills it.
///
/// # Errors
/// I/O errors.
pub fn write(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let mut file = match state_file::open(path, true, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return create(path, ledger),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if bytes.len() < 2 * SLOT {
        return create(path, ledger);
    }
    let (slot, generation) = match Sealed::newest(&bytes) {
        Some((slot, newest)) => (1 - slot, newest.generation + 1),
        None => (0, 0),
    };
    file.write_all_at(&text(generation, ledger, SLOT)?, (slot * SLOT) as u64)?;
    file.sync_data()
}

/// Creates the file, first under another name, so that a crash or a full disk leaves a complete file or none. Space for
/// both slots is allocated now.
fn create(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = state_file::create(&new)?;
    let made = file.write_all_at(&text(0, ledger, 2 * SLOT)?, 0).and_then(|()| file.sync_data());
    if let Err(error) = made.and_then(|()| fs::rename(&new, path)) {
        // Free its space for the spool.
        _ = fs::remove_file(&new);
        return Err(error);
    }
    path.parent().map_or(Ok(()), state_file::sync_folder)
}

/// A ledger as stored in a slot, padded with spaces: readable, and overwriting a longer previous one.
fn text(generation: u64, ledger: &Ledger, size: usize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&Sealed::new(generation, ledger)?)?;
    text.resize(size, b' ');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sample_is_counted_once(
            begin in 0u64..1000, steps in prop::collection::vec((0u64..50, 0u64..50, 0u64..60, 0usize..4), 0..60)
        ) {
            let outcomes = [
                Outcome::Acknowledged, Outcome::Rejected, Outcome::Dropped(Reason::Size), Outcome::Dropped(Reason::Age),
            ];
            let mut ledger = Ledger::new(begin);
            for (back, length, some, outcome) in steps {
                let from = ledger.seq.saturating_sub(back);
                ledger.settle_some(from..from + length, some, outcomes[outcome], outcomes[(outcome + 1) % 4]);
                prop_assert!(ledger.holds());
                let end = ledger.seq + back;
                let settled = ledger.acknowledged + ledger.rejected + ledger.dropped.values().sum::<u64>();
                prop_assert_eq!(ledger.collected(end), settled + ledger.pending(end));
            }
        }
    }

    #[test]
    fn after_a_flipped_bit_it_is_the_one_before_and_never_another() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("a.ledger");
        assert_eq!(read(&path).unwrap(), None);
        let mut first = Ledger::new(7);
        first.settle(7..30, Outcome::Acknowledged);
        let mut second = first.clone();
        second.settle(30..31, Outcome::Dropped(Reason::Damaged));
        write(&path, &first).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&first));
        write(&path, &second).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&second));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 2 * SLOT);
        for at in (0..400).chain(SLOT..SLOT + 400) {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[at] ^= 1 << bit;
                fs::write(&path, broken).unwrap();
                let found = read(&path).unwrap().unwrap();
                assert!(found == second || found == first && at >= SLOT, "byte {at}, bit {bit}");
            }
        }
        let mut broken = bytes.clone();
        (broken[20], broken[SLOT + 20]) = (b'?', b'?');
        fs::write(&path, &broken).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn what_a_crash_left_of_a_new_one_is_none() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, new) = (dir.path().join("a.ledger"), dir.path().join("a.new"));
        let ledger = Ledger::new(5);
        for left in [Vec::new(), vec![b' '; SLOT], vec![b'{'; 3 * SLOT]] {
            fs::write(&new, left).unwrap();
            assert_eq!(read(&path).unwrap(), None);
            write(&path, &ledger).unwrap();
            assert_eq!(read(&path).unwrap().as_ref(), Some(&ledger));
            assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SLOT as u64);
            assert!(!new.exists());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn one_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("a.ledger");
        // A folder in its place: everything succeeds but the last step.
        fs::create_dir(&path).unwrap();
        assert!(write(&path, &Ledger::new(0)).is_err());
        assert!(create(&path, &Ledger::new(0)).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn it_takes_no_new_space_once_it_is_there() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("a.ledger");
        let mut ledger = Ledger::new(0);
        for i in 0..20 {
            ledger.settle(i..i + 1, Outcome::Acknowledged);
            write(&path, &ledger).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SLOT as u64);
            assert_eq!(read(&path).unwrap().as_ref(), Some(&ledger));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
