//! Code shared by the eBPF programs of all families: functions only, because each object has its own maps.
#![no_std]
#![expect(internal_features, reason = "atomic_xadd is the only atomic that every kernel's BPF has")]
#![feature(core_intrinsics, asm_experimental_arch)]

pub mod count;
pub mod field;
pub mod log;
pub mod shares;
pub mod task;
pub mod threads;
