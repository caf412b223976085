//! citadel-agent: per-model latency of LLM servers, measured in the kernel.
//!
//! Data flows one way and no import points back up: `config -> host -> ebpf -> discovery -> gpu -> join -> sources ->
//! metrics -> http | remote_write | alerts | logs`. `agent` is only wiring.

pub mod agent;
pub mod alerts;
pub mod check;
pub mod cli;
pub mod collector;
pub mod config;
pub mod control;
mod credentials;
pub mod discovery;
pub mod ebpf;
pub mod explain;
pub mod gpu;
pub mod history;
pub mod host;
pub mod http;
pub mod join;
pub mod logging;
pub mod logs;
pub mod metrics;
pub mod outbound;
pub mod printable;
pub mod remote_write;
pub mod slot;
pub mod sources;
pub mod state_file;
pub mod test_mode;
mod threads;
