//! Wiring: configuration -> sources -> pages. Only this module knows all the others.

use std::io::{self, Write};
use std::path::Path;

use tracing::info;

use crate::config::Config;
use crate::logging::LogHandle;

/// Runs the agent until it is told to stop. `path` is the file that `config` came from, to be watched; `log` takes the
/// level at a reload.
///
/// # Errors
/// The agent cannot start, or has to end.
pub fn run(config: &Config, path: Option<&Path>, log: &LogHandle) -> anyhow::Result<()> {
    let _ = (path, log);
    info!(
        models = config.models.ports.len(),
        metrics_port = config.local.metrics_port,
        "starting"
    );
    Ok(())
}

/// Prints what would run on this host under `config`, as text or as JSON. False when something that is configured cannot.
///
/// # Errors
/// The plan cannot be made or written.
pub fn check(config: &Config, json: bool) -> anyhow::Result<bool> {
    let models = config.models.ports.len();
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::json!({ "models": models }))?,
        false => writeln!(out, "models: {models}")?,
    }
    Ok(true)
}
