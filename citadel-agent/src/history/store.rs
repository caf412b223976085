//! Retention of intervals, by age and by size.
//!
//! A subject has two tiers: short intervals for 15 minutes, and minutes for a day. A tier is a list of blocks; the last
//! one is open and grows, the others are sealed: compressed, and dropped as a whole once all of the block is too old.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use prost::encoding::encode_varint;
use smol_str::SmolStr;

use super::interval::{Interval, Keys, varint};
use super::window::Window;
use super::{Millis, Subject};

/// Length of the short intervals.
pub const FINE_MS: Millis = 5000;
/// How long the short intervals are kept.
pub const FINE_SPAN_MS: Millis = 15 * 60 * 1000;
/// Length of the long intervals.
pub const COARSE_MS: Millis = 60 * 1000;
/// How long the long intervals are kept.
pub const SPAN_MS: Millis = 24 * 60 * 60 * 1000;
/// Maximum size of all intervals in bytes.
pub const MAX_BYTES: usize = 3_900_000;

/// Intervals per block of each tier: 2.5 minutes and half an hour.
const FINE_BLOCK: u32 = 30;
const COARSE_BLOCK: u32 = 30;

/// Maximum number of subjects. Each port counts once, and a host has few GPUs; beyond that, those without data for the
/// longest time are dropped.
const MAX_SUBJECTS: usize = 256;

/// Maximum size of an unpacked block: far more than an interval can have.
pub(super) const MAX_BLOCK: u64 = 4 << 20;

/// All intervals.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) keys: Keys,
    pub(super) subjects: BTreeMap<Subject, Kept>,
    /// Number of blocks sealed so far.
    pub(super) sealed: u64,
}

/// The data of one subject.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) name: SmolStr,
    pub(super) fine: Tier,
    pub(super) coarse: Tier,
    /// The current, incomplete minute.
    pub(super) minute: Option<Minute>,
}

#[derive(Clone, Debug)]
pub(super) struct Minute {
    from_ms: Millis,
    to_ms: Millis,
    sum: Interval,
}

/// Blocks, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Tier {
    pub(super) blocks: VecDeque<Block>,
}

/// Consecutive intervals: for each the gap since the previous one, its length (both in milliseconds), its cells.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) from_ms: Millis,
    pub(super) to_ms: Millis,
    pub(super) intervals: u32,
    /// Whether `bytes` is compressed.
    pub(super) sealed: bool,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    fn seal(&mut self) {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        let packed = encoder.write_all(&self.bytes).and_then(|()| encoder.finish());
        if let Ok(packed) = packed {
            self.bytes = packed;
            self.bytes.shrink_to_fit();
            self.sealed = true;
        }
    }

    /// Calls `take` with each interval and its start and end. Damaged intervals are skipped.
    pub(super) fn each(&self, keys: &Keys, mut take: impl FnMut(Millis, Millis, Interval)) -> Option<()> {
        let mut unpacked = Vec::new();
        let mut bytes = self.bytes.as_slice();
        if self.sealed {
            DeflateDecoder::new(bytes).take(MAX_BLOCK).read_to_end(&mut unpacked).ok()?;
            bytes = &unpacked;
        }
        let mut at = self.from_ms;
        for _ in 0..self.intervals {
            let from = at.checked_add_unsigned(varint(&mut bytes)?)?;
            at = from.checked_add_unsigned(varint(&mut bytes)?)?;
            let mut interval = Interval::decode(&mut bytes, keys)?;
            interval.weigh((at - from).max(1) as f64);
            take(from, at, interval);
        }
        Some(())
    }
}

impl Tier {
    /// Adds an interval; returns true if this sealed a block.
    fn add(&mut self, from_ms: Millis, to_ms: Millis, interval: &Interval, block: u32) -> bool {
        let mut sealed = false;
        match self.blocks.back_mut() {
            Some(last) if !last.sealed && last.to_ms <= from_ms && last.intervals < block => {}
            last => {
                if let Some(last) = last.filter(|last| !last.sealed) {
                    last.seal();
                    sealed = true;
                }
                let bytes = Vec::new();
                self.blocks.push_back(Block { from_ms, to_ms: from_ms, intervals: 0, sealed: false, bytes });
            }
        }
        if let Some(last) = self.blocks.back_mut() {
            encode_varint((from_ms - last.to_ms).unsigned_abs(), &mut last.bytes);
            encode_varint((to_ms - from_ms).unsigned_abs(), &mut last.bytes);
            interval.encode(&mut last.bytes);
            last.to_ms = to_ms;
            last.intervals += 1;
        }
        sealed
    }

    fn forget_before(&mut self, ms: Millis) {
        while self.blocks.front().is_some_and(|block| block.to_ms <= ms) {
            self.blocks.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes.capacity() + size_of::<Block>()).sum()
    }
}

impl Kept {
    fn newest_ms(&self) -> Option<Millis> {
        let ends = [self.fine.blocks.back(), self.coarse.blocks.back()].into_iter().flatten().map(|block| block.to_ms);
        ends.max()
    }

    /// Completes the current minute.
    fn close_minute(&mut self, keys: &Keys) -> bool {
        let Some(mut minute) = self.minute.take() else { return false };
        minute.sum.coarsen(keys);
        self.coarse.add(minute.from_ms, minute.to_ms, &minute.sum, COARSE_BLOCK)
    }
}

