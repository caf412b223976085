//! Possible values. Some drivers return impossible ones when they do not know: 2^32-1 watts, 2619 %.
//!
//! Each limit is far above current hardware, so that only garbage is rejected.

use std::ops::RangeInclusive;

/// Percent.
pub(super) const PERCENT: RangeInclusive<u32> = 0..=100;
/// Fan speeds "may exceed 100% in certain cases" (nvml.h).
pub(super) const FAN_PERCENT: RangeInclusive<u32> = 0..=200;
/// GPM computes percentages from counters, whose ratio can slightly exceed 100.
pub(super) const GPM_PERCENT: RangeInclusive<f64> = 0.0..=101.0;
/// MiB per second; an NVLink 6 GPU has about 3 million.
pub(super) const GPM_RATE: RangeInclusive<f64> = 0.0..=1e9;
/// Degrees Celsius, also for distances to a limit.
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
/// Counts and bytes: 2.9 years of an NVLink 5 at full speed (100 GB/s). Larger values have the highest bit set and are
/// garbage.
pub(super) const COUNT: u64 = (1 << 63) - 1;
/// KB per second over PCIe.
pub(super) const PCIE_RATE: RangeInclusive<u32> = 0..=1_000_000_000;
/// PCIe generations.
pub(super) const PCIE_GENERATION: RangeInclusive<u32> = 1..=16;
/// PCIe lanes.
pub(super) const PCIE_LANES: RangeInclusive<u32> = 1..=64;

/// Maximum growth of the energy counter: 50 kW over the time, plus a margin for readings close together.
pub(super) fn energy_growth(seconds: f64) -> u64 {
    20_000_000 + (seconds * 50e6) as u64
}
