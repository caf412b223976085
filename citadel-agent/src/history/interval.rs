//! One interval of one subject: cells by the number of their key, and their encoding.
//!
//! A cell is its key as a varint, then a payload that depends on the key's kind. Sums are integers (seconds and joules
//! in millionths).

use std::collections::BTreeMap;

use citadel_agent_common::hist::{BUCKETS, CELLS, FIRST_INDEX, SUM_CELL};
use prost::encoding::{decode_varint, encode_varint};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::window::{self, Distribution, Window};

/// The type of a key's cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Increase of a counter.
    Count,
    /// Increase of a counter, in millionths of its unit.
    Micro,
    /// A gauge.
    Gauge,
    /// A histogram.
    Histogram,
}

/// Number of a key in [`Keys`].
pub(super) type Key = u16;

/// Maximum number of keys. Others are not stored: labels are bounded at their sources, so the limit is not reached in
/// practice.
const MAX_KEYS: usize = 8192;

/// Names of keys, in the order in which they were first seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) names: Vec<(SmolStr, Kind)>,
    numbers: BTreeMap<SmolStr, Key>,
}

impl Keys {
    /// The keys of a file; `None` if there are too many.
    pub(super) fn of(names: Vec<(SmolStr, Kind)>) -> Option<Self> {
        let numbers = names.iter().enumerate().map(|(number, (name, _))| (name.clone(), number as Key)).collect();
        (names.len() <= MAX_KEYS).then_some(Self { names, numbers })
    }

    /// The number of a name, which may be new; `None` if there are too many.
    pub(super) fn number(&mut self, name: &str, kind: Kind) -> Option<Key> {
        if let Some(&number) = self.numbers.get(name) {
            // A file of an older version may have it with another kind.
            return (self.names[usize::from(number)].1 == kind).then_some(number);
        }
        let number = Key::try_from(self.names.len()).ok().filter(|&number| usize::from(number) < MAX_KEYS)?;
        self.names.push((name.into(), kind));
        self.numbers.insert(name.into(), number);
        Some(number)
    }
}

/// A gauge over an interval: time-weighted mean, extremes and last value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Level {
    pub(super) mean: f32,
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) last: f32,
    /// Weight in milliseconds: the length of the interval once it is stored.
    pub(super) weight: f64,
}

impl Level {
    pub(super) fn of(value: f64) -> Self {
        let value = value as f32;
        Self { mean: value, min: value, max: value, last: value, weight: 1.0 }
    }

    fn merge(&mut self, later: &Self) {
        let weight = self.weight + later.weight;
        let mean = (f64::from(self.mean) * self.weight + f64::from(later.mean) * later.weight) / weight;
        *self = Self {
            mean: mean as f32,
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            last: later.last,
            weight,
        };
    }
}

/// The non-empty cells of a histogram in order, and the sum in nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sparse {
    pub(super) cells: Vec<(u8, u64)>,
    pub(super) sum_ns: u64,
    /// Number of cells that were merged into the last one of each group.
    pub(super) width: u8,
}

impl Default for Sparse {
    fn default() -> Self {
        Self { cells: Vec::new(), sum_ns: 0, width: 1 }
    }
}

impl Sparse {
    /// The increase from one state of a histogram to a later one; after a reset, the later state.
    pub(super) fn growth(before: &[u64; CELLS], now: &[u64; CELLS]) -> Self {
        let shrunk = now.iter().zip(before).any(|(now, before)| now < before);
        let before = |cell: usize| if shrunk { 0 } else { before[cell] };
        let cells = (0..SUM_CELL).map(|cell| (cell as u8, now[cell] - before(cell))).filter(|(_, count)| *count > 0);
        Self { cells: cells.collect(), sum_ns: now[SUM_CELL] - before(SUM_CELL), width: 1 }
    }

    /// Merges groups of `width` cells, a power of two; bounds of schema 3 that are also bounds of the coarser schema
    /// are kept.
    fn coarsen(&mut self, width: u8) {
        self.width = self.width.max(width);
        let cells = std::mem::take(&mut self.cells);
        self.add(&cells);
    }

    fn add(&mut self, cells: &[(u8, u64)]) {
        let mut sums: BTreeMap<u8, u64> = self.cells.drain(..).collect();
        for &(cell, count) in cells {
            let sum = sums.entry(last_of_group(cell, self.width)).or_default();
            *sum = sum.saturating_add(count);
        }
        self.cells.extend(sums);
    }

    fn merge(&mut self, other: &Self) {
        if other.width > self.width {
            self.coarsen(other.width);
        }
        self.add(&other.cells);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    fn distribution(&self) -> Distribution {
        let index = |cell: u8| (i32::from(cell) - 1 + FIRST_INDEX) as i16;
        Distribution {
            count: self.cells.iter().map(|(_, count)| count).sum(),
            sum: self.sum_ns as f64 * 1e-9,
            width: self.width,
            buckets: self.cells.iter().map(|&(cell, count)| (index(cell), count)).collect(),
        }
    }
}

/// The cell that ends a group of `width` buckets. Cell 0 is below all groups, and the last cell contains everything
/// above.
fn last_of_group(cell: u8, width: u8) -> u8 {
    if cell == 0 {
        return 0;
    }
    let (index, width) = (i32::from(cell) - 1 + FIRST_INDEX, i32::from(width.max(1)));
    let last = (index + width - 1).div_euclid(width) * width;
    (last - FIRST_INDEX + 1).clamp(0, BUCKETS as i32) as u8
}

/// A cell.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cell {
    Sum(u64),
    Level(Level),
    Histogram(Sparse),
}

