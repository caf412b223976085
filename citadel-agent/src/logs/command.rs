//! `citadel-agent logs test`: sends a test entry to each destination.

use std::io;

use super::encode::{body, headers};
use super::entry::Entry;
use super::export::Fields;
use super::identity;
use super::reader::Journal;
use super::select::Record;
use super::sender::{Meaning, meaning};
use super::severity::Severity;
use crate::clock::wall_ms;
use crate::config::Config;
use crate::outbound::Client;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No destination is configured.
    #[error("no destination is configured; set logs.destinations")]
    NoDestination,
    /// The entry cannot be encoded, or the async runtime could not be started.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Sends one entry to each destination, and reports the responses and whether the journal can be read; returns false if
/// any of it failed.
///
/// # Errors
/// See [`CommandError`].
pub fn test(config: &Config, say: &mut dyn FnMut(&str)) -> Result<bool, CommandError> {
    if config.logs.destinations.is_empty() {
        return Err(CommandError::NoDestination);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let journal = Journal::of(&config.logs, false);
    let mut all = true;
    match tokio::task::LocalSet::new().block_on(&runtime, journal.last()) {
        Ok(Some(entry)) => {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(entry.time_us);
            say(&format!("journal: last entry at {}", humantime::format_rfc3339_seconds(time)));
        }
        Ok(None) => say("journal: empty or not readable"),
        Err(error) => {
            say(&format!("journal: {error}"));
            all = false;
        }
    }
    for (name, destination) in &config.logs.destinations {
        let url = destination.url.as_deref().unwrap_or_default();
        let sent = match Client::new(url, &destination.access, destination.timeout) {
            Err(error) => {
                all = false;
                error.to_string()
            }
            Ok(mut client) => {
                let body = body(&[line()], destination.format, &identity(config))?;
                let reply = runtime.block_on(client.post(headers(destination.format), body));
                let taken = meaning(destination.format, &reply) == Meaning::Taken(0);
                all &= taken;
                let words = if reply.words.is_empty() { String::new() } else { format!(", {:?}", reply.words) };
                let status = reply.status.map_or_else(|| "no answer".to_owned(), |status| format!("status {status}"));
                format!("{status}{words}: {}", if taken { "taken" } else { "not taken" })
            }
        };
        say(&format!("{name} ({url}): {sent}"));
    }
    Ok(all)
}

/// The test entry.
fn line() -> Record {
    let time_us = wall_ms().max(0).unsigned_abs() * 1000;
    let boot_id =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().replace('-', "");
    let mut fields = Fields::default();
    for (name, value) in [
        ("__REALTIME_TIMESTAMP", time_us.to_string().as_str()),
        ("__MONOTONIC_TIMESTAMP", "1"),
        ("_BOOT_ID", &boot_id),
        ("SYSLOG_IDENTIFIER", "citadel-agent"),
        ("PRIORITY", "6"),
        ("MESSAGE", "Test entry sent by `citadel-agent logs test`."),
    ] {
        fields.push(name, value.as_bytes());
    }
    Record {
        entry: Entry { cursor: format!("test-{time_us}"), time_us, fields },
        unit: "citadel-agent".into(),
        container: false,
        severity: Severity::Info,
        model: None,
        gpu: None,
    }
}
