//! What the kernel programs of all families share: functions only, since each object has maps of its own.
#![no_std]
#![expect(internal_features, reason = "atomic_xadd is the only atomic that every kernel's BPF has")]
#![feature(core_intrinsics, asm_experimental_arch)]

pub mod count;
pub mod log;
pub mod shares;
pub mod task;
pub mod threads;
