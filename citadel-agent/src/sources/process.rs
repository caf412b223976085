//! The agent's own process, with the metric names of all Prometheus clients, and the state of its configuration.

use std::time::UNIX_EPOCH;

use super::{Origin, Outcome, Reading};
use crate::host::process::{max_fds, read_open_fds, read_own_usage, read_start};
use crate::metrics::catalogue::agent::{
    BUILD_INFO, CONFIG_LOADED, CONFIG_SUCCESSFUL, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RSS,
    PROCESS_START, PROCESS_VIRTUAL,
};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let usage = read_own_usage(origin.roots)?;
    let start = read_start(origin.roots)?;
    let build = [env!("CARGO_PKG_VERSION"), env!("CITADEL_COMMIT"), env!("CITADEL_RUSTC")];
    page.add(&BUILD_INFO, build, Value::Integer(1));
    // A clock before 1970 has no such time.
    if let Ok(loaded) = origin.loaded.at.duration_since(UNIX_EPOCH) {
        page.add(&CONFIG_LOADED, [], Value::Float(loaded.as_secs_f64()));
    }
    page.add(&CONFIG_SUCCESSFUL, [], Value::Integer(u64::from(!origin.loaded.later_refused)));
    page.add(&PROCESS_CPU, [], Value::Float(usage.cpu_seconds));
    page.add(&PROCESS_RSS, [], Value::Integer(usage.resident_bytes));
    page.add(&PROCESS_VIRTUAL, [], Value::Integer(usage.virtual_bytes));
    page.add(&PROCESS_OPEN_FDS, [], Value::Integer(read_open_fds(origin.roots)?));
    if let Some(max) = max_fds() {
        page.add(&PROCESS_MAX_FDS, [], Value::Integer(max));
    }
    page.add(&PROCESS_START, [], Value::Float(start));
    Ok(Outcome::Read)
}