/// The cells of one interval.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Interval(pub(super) BTreeMap<Key, Cell>);

impl Interval {
    /// Merges a later interval.
    pub(super) fn merge(&mut self, later: Self) {
        for (key, cell) in later.0 {
            match (self.0.get_mut(&key), cell) {
                (Some(Cell::Sum(sum)), Cell::Sum(more)) => *sum = sum.saturating_add(more),
                (Some(Cell::Level(level)), Cell::Level(later)) => level.merge(&later),
                (Some(Cell::Histogram(histogram)), Cell::Histogram(more)) => histogram.merge(&more),
                // A key has one kind.
                (_, cell) => _ = self.0.insert(key, cell),
            }
        }
    }

    /// Reduces it to the resolution of minutes: histograms with fewer buckets and whole microseconds, and no longest
    /// calls.
    pub(super) fn coarsen(&mut self, keys: &Keys) {
        let name = |key: &Key| keys.names.get(usize::from(*key)).map_or("", |(name, _)| name.as_str());
        self.0.retain(|key, _| !name(key).starts_with("syscall_longest."));
        for (key, cell) in &mut self.0 {
            if let Cell::Histogram(histogram) = cell {
                histogram.coarsen(match name(key) {
                    "first_token" | "inter_token" => 2,
                    // By far the widest range: from less than a microsecond to seconds.
                    "run_queue" => 8,
                    _ => 4,
                });
                histogram.sum_ns = histogram.sum_ns / 1000 * 1000;
            }
        }
    }

    /// Sets the weight of each gauge.
    pub(super) fn weigh(&mut self, weight: f64) {
        for cell in self.0.values_mut() {
            if let Cell::Level(level) = cell {
                level.weight = weight;
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_varint(self.0.len() as u64, out);
        let mut last = 0;
        for (&key, cell) in &self.0 {
            encode_varint(u64::from(key - last), out);
            last = key;
            match cell {
                Cell::Sum(sum) => encode_varint(*sum, out),
                Cell::Level(level) => {
                    let steady = [level.min, level.max, level.last].iter().all(|value| *value == level.mean);
                    out.push(u8::from(!steady));
                    let values = [level.mean, level.min, level.max, level.last];
                    for value in &values[..if steady { 1 } else { 4 }] {
                        out.extend(value.to_le_bytes());
                    }
                }
                Cell::Histogram(histogram) => {
                    out.push(histogram.width);
                    encode_varint(histogram.cells.len() as u64, out);
                    let mut last = 0;
                    for &(cell, count) in &histogram.cells {
                        out.push(cell.wrapping_sub(last));
                        encode_varint(count, out);
                        last = cell;
                    }
                    // Minutes have whole microseconds.
                    let unit = if histogram.width > 1 { 1000 } else { 1 };
                    encode_varint(histogram.sum_ns / unit, out);
                }
            }
        }
    }

    /// Decodes one; `None` if the bytes are invalid.
    pub(super) fn decode(bytes: &mut &[u8], keys: &Keys) -> Option<Self> {
        let mut cells = BTreeMap::new();
        let mut key: Key = 0;
        for _ in 0..varint(bytes)? {
            key = key.checked_add(Key::try_from(varint(bytes)?).ok()?)?;
            let cell = match keys.names.get(usize::from(key))?.1 {
                Kind::Count | Kind::Micro => Cell::Sum(varint(bytes)?),
                Kind::Gauge => {
                    let steady = take::<1>(bytes)?[0] == 0;
                    let mut next = || take::<4>(bytes).map(f32::from_le_bytes);
                    let mean = next()?;
                    let [min, max, last] = if steady { [mean; 3] } else { [next()?, next()?, next()?] };
                    Cell::Level(Level { mean, min, max, last, weight: 1.0 })
                }
                Kind::Histogram => {
                    let mut histogram = Sparse { width: take::<1>(bytes)?[0], ..Sparse::default() };
                    if !histogram.width.is_power_of_two() {
                        return None;
                    }
                    let count = varint(bytes)?;
                    let mut cell = 0u8;
                    for _ in 0..count {
                        cell = cell.checked_add(take::<1>(bytes)?[0])?;
                        histogram.cells.push((cell, varint(bytes)?));
                    }
                    let unit = if histogram.width > 1 { 1000 } else { 1 };
                    histogram.sum_ns = varint(bytes)?.saturating_mul(unit);
                    Cell::Histogram(histogram)
                }
            };
            cells.insert(key, cell);
        }
        Some(Self(cells))
    }

    /// The form that readers get.
    pub(super) fn window(&self, keys: &Keys, from_ms: i64, to_ms: i64, covered_ms: i64) -> Window {
        let mut window = Window { from_ms, to_ms, covered_seconds: covered_ms as f64 / 1000.0, ..Window::default() };
        for (&key, cell) in &self.0 {
            let Some((name, kind)) = keys.names.get(usize::from(key)) else { continue };
            let name = name.to_string();
            match cell {
                Cell::Sum(sum) => {
                    let unit = if *kind == Kind::Micro { 1e-6 } else { 1.0 };
                    window.sums.insert(name, *sum as f64 * unit);
                }
                Cell::Level(level) => {
                    let [mean, min, max, last] = [level.mean, level.min, level.max, level.last].map(f64::from);
                    window.gauges.insert(name, window::Gauge { mean, min, max, last });
                }
                Cell::Histogram(histogram) => _ = window.histograms.insert(name, histogram.distribution()),
            }
        }
        window
    }
}

/// Reads a number.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    decode_varint(bytes).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
