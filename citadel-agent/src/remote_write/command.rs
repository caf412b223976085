//! `citadel-agent export`, `remote-write test` and `remote-write replay`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::client::Client;
use super::dead_letter::{self, DeadLetter};
use super::encode::{self, Form, Protocol};
use super::record::Record;
use super::sender::{Event, Next, ReceiverAnswer, Sender, SenderSettings};
use super::{folder, identity};
use crate::clock::wall_ms;
use crate::config::Config;
use crate::config::resolved::remote_write::Histograms;
use crate::metrics::catalogue::agent::REMOTE_WRITE_TEST;
use crate::metrics::family::{Page, Value};
use crate::state_file;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The page is invalid.
    #[error("cannot send the page: {0}")]
    Page(#[from] crate::metrics::family::PageError),
    /// It is too large.
    #[error("the page is too large: {0}")]
    Size(#[from] snap::Error),
    /// The file cannot be written.
    #[error("cannot write {name}: {error}")]
    Output {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// There are no destinations.
    #[error(
        "no destination is configured: set remote_monitoring.enabled and remote_monitoring.prometheus.remote_write_url, \
         or remote_write.destinations"
    )]
    NoDestination,
    /// The destination does not exist.
    #[error("no destination is named {name}")]
    UnknownDestination {
        /// Its name.
        name: String,
    },
    /// I/O errors.
    #[error("{0}")]
    Runtime(#[from] io::Error),
}

/// Writes `page` as one request in `protocol` to `output` or standard output; returns a message about it.
///
/// # Errors
/// See [`CommandError`].
pub fn export(
    config: &Config,
    mut page: Page,
    protocol: Protocol,
    output: Option<&Path>,
) -> Result<String, CommandError> {
    page.sort()?;
    let record = Record::new(&page, &[], &identity(config), wall_ms(), 0);
    let native = match config.remote_write.histograms {
        Histograms::Auto => protocol == Protocol::V2,
        Histograms::Both | Histograms::Native => true,
        Histograms::Classic => false,
    };
    let form = Form { protocol, native, classic: config.remote_write.histograms != Histograms::Native };
    let body = encode::body(&record, 0..record.len(), form)?;
    let written = match output {
        Some(path) => fs::write(path, &body.bytes),
        None => io::stdout().lock().write_all(&body.bytes),
    };
    let name = output.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    written.map_err(|error| CommandError::Output { name: name.clone(), error })?;
    let warning = match protocol {
        Protocol::V1 => "",
        Protocol::V2 => {
            "a receiver that supports only 1.0 (Prometheus before 2.54) answers 204 to this but stores nothing; \
             `citadel-agent check --only remote-write` says what the configured ones take, --protocol 1 writes the other\n"
        }
    };
    Ok(format!(
        "{warning}{} series in {} bytes to {name}; to post them:\n  curl --data-binary @FILE -H 'Content-Encoding: snappy' \
         -H 'Content-Type: {}' -H 'X-Prometheus-Remote-Write-Version: {}' URL",
        body.sent.series,
        body.bytes.len(),
        protocol.content_type(),
        protocol.version(),
    ))
}

/// Sends one sample of a test metric to each destination and reports the responses; returns false if any was not
/// accepted.
///
/// A separate metric is used because receivers accept the samples of a series only in order: samples of the running
/// agent's series, sent by another process, would make the receiver reject what the agent still has to send.
///
/// # Errors
/// See [`CommandError`].
pub fn test(config: &Config, say: &mut dyn FnMut(&str)) -> Result<bool, CommandError> {
    let destinations = config.destinations();
    if destinations.is_empty() {
        return Err(CommandError::NoDestination);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = true;
    for (name, destination) in destinations {
        let url = destination.url.clone().unwrap_or_default();
        let mut client = match Client::new(&destination) {
            Ok(client) => client,
            Err(error) => {
                say(&format!("{name} ({url}): {error}"));
                all = false;
                continue;
            }
        };
        let mut page = Page::default();
        page.add(&REMOTE_WRITE_TEST, [&name], Value::Integer(1));
        let record = Record::new(&page, &[], &identity(config), wall_ms(), 0);
        let settings = SenderSettings::of(&destination);
        let mut sender = Sender::new(settings, super::ledger::Receiver::default());
        sender.load(0..1);
        // First with 2.0, and with 1.0 if the receiver may support only that, as the running agent does.
        let mut taken = false;
        while let Next::Send(_) = sender.next(Duration::ZERO) {
            let form = sender.form();
            let body = encode::body(&record, 0..1, form)?;
            let answer = runtime.block_on(client.post(body.bytes, form.protocol));
            let events = sender.answered(Duration::ZERO, wall_ms(), 0.0, &body.sent, &answer);
            say(&format!("{name} ({url}), remote write {}: {}", form.protocol.name(), told(&answer)));
            taken |= events.iter().any(|event| matches!(event, Event::Settled(_, acknowledged) if *acknowledged > 0));
        }
        all &= taken;
    }
    Ok(all)
}

/// Resends batches that were set aside, to the given destination or to all, oldest first, and deletes those that are
/// accepted. Returns false if any remain. The agent's counts do not change: these samples have been counted as dropped.
///
/// # Errors
/// See [`CommandError`].
pub fn replay(config: &Config, only: Option<&str>, say: &mut dyn FnMut(&str)) -> Result<bool, CommandError> {
    let destinations = config.destinations();
    if destinations.is_empty() {
        return Err(CommandError::NoDestination);
    }
    if let Some(name) = only.filter(|name| !destinations.contains_key(*name)) {
        return Err(CommandError::UnknownDestination { name: name.to_owned() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut letters = dead_letter::list(&folder(config).join("dead-letter"))?;
    letters.retain(|letter| only.is_none_or(|name| letter.destination == name));
    if letters.is_empty() {
        say("nothing was set aside");
    }
    let mut all = true;
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    for DeadLetter { path, destination, protocol, samples } in letters {
        let file = path.display();
        let Some(configured) = destinations.get(&destination) else {
            say(&format!("{file}: no destination is named {destination}; kept"));
            all = false;
            continue;
        };
        let client = match clients.entry(destination) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match Client::new(configured) {
                Ok(client) => entry.insert(client),
                Err(error) => {
                    say(&format!("{file}: {error}; kept"));
                    all = false;
                    continue;
                }
            },
        };
        let body = state_file::read(&path, dead_letter::BYTES)?;
        let answer = runtime.block_on(client.post(body.into(), protocol));
        let kept = protocol == Protocol::V1
            || answer.written.is_some_and(|written| written.samples.or(written.histograms).is_some_and(|n| n > 0));
        let taken = kept && answer.status.is_some_and(|status| (200..300).contains(&status));
        let what = if taken { "sent and deleted" } else { "left" };
        say(&format!("{file}: {samples} samples, remote write {}: {}; {what}", protocol.name(), told(&answer)));
        if taken {
            fs::remove_file(&path)?;
        }
        all &= taken;
    }
    Ok(all)
}

fn told(answer: &ReceiverAnswer) -> String {
    let words = if answer.words.is_empty() { String::new() } else { format!(", {:?}", answer.words) };
    let written = answer.written.map(|written| written.samples.unwrap_or(0) + written.histograms.unwrap_or(0));
    match (answer.status, written) {
        (None, _) => format!("no answer: {}", answer.words),
        (Some(status), Some(written)) => format!("status {status}{words}, {written} samples written"),
        (Some(status), None) => format!("status {status}{words}"),
    }
}