impl Store {
    /// Adds an interval of a subject.
    pub(super) fn add(
        &mut self,
        subject: Subject,
        name: &SmolStr,
        from_ms: Millis,
        to_ms: Millis,
        mut interval: Interval,
    ) {
        interval.weigh((to_ms - from_ms).max(1) as f64);
        let kept = self.subjects.entry(subject).or_default();
        kept.name.clone_from(name);
        let mut sealed = u64::from(kept.fine.add(from_ms, to_ms, &interval, FINE_BLOCK));
        let minute = |ms: Millis| ms.div_euclid(COARSE_MS);
        match &mut kept.minute {
            Some(open) if minute(open.from_ms) == minute(from_ms) && open.to_ms == from_ms => {
                open.to_ms = to_ms;
                open.sum.merge(interval);
            }
            _ => {
                sealed += u64::from(kept.close_minute(&self.keys));
                kept.minute = Some(Minute { from_ms, to_ms, sum: interval });
            }
        }
        self.sealed += sealed;
    }

    /// Drops what is too old at `now`, and what exceeds the size limit.
    pub(super) fn forget_before(&mut self, now: Millis) {
        for kept in self.subjects.values_mut() {
            if kept.minute.as_ref().is_some_and(|minute| minute.to_ms < now - COARSE_MS) {
                self.sealed += u64::from(kept.close_minute(&self.keys));
            }
            kept.fine.forget_before(now - FINE_SPAN_MS);
            kept.coarse.forget_before(now - SPAN_MS);
        }
        self.subjects.retain(|_, kept| kept.newest_ms().is_some() || kept.minute.is_some());
        while self.subjects.len() > MAX_SUBJECTS {
            let oldest =
                self.subjects.iter().min_by_key(|(_, kept)| kept.newest_ms()).map(|(subject, _)| subject.clone());
            oldest.map(|oldest| self.subjects.remove(&oldest));
        }
        while self.bytes() > MAX_BYTES {
            // The oldest block of minutes of all subjects; short intervals only when there are no minutes left.
            let first = |tier: &Tier| tier.blocks.front().map_or(Millis::MAX, |block| block.from_ms);
            let oldest = self.subjects.values_mut().min_by_key(|kept| (first(&kept.coarse), first(&kept.fine)));
            let Some(oldest) = oldest else { break };
            if oldest.coarse.blocks.pop_front().or_else(|| oldest.fine.blocks.pop_front()).is_none() {
                break;
            }
        }
    }

    /// Drops all blocks that end after `now`.
    pub(super) fn forget_after(&mut self, now: Millis) {
        for kept in self.subjects.values_mut() {
            kept.minute = None;
            for tier in [&mut kept.fine, &mut kept.coarse] {
                tier.blocks.retain(|block| block.to_ms <= now);
            }
        }
    }

    pub(super) fn names(&self) -> BTreeMap<Subject, SmolStr> {
        self.subjects.iter().map(|(subject, kept)| (subject.clone(), kept.name.clone())).collect()
    }

    pub(super) fn newest_ms(&self) -> Option<Millis> {
        self.subjects.values().filter_map(Kept::newest_ms).max()
    }

    pub(super) fn bytes(&self) -> usize {
        self.subjects.values().map(|kept| kept.fine.bytes() + kept.coarse.bytes()).sum()
    }

    pub(super) fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Whether a process of a model's is known in what is kept.
    pub(super) fn has_listened(&self, subject: &Subject, now: Millis) -> bool {
        let all = self.windows(subject, now - SPAN_MS, now, SPAN_MS);
        all.iter().any(|window| window.gauge("pid").is_some())
    }

    /// Windows of `step_ms` from `from_ms` to `to_ms`, without empty ones.
    pub(super) fn windows(&self, subject: &Subject, from_ms: Millis, to_ms: Millis, step_ms: Millis) -> Vec<Window> {
        let Some(kept) = self.subjects.get(subject) else { return Vec::new() };
        let mut sums: BTreeMap<i64, (Millis, Millis, Millis, Interval)> = BTreeMap::new();
        let mut add = |from: Millis, to: Millis, interval: Interval| {
            let middle = from + (to - from) / 2;
            if middle < from_ms || middle >= to_ms {
                return;
            }
            let (_, end, covered, sum) =
                sums.entry((middle - from_ms) / step_ms.max(1)).or_insert_with(|| (from, to, 0, Interval::default()));
            *end = to;
            *covered += to - from;
            sum.merge(interval);
        };
        // Short intervals as far back as they exist; before that, minutes, the last of which may overlap with them.
        let fine_from = kept.fine.blocks.front().map_or(Millis::MAX, |block| block.from_ms);
        let mut minutes_to = Millis::MIN;
        let mut add_minute = |from: Millis, to: Millis, interval: Interval| {
            if from < fine_from {
                minutes_to = to;
                add(from, to, interval);
            }
        };
        let is_in = |block: &&Block| block.from_ms < to_ms && block.to_ms > from_ms;
        for block in kept.coarse.blocks.iter().filter(is_in) {
            block.each(&self.keys, &mut add_minute);
        }
        if let Some(minute) = &kept.minute {
            add_minute(minute.from_ms, minute.to_ms, minute.sum.clone());
        }
        for block in kept.fine.blocks.iter().filter(is_in) {
            block.each(&self.keys, |from, to, interval| {
                if from >= minutes_to {
                    add(from, to, interval);
                }
            });
        }
        sums.into_values().map(|(from, to, covered, sum)| sum.window(&self.keys, from, to, covered)).collect()
    }
}
