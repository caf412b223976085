//! The agent's own process, with the metric names of all Prometheus clients.

use super::{Origin, Outcome, Reading};
use crate::host::process::{max_fds, read_boot_time, read_open_fds, read_own_usage, ticks_per_second};
use crate::metrics::catalogue::agent::{
    BUILD_INFO, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RSS, PROCESS_START, PROCESS_VIRTUAL,
};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let usage = read_own_usage(origin.roots)?;
    let start = read_boot_time(origin.roots)? as f64 + usage.start_ticks as f64 / ticks_per_second();
    let build = [env!("CARGO_PKG_VERSION"), env!("CITADEL_COMMIT"), env!("CITADEL_RUSTC")];
    page.add(&BUILD_INFO, build, Value::Integer(1));
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
