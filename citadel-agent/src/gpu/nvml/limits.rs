//! What values are possible. A driver that answers beyond them does not know: 2^32-1 watts, 2619 %.
//!
//! Each limit is far above any hardware of today, so that only garbage is refused.

use std::ops::RangeInclusive;

/// Parts of a hundred.
pub(super) const PERCENT: RangeInclusive<u32> = 0..=100;
/// Fan speeds "may exceed 100% in certain cases" (nvml.h).
pub(super) const FAN_PERCENT: RangeInclusive<u32> = 0..=200;
/// GPM computes percentages from counters, whose ratio may be a little above its end.
pub(super) const GPM_PERCENT: RangeInclusive<f64> = 0.0..=101.0;
/// MiB a second; an NVLink 6 GPU has some 3 million.
pub(super) const GPM_RATE: RangeInclusive<f64> = 0.0..=1e9;
/// Degrees Celsius, also of distances to a limit.
pub(super) const CELSIUS: RangeInclusive<i32> = -100..=200;
/// Milliwatts of a GPU or a module: 50 kW.
pub(super) const MILLIWATTS: RangeInclusive<u32> = 0..=50_000_000;
/// Megahertz; GDDR7 has 14,000.
pub(super) const MEGAHERTZ: RangeInclusive<u32> = 0..=100_000;
/// Bytes of device memory: 64 TiB.
pub(super) const MEMORY: RangeInclusive<u64> = 0..=1 << 46;
/// Millijoules since the driver was loaded: 10 kW for 30 years.
pub(super) const MILLIJOULES: RangeInclusive<u64> = 0..=10_000_000_000_000_000;
/// Nanoseconds since the driver was loaded: 60 years.
pub(super) const NANOSECONDS: u64 = 2_000_000_000_000_000_000;
/// Anything that is counted one by one, or in bytes: at a terabyte a second, 2,000 years less is possible.
pub(super) const COUNT: u64 = 1 << 56;
/// KB a second over PCIe.
pub(super) const PCIE_RATE: RangeInclusive<u32> = 0..=1_000_000_000;
/// PCIe generations and lanes.
pub(super) const PCIE_GENERATION: RangeInclusive<u32> = 1..=16;
/// Lanes.
pub(super) const PCIE_LANES: RangeInclusive<u32> = 1..=64;

/// The most by which the energy counter can have grown: 50 kW over the time, and some for readings that lie close
/// together.
pub(super) fn energy_growth(seconds: f64) -> u64 {
    20_000_000 + (seconds * 50e6) as u64
}
