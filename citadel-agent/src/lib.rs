//! citadel-agent: per-model latency of LLM servers, measured in the kernel.
//!
//! Data flows one way: `docs/architecture.md` lists the modules in the order in which they import each other, and
//! `cargo xtask lint` holds it.

pub mod agent;
pub mod alerts;
pub mod check;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod control;
mod credentials;
pub mod discovery;
pub mod ebpf;
pub mod explain;
pub mod fd_store;
pub mod gpu;
pub mod history;
pub mod host;
pub mod http;
pub mod join;
pub mod logging;
pub mod logs;
pub mod metrics;
pub mod outbound;
mod printable;
pub mod remote_write;
pub mod slot;
pub mod sources;
mod state_file;
pub mod test_mode;
mod threads;
pub mod top;
pub mod trace;
