//! eBPF probes: what the kernel supports (`support`), what to attach (`plan`), attaching it (`net` and others), the
//! result (`status`).
//!
//! `support` and `net` do I/O; `plan`, `status` and `slots` are pure.

mod endpoints;
pub mod error;
pub mod families;
pub mod family;
mod handles;
pub mod handover;
pub mod in_flight;
mod limit;
mod link;
#[cfg(feature = "bpf-log")]
mod log;
pub mod mapped;
pub mod net;
mod object;
pub mod own;
pub mod plan;
pub mod readers;
pub mod records;
pub mod sched;
mod shares;
pub mod slots;
pub mod stats;
pub mod status;
mod succession;
pub mod support;
pub mod syscalls;
pub mod tasks;
