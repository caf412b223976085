//! What became of each sample, for one destination.
//!
//! # Invariant
//! `seq - begin = acknowledged + rejected + dropped`: the cursor moves only in [`Ledger::settle`], which adds what it moved
//! over to exactly one of the three. What is collected and not settled is pending. Hence
//! `collected = acknowledged + rejected + dropped + pending`, at every moment and over restarts, for the cursor and the
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
    /// Whether it has confirmed 2.0. Absent where it has not, so that ledgers of before keep their checksum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub knows_v2: bool,
}

impl Ledger {
    /// An account that begins with the sample `seq`.
    #[must_use]
    pub fn new(seq: u64) -> Self {
        let (begin, receiver) = (seq, Receiver::default());
        Self { begin, seq, end: seq, acknowledged: 0, rejected: 0, dropped: BTreeMap::new(), receiver }
    }

    /// Moves the cursor over `range`, which begins where it is. What the cursor has passed already counts once.
    pub fn settle(&mut self, range: Range<u64>, outcome: Outcome) {
        self.settle_some(range, 0, outcome, outcome);
    }

    /// The same for a range of which `some` samples have one outcome, and all others another.
    pub fn settle_some(&mut self, range: Range<u64>, some: u64, outcome: Outcome, others: Outcome) {
        debug_assert!(range.start <= self.seq, "samples are settled in order");
        let count = range.end.saturating_sub(self.seq);
        let some = some.min(count);
        self.seq += count;
        self.add(some, outcome);
        self.add(count - some, others);
    }

    fn add(&mut self, count: u64, outcome: Outcome) {
        match outcome {
            // A reason without samples is no reason.
            _ if count == 0 => {}
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

/// Bytes of a slot: a ledger has some hundred, and a URL at most 2048.
const SLOT: usize = 8 << 10;

/// A file larger than this is none of ours.
const MAX_BYTES: u64 = 1 << 20;

/// A ledger in its slot: a checksum keeps a flipped digit from moving the cursor.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Which of the two slots is newer.
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

    /// The newest good one of a file's slots, and which slot it is in.
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

/// Reads the ledger at `path`; `None` when there is none.
///
/// # Errors
/// The file cannot be read, or what it says is not to be trusted.
pub fn read(path: &Path) -> io::Result<Option<Ledger>> {
    let bytes = match state_file::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let untrusted = || io::Error::new(ErrorKind::InvalidData, "its checksums or its sums are wrong");
    Sealed::newest(&bytes).map(|(_, sealed)| Some(sealed.ledger)).ok_or_else(untrusted)
}

/// Writes the ledger at `path`, so that a crash leaves the old or the new one: the file has two slots, and the older one is
/// overwritten. That takes no new space, so that a full disk does not keep the ledger from letting go of what fills it.
///
/// # Errors
/// The disk refuses.
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

/// Makes the file, under another name first: so that a crash, or a disk that is full, leaves it whole or leaves none. Both slots
/// get their place on the disk now, while there is some.
fn create(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = state_file::create(&new)?;
    let made = file.write_all_at(&text(0, ledger, 2 * SLOT)?, 0).and_then(|()| file.sync_data());
    if let Err(error) = made.and_then(|()| fs::rename(&new, path)) {
        // What it takes is better left to the spool.
        _ = fs::remove_file(&new);
        return Err(error);
    }
    path.parent().map_or(Ok(()), state_file::sync_folder)
}

/// A ledger as a slot has it, and spaces: so that the file can be read by a person, and a longer ledger that was there before
/// is gone.
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
