//! Discovery: finds the model behind a port and its processes. One step per file:
//!
//! port -> listening socket (`host::sock_diag`, `host::net_tcp`) -> [`holders`] -> [`unit`](mod@unit) -> [`name`],
//! using the process [`table`], the [`command`] line, which also identifies the [`engine`](mod@engine), and the
//! server's answer to the health probes ([`ask`](mod@ask)). [`look`] combines the steps, and [`watch`] runs them
//! periodically on its own thread and accumulates the [`usage`] of the processes; [`busiest`] finds the processes outside
//! the models that use the most CPU; [`inventory`] is the result for the rest of the agent.

pub mod ask;
pub mod busiest;
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
