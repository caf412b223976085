//! GPUs, against a fake driver: what pages carry for each kind of host, and that a driver that fails or hangs takes
//! nothing else with it.

mod agent;
mod failures;
mod fake;
mod fallbacks;
mod garbage;
mod golden;
mod host;
mod links;
mod missing;
mod orders;
mod scale;

#[path = "../support/mod.rs"]
mod support;
