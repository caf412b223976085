//! Discovery: which model is behind a port, and which processes are its. One hop a file:
//!
//! port -> listening socket (`host::sock_diag`, `host::net_tcp`) -> [`holders`] -> [`unit`](mod@unit) -> [`name`], by way of the
//! process [`table`], the [`command`] line, which also shows the [`engine`](mod@engine), and what the server says when it is [`ask`](mod@ask)ed, which the health
//! probes do. [`look`] goes the way, [`watch`] does so again and again on a thread of its own and keeps count of what the processes
//! [`usage`] is; [`inventory`] is what the rest of the agent sees.

pub mod ask;
pub mod command;
pub mod engine;
pub mod holders;
pub mod inventory;
pub mod look;
pub mod meter;
pub mod name;
pub mod owners;
pub mod readers;
pub mod server;
pub mod table;
pub mod unit;
pub mod usage;
pub mod watch;

#[cfg(test)]
mod tests;
