//! Updates cells that userspace has mapped.

use core::arch::asm;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use citadel_agent_common::hist::{self, Histogram};

/// `value & mask`, for a mask that does not change it: it shows the verifier the bound directly before the value is
/// used, where the compiler, which knows the bound too, would drop the instruction.
#[inline(always)]
#[must_use]
pub fn bounded(mut value: u64, mask: u64) -> u64 {
    // SAFETY: an AND without memory access.
    unsafe { asm!("{0} &= {1}", inout(reg) value, in(reg) mask, options(pure, nomem, nostack)) };
    value
}

/// Tells the compiler that what is at this place is read and written where it cannot see it.
#[inline(always)]
pub fn escape<T>(place: &mut T) {
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", in(reg) &raw mut *place, options(nostack)) };
}

/// Adds to a counter that other CPUs update too.
#[inline(always)]
pub fn add(cell: &mut u64, count: u64) {
    // SAFETY: a valid, aligned place. 5.10 only supports the `BPF_XADD` form; the result must stay unused, otherwise a
    // newer instruction is generated.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, count) };
}

/// All stores so far come before all loads after it, as other CPUs see them, on x86-64: an atomic add of nothing is that there.
/// BPF has no other barrier before 6.15.
#[inline(always)]
pub fn barrier(cell: &mut u64) {
    let mut nothing = 0;
    // SAFETY: a move to itself. A compiler that knows the number would make a newer instruction of the add.
    unsafe { asm!("{0} = {0}", inout(reg) nothing, options(nostack)) };
    add(cell, nothing);
}

/// The cell at `index`, which is within bounds.
#[inline(always)]
#[must_use]
pub fn cell<T, const N: usize>(cells: &mut [T; N], index: usize) -> &mut T {
    const { assert!(N.is_power_of_two()) };
    let index = bounded(index as u64, N as u64 - 1) as usize;
    // SAFETY: `index` is below N.
    unsafe { cells.get_unchecked_mut(index) }
}

/// Adds an observation to a histogram in a map.
#[inline(always)]
pub fn observe(histogram: &mut Histogram, ns: u64) {
    let cells = &mut histogram.cells;
    add(cell(cells, hist::cell(ns)), 1);
    add(&mut cells[hist::SUM_CELL], ns);
}

/// Adds `count`, 0 or 1, observations of a number of tokens to a histogram in a map.
#[inline(always)]
pub fn observe_tokens(histogram: &mut Histogram, tokens: u32, count: u64) {
    let cells = &mut histogram.cells;
    add(cell(cells, hist::cell_of_tokens(tokens)), count);
    add(&mut cells[hist::SUM_CELL], u64::from(tokens));
}
